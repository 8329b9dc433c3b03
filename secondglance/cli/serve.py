"""`secondglance serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secondglance.cli.console import overrides, stderr
from secondglance.cli.options import ConfigOption, SetOption


def serve(
    library: Annotated[
        Path,
        typer.Option("--library", "-L", help="The library folder.", envvar="SECONDGLANCE_LIBRARY"),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 7860,
    preload: Annotated[
        bool, typer.Option("--preload", help="Load the models before the first request.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Serve the library: a web page, and an HTTP interface for programs."""
    from secondglance.library import Library
    from secondglance.server.options import ServerOptions
    from secondglance.server.run import run

    options = ServerOptions(host=host, port=port, preload=preload)
    with Library.open(
        library, config=config, create=False, settings=overrides(set_ or ())
    ) as opened:
        run(
            opened,
            options,
            on_start=lambda url: stderr().print(f"serving {library} at {url}", highlight=False),
        )
