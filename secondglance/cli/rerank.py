"""`secondglance rerank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, PresetOption, SetOption


def rerank(
    documents: Annotated[
        Path,
        typer.Option(
            help="JSONL, a candidate a line: a string, or an object with text, image, video "
            "and, if you like, id. Paths are relative to the file. '-' reads stdin."
        ),
    ],
    query: Annotated[str, typer.Option(help="What to look for, in words.")] = "",
    query_image: Annotated[Path | None, typer.Option(help="A picture to look for.")] = None,
    query_video: Annotated[Path | None, typer.Option(help="A clip to look for.")] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Replaces the reranker's default instruction.")
    ] = None,
    top_n: Annotated[int | None, typer.Option(help="Only the best.", min=1)] = None,
    format_: Annotated[Literal["table", "json", "csv"], typer.Option("--format")] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Order candidates of your own with the second pass alone; needs no library."""
    from secondglance.pipelines import rerank as pipeline

    with stderr().status("reranking"):
        result = pipeline.rerank_file(
            documents,
            query=query,
            query_image=query_image,
            query_video=query_video,
            instruction=instruction,
            top_n=top_n,
            preset=preset,
            config=config,
            settings=overrides(set_ or ()),
        )
    warn(result.warnings)
    if as_json or format_ == "json":
        write(result.json(), out)
    elif format_ == "csv":
        write(result.csv(), out)
    elif out is None:
        stdout().print(result.table())
    else:
        raise typer.BadParameter("a table goes to the terminal; use json or csv with --out")
