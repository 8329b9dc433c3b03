"""The command line: one file per command, no logic."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from secondglance.errors import SecondGlanceError

EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 130


def main() -> None:
    """Entry point of the `secondglance` command."""
    from secondglance.cli.app import app

    # A service manager's stop is handled as Ctrl-C: finish the batch, say how to go on.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(prog_name="secondglance")
    except SecondGlanceError as error:
        _fail(error.problem, error.remedy)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader, `head` for instance, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        _fail(
            f"{error.strerror or error}{where}",
            "check that the disk has room and the folder may be written; what was indexed is kept",
        )


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _fail(problem: str, remedy: str | None) -> None:
    from secondglance.cli.console import stderr

    stderr().print(f"[bold red]error:[/] {_plain(problem)}", highlight=False, soft_wrap=True)
    if remedy:
        stderr().print(f"  [bold]try:[/] {_plain(remedy)}", highlight=False, soft_wrap=True)
    sys.exit(EXIT_USER_ERROR)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
