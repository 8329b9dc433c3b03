"""`secondglance search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, Format, LibraryOption, SetOption


def search(
    library: LibraryOption,
    text: Annotated[str, typer.Argument(help="What to look for, in words.")] = "",
    image: Annotated[
        Path | None, typer.Option(help="A picture to look for; may go with words.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="A clip to look for.")] = None,
    not_: Annotated[str, typer.Option("--not", help="Words to move away from.")] = "",
    kind: Annotated[
        Literal["image", "video", "text"] | None, typer.Option(help="Only this kind.")
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="EXPR", help="For instance: taken >= 2024-01-01 and width > 1000"
        ),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", help="How many results.", min=1)] = None,
    recall: Annotated[
        int | None, typer.Option(help="Candidates for the second pass.", min=1)
    ] = None,
    rerank: Annotated[
        bool | None, typer.Option("--rerank/--no-rerank", help="With or without the second pass.")
    ] = None,
    words: Annotated[
        bool | None,
        typer.Option("--words/--no-words", help="Captions, texts and file names by words, too."),
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="Time for the second pass, in milliseconds.", min=0)
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Leave out results below: a probability if evaluate --fit was run, else the score."
        ),
    ] = None,
    moments: Annotated[
        bool, typer.Option("--moments", help="Every stretch of a video is a result of its own.")
    ] = False,
    group_duplicates: Annotated[
        bool | None,
        typer.Option(help="One result for pictures that look nearly the same, or each its own."),
    ] = None,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Left out: by --out's name, else table.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    preset: Annotated[str | None, typer.Option(hidden=True)] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Search a library: CLIP finds candidates, the reranker puts them in order."""
    from secondglance.library import Library
    from secondglance.pipelines import render
    from secondglance.types import Query

    chosen: Format = "json" if as_json else format_ or render.format_of(out)
    query = Query(text=text, image=image, video=video, not_text=not_)
    settings = overrides(set_ or ())
    with (
        Library.open(
            library, preset=preset, config=config, create=False, settings=settings
        ) as opened,
        stderr().status("searching"),
    ):
        result = opened.search(
            query,
            k=k,
            recall=recall,
            rerank=rerank,
            filter=filter_,
            kind=kind,
            min_score=min_score,
            budget_ms=budget_ms,
            group=not moments,
            group_duplicates=group_duplicates,
            words=words,
        )
    warn(result.warnings)
    if result.message and (chosen == "csv" or out is not None):
        stderr().print(result.message, markup=False, highlight=False, soft_wrap=True)
    if chosen == "table" and out is None:
        if result.message:
            stdout().print(result.message, markup=False, highlight=False, soft_wrap=True)
        else:
            stdout().print(render.table(result))
        stdout().print(f"[dim]{render.timings(result)}[/]", highlight=False, soft_wrap=True)
    elif chosen == "table":
        write(render.plain_table(result), out)
    else:
        write(render.render(result, chosen), out)
