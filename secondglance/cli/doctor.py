"""`secondglance doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stderr, stdout, write
from secondglance.cli.options import ConfigOption, PresetOption, SetOption

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}


def doctor(
    preset: PresetOption = None,
    library: Annotated[
        Path | None, typer.Option("--library", "-L", help="Also check this library.")
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Say what this machine has, and what to do about what is missing.

    Exit code 1 if something stands in the way of indexing or searching with the preset.
    """
    from rich.table import Table

    from secondglance.pipelines.doctor import examine

    with stderr().status("looking around"):
        findings = examine(
            preset=preset, library=library, config=config, settings=overrides(set_ or ())
        )
    if as_json:
        write(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False), None)
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            detail = escape(finding.detail)
            if finding.remedy:
                detail += f"\n[dim]{escape(finding.remedy)}[/]"
            table.add_row(MARKS[finding.state], f"[bold]{finding.name}[/]", detail)
        stdout().print(table)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
