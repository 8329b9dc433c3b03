"""The command line in this process, as `python -m secondglance` runs it.

A process of its own takes seconds for its imports and shows only that there is an exit code;
`tests/e2e/test_cli.py` says which ones get one.
"""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.cli import console, main

Run = subprocess.CompletedProcess[str]

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1"}
"""No network, and a terminal of 200 columns without colours."""


def run(*arguments: str | Path, stdin: str = "", **environment: str) -> Run:
    """Runs `secondglance` with these arguments: its exit code, and all that it writes."""
    command = ["secondglance", *map(str, arguments)]
    output, errors = io.StringIO(), io.StringIO()
    code = 0
    with pytest.MonkeyPatch.context() as patch, _as_it_was():
        for name, value in {**ENVIRONMENT, **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", command)
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Run(command, code, output.getvalue(), errors.getvalue())


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """What a run leaves behind in its process: handlers of signals, faults and the log."""
    handler, hook = signal.getsignal(signal.SIGTERM), sys.excepthook
    loggers = [logging.getLogger(), logging.getLogger("secondglance")]
    states = [(each, [*each.handlers], each.level, each.propagate) for each in loggers]
    consoles = (console.stdout, console.stderr)
    for each in consoles:
        each.cache_clear()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.excepthook = hook
        for logger, handlers, level, propagate in states:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        for each in consoles:
            each.cache_clear()
