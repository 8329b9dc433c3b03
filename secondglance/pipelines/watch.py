"""Keeping a library up to date: an index run after each burst of changes.

The file system's events only say that something happened below a root; what happened is found by
looking, as any index run does. So no order of events, lost event or renamed folder can mislead it.
"""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.ingest.scan import JUNK
from secondglance.pipelines.index import IndexInterruptedError
from secondglance.types import IndexReport

if TYPE_CHECKING:
    from watchfiles import Change

TICK_MS = 500
"""How often files that are being written, and roots that went away, are looked at."""

PATIENCE_S = 10.0
"""How long files that are complete wait for others that are still being written."""

SHARE_OF_TIME = 0.2
"""Scans of a large library may take this share of the time; changes wait for the next one."""

Index = Callable[[Sequence[Path], frozenset[Path]], IndexReport]
"""Brings the library up to date with roots, but for files that are still being written."""


class Unsettled:
    """Files that changed, until they have stopped changing.

    Args:
        settle_s: How long size and modification time must stay as they are.
    """

    def __init__(self, *, settle_s: float) -> None:
        self._settle_s = settle_s
        self._since: dict[Path, tuple[tuple[int, int] | None, float]] = {}

    def touch(self, path: Path) -> None:
        """Notes that something happened to a file."""
        self._since[path] = (_state(path), time.monotonic())

    def settle(self) -> frozenset[Path]:
        """Looks at all of them again; returns those that are still changing."""
        now = time.monotonic()
        for path, (before, since) in list(self._since.items()):
            state = _state(path)
            if state != before:
                self._since[path] = (state, now)
            elif state is None or now - since >= self._settle_s:
                del self._since[path]
        return frozenset(self._since)


def watch(
    roots: Sequence[Path],
    index: Index,
    *,
    exclude: Path,
    settle_s: float,
    stop: threading.Event,
    on_report: Callable[[IndexReport], None],
) -> IndexReport:
    """Indexes roots, and again whenever something below them changed, until told to stop.

    A root that goes away is noticed, and watched again when it comes back.

    Args:
        roots: Absolute paths.
        index: What brings the library up to date.
        exclude: The library's own folder.
        settle_s: See `Unsettled`.
        stop: Ends it between two runs.
        on_report: Called after each run that changed something or has something new to say.

    Returns:
        The sum of all runs.

    Raises:
        IndexInterruptedError: Ctrl-C; its report is the sum of all runs.
        InputError: The system cannot watch so many folders.
    """
    unsettled = Unsettled(settle_s=settle_s)
    total = IndexReport()
    said: tuple[str, ...] = ()
    # The first scan comes after the watch has begun, so nothing falls between the two.
    changed_since = set(roots)
    away: set[Path] = set()  # roots that the latest run may not have found
    ready_since: float | None = None
    rest_until = 0.0
    try:
        for changed in _changes(roots, exclude=exclude, stop=stop):
            for path in changed:
                unsettled.touch(path)
            back = set(_identities([*away]))
            away -= back
            changed_since |= changed | back
            waiting = unsettled.settle()
            now = time.monotonic()
            if not changed_since - waiting:
                continue
            ready_since = ready_since or now
            # What is copied together is taken in together, unless that takes long.
            if now < rest_until or (waiting and now - ready_since < PATIENCE_S):
                continue
            before = _identities(roots)
            report = index(roots, waiting)
            after = _identities(roots)
            away = {root for root in roots if root not in before or root not in after}
            rest_until = time.monotonic() + report.scan_seconds * (1 / SHARE_OF_TIME - 1)
            ready_since = None
            changed_since &= waiting
            first, total = total == IndexReport(), add(total, report)
            done = report.indexed or report.moved or report.removed
            if first or done or report.warnings != said:
                on_report(report)
            said = report.warnings
    except IndexInterruptedError as interrupt:
        raise IndexInterruptedError(add(total, interrupt.report)) from None
    except KeyboardInterrupt:
        raise IndexInterruptedError(total) from None
    return total


def _changes(roots: Sequence[Path], *, exclude: Path, stop: threading.Event) -> Iterator[set[Path]]:
    """What changed below the roots, every tick; also roots that went away or came back."""
    import watchfiles

    def wanted(_: Change, path: str) -> bool:
        changed = Path(path)
        below = next((changed.relative_to(r) for r in roots if changed.is_relative_to(r)), changed)
        hidden = any(part.startswith(".") for part in below.parts)
        return not (hidden or changed.name.lower() in JUNK or changed.is_relative_to(exclude))

    before = _identities(roots)
    while not stop.is_set():
        present = _identities(roots)
        yield {root for root in roots if present.get(root) != before.get(root)}
        before = present
        if not present:
            stop.wait(TICK_MS / 1e3)
            continue
        try:
            for found in watchfiles.watch(
                *present,
                watch_filter=wanted,
                debounce=TICK_MS,
                step=100,
                rust_timeout=TICK_MS,
                yield_on_timeout=True,
                stop_event=stop,
                ignore_permission_denied=True,
            ):
                yield {Path(path) for _, path in found}
                if _identities(roots) != present:
                    break
        except FileNotFoundError:
            continue  # a root went away just now
        except OSError as error:
            raise InputError(
                f"cannot watch {', '.join(map(str, present))}: {error}",
                remedy="raise fs.inotify.max_user_watches, or run `index` from time to time",
            ) from error


def _identities(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """The roots that are there; another drive mounted on one makes another of it."""
    return {root: identity for root in roots if (identity := _identity(root))}


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        status = root.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _state(path: Path) -> tuple[int, int] | None:
    """Size and modification time of a file; None for what is no file, which needs no settling."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def add(total: IndexReport, report: IndexReport) -> IndexReport:
    """Counts of what was done added up, counts of what there is from the latest run."""
    return IndexReport(
        files=report.files,
        indexed=total.indexed + report.indexed,
        unchanged=report.unchanged,
        moved=total.moved + report.moved,
        removed=total.removed + report.removed,
        absent=report.absent,
        failed=report.failed,
        segments=total.segments + report.segments,
        described=total.described + report.described,
        scan_seconds=round(total.scan_seconds + report.scan_seconds, 3),
        seconds=round(total.seconds + report.seconds, 3),
        errors=report.errors,
        warnings=report.warnings,
    )
