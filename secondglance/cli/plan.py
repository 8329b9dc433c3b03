"""`secondglance plan`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stdout, write
from secondglance.cli.options import ConfigOption, SetOption

if TYPE_CHECKING:
    from secondglance.pipelines.plan import Plan


def plan(
    images: Annotated[int, typer.Option("--images", help="Pictures.")] = 0,
    video_hours: Annotated[float, typer.Option("--video-hours", help="Hours of video.")] = 0.0,
    queries_per_second: Annotated[
        float, typer.Option("--queries-per-second", help="On average.")
    ] = 0.0,
    preset: Annotated[
        str, typer.Option(help="Whose models: starter, laptop, gpu or cluster.")
    ] = "gpu",
    gpu_hour_price: Annotated[
        float | None,
        typer.Option("--gpu-hour-price", help="Of a GPU hour, in any currency; for costs."),
    ] = None,
    segments_per_hour: Annotated[
        float | None,
        typer.Option(
            "--segments-per-hour", help="Of video, for instance 60 for a still camera; or measured."
        ),
    ] = None,
    cores: Annotated[
        int | None, typer.Option(help="Of the machine that ingests; this one's.", min=1)
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option("--memory-gb", help="Of the machine that serves; this one's.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Say what a library of some size needs: vectors, disk, memory, hours, GPUs, costs.

    Reckoned from measured rates; the last lines say which.
    """
    from secondglance.config import load_settings, read_preset
    from secondglance.pipelines.plan import plan as reckon

    settings = load_settings(
        base={**read_preset(preset), "preset": preset}, file=config, flags=overrides(set_ or ())
    )
    found = reckon(
        settings,
        images=images,
        video_hours=video_hours,
        queries_per_second=queries_per_second,
        cores=cores or _cores(),
        memory_bytes=_memory_bytes() if memory_gb is None else int(memory_gb * 1e9),
        gpu_hour_price=gpu_hour_price,
        segments_per_hour=segments_per_hour,
    )
    if as_json:
        write(json.dumps(asdict(found), ensure_ascii=False), None)
    else:
        _show(found)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _show(found: Plan) -> None:
    from rich.table import Table

    def known(value: float | None, written: str) -> str:
        return "not measured" if value is None else written.format(value)

    needs = Table(box=None, pad_edge=False, show_header=False)
    rows = [
        ("vectors", f"{found.vectors:,} of {found.dimension} numbers"),
        (f"ingest here, {found.cores} cores", f"{found.ingest_hours_here:,.1f} hours"),
        ("ingest with one GPU", known(found.ingest_hours_gpu, "{:,.1f} hours")),
        (
            f"second pass, {found.candidates} candidates a query",
            known(found.gpu_seconds_per_query, "{:.2f} GPU seconds a query"),
        ),
        (f"GPUs for {found.queries_per_second:g} queries/s", known(found.gpus, "{:,}")),
    ]
    if found.cost_per_million_queries is not None:
        rows.append(("cost of a million queries", f"{found.cost_per_million_queries:,.0f}"))
    if found.cost_to_ingest is not None:
        rows.append(("cost of ingesting on GPUs", f"{found.cost_to_ingest:,.2f}"))
    for row in rows:
        needs.add_row(*row)
    stdout().print(needs)
    stdout().print()
    sizes = Table("index", "bytes a vector", "memory", "disk", "fits here", box=None,
                  pad_edge=False)  # fmt: skip
    for index in found.indexes:
        sizes.add_row(
            index.name,
            f"{index.bytes_per_vector:,}",
            f"{index.memory_bytes / 1e9:,.1f} GB",
            f"{index.disk_bytes / 1e9:,.1f} GB",
            "[green]yes[/]" if index.fits else "[yellow]no[/]",
        )
    stdout().print(sizes)
    stdout().print()
    for sentence in found.advice:
        stdout().print(escape(sentence), highlight=False)
    for source in found.sources:
        stdout().print(f"[dim]{escape(source)}[/]", highlight=False)
