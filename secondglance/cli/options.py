"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Format = Literal["table", "json", "csv", "html"]

LibraryOption = Annotated[
    Path, typer.Option("--library", "-L", help="The library folder.", envvar="SECONDGLANCE_LIBRARY")
]
PresetOption = Annotated[
    str | None,
    typer.Option(help="starter, laptop, gpu or cluster; left out: the best this machine can run."),
]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
    ),
]


def listed(written: str) -> list[str]:
    """Names that were written with commas between them."""
    return [name.strip() for name in written.split(",") if name.strip()]
