"""`secondglance models`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from secondglance.cli.console import stdout, write


def models(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """List the presets, their models, and whether these are on this machine."""
    from rich.table import Table

    from secondglance.pipelines.doctor import preset_models

    found = preset_models()
    if as_json:
        write(json.dumps([asdict(model) for model in found], ensure_ascii=False), None)
        return
    table = Table("preset", "pass", "model", "here", box=None, pad_edge=False)
    for model in found:
        here = "[green]yes[/]" if model.present else "[yellow]no[/]"
        table.add_row(model.preset, model.stage, escape(model.model), here)
    stdout().print(table)
