"""`secondglance duplicates`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption

SHOWN_GROUPS = 50


def duplicates(
    library: LibraryOption,
    threshold: Annotated[
        float | None,
        typer.Option(help="Share of 64 bits in which two pictures agree; left out: 0.875."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """List exact copies of any kind, and pictures that look nearly the same.

    The file to keep comes first in each group: most pixels, then most bytes. Nothing is deleted.
    """
    from secondglance.library import Library

    settings = overrides(set_ or ())
    with (
        Library.open(library, config=config, create=False, settings=settings) as opened,
        stderr().status("comparing") as shown,
    ):
        found = opened.duplicates(
            threshold=threshold,
            on_progress=lambda done, total: shown.update(f"looking at {done} of {total} pictures"),
        )
    warn(f"not compared: {failure.path}: {failure.reason}" for failure in found.failures)
    if as_json:
        write(json.dumps(found.to_dict(), ensure_ascii=False), None)
        return
    for group in found.groups[:SHOWN_GROUPS]:
        same = "the same" if group.kind == "exact" else "alike"
        stdout().print(f"[bold]{len(group.files)} files, {same}[/]", highlight=False)
        for file in group.files:
            size = f"{file.width}x{file.height}, " if file.width else ""
            note = ("keep  " if file.keep else "      ") + escape(file.path)
            away = ", absent" if file.absent else ""
            stdout().print(
                f"  {note}  ({size}{file.size:,} bytes{away})", highlight=False, soft_wrap=True
            )
    if len(found.groups) > SHOWN_GROUPS:
        stdout().print(f"... and {len(found.groups) - SHOWN_GROUPS} more groups; see --json")
    spare = sum(group.spare_bytes for group in found.groups)
    stdout().print(
        f"{len(found.groups)} groups, {spare / 1e6:,.1f} MB beside the files to keep",
        highlight=False,
    )
