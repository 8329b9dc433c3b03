"""`secondglance cover`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, PresetOption, SetOption

if TYPE_CHECKING:
    from rich.status import Status
    from rich.table import Table

    from secondglance.pipelines.cover import CoverResult, Progress


def cover(
    video: Annotated[Path, typer.Argument(help="A video file.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    title: Annotated[
        str, typer.Option(help="What the cover should show; left out: the sharpest frames.")
    ] = "",
    n: Annotated[int, typer.Option("-n", help="How many covers.", min=1)] = 1,
    image_format: Annotated[
        Literal["jpeg", "png"], typer.Option(help="jpeg has quality 95, png is lossless.")
    ] = "jpeg",
    rerank: Annotated[
        bool, typer.Option("--rerank/--no-rerank", help="With or without the second pass.")
    ] = True,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Pick the best cover pictures of a video, and write them in full size; needs no library.

    Frames from all over the video that are sharp and neither black nor blown out are compared with
    the title by CLIP, and the best of them by the reranker.
    """
    from secondglance.pipelines import cover as pipeline

    with stderr().status("opening the video") as status:
        result = pipeline.cover(
            video,
            out=out,
            title=title,
            n=n,
            image_format=image_format,
            rerank=rerank,
            preset=preset,
            config=config,
            settings=overrides(set_ or ()),
            on_progress=lambda progress: _tell(status, progress),
        )
    warn(result.warnings)
    if as_json:
        write(json.dumps(result.to_dict(), ensure_ascii=False, indent=2), None)
    else:
        stdout().print(_table(result))


STAGES = {
    "look": "looking for sharp frames",
    "load": "loading the model",
    "recall": "comparing with the title",
    "rerank": "looking again at the best",
    "write": "writing",
}


def _tell(status: Status, progress: Progress) -> None:
    counted = f" {progress.done} of {progress.total}" if progress.total else ""
    status.update(STAGES[progress.stage] + counted)


def _table(result: CoverResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from secondglance.types import clock

    rows = Table(
        "rank", "time", "score", "recall", "rerank", "sharpness", "brightness", "picture",
        box=None, pad_edge=False,
    )  # fmt: skip
    rows.columns[-1].overflow = "fold"
    for column in rows.columns[:-1]:
        column.justify = "right"
    for cover in result.covers:
        numbers = (cover.score, cover.recall_score, cover.rerank_score)
        rows.add_row(
            str(cover.rank),
            clock(cover.time_s),
            *("" if number is None else f"{number:.3f}" for number in numbers),
            f"{cover.sharpness:.3f}",
            f"{cover.brightness:.2f}",
            escape(cover.path),
        )
    return rows
