"""`secondglance export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from secondglance.cli.console import Stages, overrides, progress_bar, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption


def export(
    library: LibraryOption,
    out: Annotated[Path, typer.Option(help="Folder to make; it appears when it is complete.")],
    what: Annotated[
        Literal["vectors", "metadata", "both"],
        typer.Option(help="vectors: with what names them; metadata: all but vectors."),
    ] = "both",
    part_mb: Annotated[int, typer.Option(min=1, help="Size of a file, about.")] = 512,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier export.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Write vectors and metadata to Parquet files."""
    from secondglance.library import Library

    settings = overrides(set_ or ())
    with (
        Library.open(library, config=config, create=False, settings=settings) as opened,
        progress_bar() as bar,
    ):
        stages = Stages(bar, "export", "writing")
        done = opened.export(
            out,
            what=what,
            part_mb=part_mb,
            overwrite=overwrite,
            on_progress=lambda done, total: stages.show(
                "export", "writing", done=done, total=total
            ),
        )
    warn(done.warnings)
    if as_json:
        write(json.dumps(done.to_dict(), ensure_ascii=False), None)
        return
    stdout().print(
        f"{done.records} records of {done.embedder} in {len(done.files)} files, "
        f"{done.bytes / 1e6:,.1f} MB: {done.out}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
