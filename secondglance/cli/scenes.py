"""`secondglance scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from secondglance.cli.console import stderr, stdout, write


def scenes(
    folder: Annotated[Path, typer.Argument(help="New folder.", show_default=False)],
    pictures: Annotated[int, typer.Option(min=0, help="Pictures.")] = 300,
    clips: Annotated[int, typer.Option(min=0, help="Clips of 4 s.")] = 40,
    texts: Annotated[int, typer.Option(min=0, help="Texts.")] = 40,
    family: Annotated[
        int, typer.Option(min=1, help="A target and its near-misses, which differ in one fact.")
    ] = 6,
    split: Annotated[
        str, typer.Option(help="train, validation or test: whose combinations of objects.")
    ] = "test",
    seed: Annotated[int, typer.Option(help="The same seed gives the same media.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Generate a media library to try things on, with queries and judgments."""
    import json

    from rich.progress import Progress

    from secondglance.scenes.collection import write_collection
    from secondglance.scenes.vocabulary import Split

    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("generating", total=pictures + clips + texts)
        made = write_collection(
            folder,
            pictures=pictures,
            clips=clips,
            texts=texts,
            family=family,
            split=cast(Split, split),
            seed=seed,
            progress=lambda done: bar.advance(task, done),
        )
    counts = {"files": len(made.entries), "queries": len(made.requests)}
    if as_json:
        write(json.dumps({"folder": str(folder), **counts}), None)
        return
    stdout().print(
        f"{counts['files']} files in {folder}; {counts['queries']} queries in queries.jsonl, "
        "answers in qrels.txt",
        soft_wrap=True,
    )
