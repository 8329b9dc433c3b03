"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from secondglance.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.progress import Progress


@cache
def stderr() -> Console:
    """For progress, warnings and errors."""
    return Console(stderr=True)


@cache
def stdout() -> Console:
    """For tables; `write` is for everything that programs read."""
    return Console()


def warn(messages: Iterable[str]) -> None:
    """Shows warnings."""
    for message in messages:
        stderr().print(
            f"[bold yellow]warning:[/] {escape(message)}", highlight=False, soft_wrap=True
        )


def write(text: str, out: Path | None) -> None:
    """Writes a result to a file, or to stdout.

    Raises:
        InputError: The file cannot be written.
    """
    if out is None:
        import sys

        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    stderr().print(f"written: {out}", highlight=False)


def progress_bar(*, markup: bool = False) -> Progress:
    """A bar on stderr that goes away when it is done; see `Stages`.

    Args:
        markup: Whether rich's markup counts in its descriptions.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=markup),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
    )


class Stages:
    """Shows the stages of one job in a bar, one after the other.

    Args:
        bar: Of `progress_bar`.
        stage: The first.
        text: What the bar says of it.
    """

    def __init__(self, bar: Progress, stage: object, text: str) -> None:
        self._bar = bar
        self._stage = stage
        self._task = bar.add_task(text, total=None)

    def show(self, stage: object, text: str, *, done: int, total: int) -> None:
        """How far a stage is; `total` is 0 where that is not known."""
        if stage != self._stage:
            self._stage = stage
            # A finished bar would keep its time.
            self._bar.reset(self._task, total=total or None)
        self._bar.update(self._task, description=text, completed=done, total=total or None)


def show_log() -> None:
    """Lets the library's own log messages reach the user, and no other package's."""
    from rich.logging import RichHandler

    # Other packages log on the root logger; without a handler there, the first call would make
    # one that writes over the progress bar.
    logging.getLogger().addHandler(logging.NullHandler())
    handler = RichHandler(console=stderr(), show_time=False, show_path=False, show_level=False)
    logger = logging.getLogger("secondglance")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """`section.key=value` options as nested settings.

    Raises:
        ConfigError: One is not of that form.
    """
    nested: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        section, dot, key = name.partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"--set {pair!r} is not of the form section.key=value")
        nested.setdefault(section, {})[key] = _value(value)
    return nested


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
