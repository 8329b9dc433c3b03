"""`secondglance explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption

if TYPE_CHECKING:
    from secondglance.pipelines.explanation import Explanation


def explain(
    library: LibraryOption,
    text: Annotated[str, typer.Argument(help="What was looked for, in words.")] = "",
    image: Annotated[
        Path | None, typer.Option(help="The picture that was looked for; may go with words.")
    ] = None,
    video: Annotated[Path | None, typer.Option(help="The clip that was looked for.")] = None,
    id_: Annotated[str, typer.Option("--id", help="Of the hit, as `search --json` shows it.")] = "",
    rank: Annotated[
        int | None, typer.Option(help="Search first, and explain the hit of this rank.", min=1)
    ] = None,
    kind: Annotated[
        Literal["image", "video", "text"] | None, typer.Option(help="With --rank: only this kind.")
    ] = None,
    query_words: Annotated[
        bool, typer.Option("--query-words", help="Also which words of the query mattered.")
    ] = False,
    negative: Annotated[
        bool, typer.Option("--negative", help="Also draw what lowers the score, in blue.")
    ] = False,
    grid: Annotated[
        int | None, typer.Option(help="Cells along the longer side of a picture, 2 to 16.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the picture with its regions drawn over it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Show why a result matched: the words, or the regions of a picture, that its score needs.

    Parts are left out one after the other, and the reranker scores what is left.
    """
    from secondglance.library import Library
    from secondglance.pipelines.explain_hit import hit_of_rank, options
    from secondglance.pipelines.explanation import write_overlay
    from secondglance.types import Query

    query = Query(text=text, image=image, video=video)
    with (
        Library.open(
            library, config=config, create=False, settings=overrides(set_ or ())
        ) as opened,
        stderr().status("searching" if rank else "explaining") as status,
    ):
        chosen = hit_of_rank(opened.search, query, id_, rank=rank, kind=kind)
        status.update("explaining")
        found = opened.explain(query, chosen, **options(grid=grid, query_words=query_words))
        picture = opened.shown_picture(chosen) if out is not None and found.regions else None
    warn(found.warnings)
    if out is not None and picture is not None:
        written = write_overlay(picture, found, out, negative=negative)
        stderr().print(f"written: {written}", highlight=False, soft_wrap=True)
    if as_json:
        write(json.dumps(found.to_dict(), ensure_ascii=False, indent=2), None)
    else:
        _show(found, drawn=picture is not None)


def _show(found: Explanation, *, drawn: bool) -> None:
    from secondglance.pipelines.explanation import marked, strongest

    out = stdout()
    out.print(f"score {found.score:.3f} ({found.log_odds:+.2f} log-odds)", highlight=False)
    if found.query_words:
        out.print("query: ", marked(found.query, found.query_words), soft_wrap=True, end="")
        out.print()
    for part, text in enumerate(found.texts):
        out.print(marked(text, found.words, part=part), soft_wrap=True)
    for line in strongest(found):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if found.regions and not drawn:
        out.print("[dim]--out FOLDER draws the regions over the picture[/]", highlight=False)
    out.print(f"[dim]{found.pairs} pairs scored in {found.ms:.0f} ms[/]", highlight=False)
