"""Files that a run did not come across: deleted, or on a drive that is away."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from secondglance.errors import InputError
from secondglance.ingest.catalog import Catalog
from secondglance.ingest.presence import Roots
from secondglance.types import IndexReport

MANY_SHARE = 0.1
"""More than this share of a library is removed only when somebody agrees."""

FEW_FILES = 10
"""So many deletions below a folder that was named are ordinary, whatever share they are."""

Confirm: TypeAlias = Callable[[int, int], bool]
"""Asked whether to remove (files to remove, files in the library)."""


class RemovalRefusedError(InputError):
    """Nobody agreed to remove so much; everything else in `report` is done."""

    def __init__(self, count: int, total: int) -> None:
        super().__init__(
            f"--prune would remove {count} of {total} indexed files, more than "
            f"{MANY_SHARE:.0%}; they are kept",
            remedy="if they were deleted on purpose, run again with --prune --yes",
        )
        self.report = IndexReport()


@dataclass(slots=True)
class Gone:
    """What a run may remove, and what it keeps though it was not found.

    Attributes:
        paths: Files that were deleted.
        absent: Files that are kept, for the drive may be away.
        warnings: What the user should know about those.
    """

    paths: set[str] = field(default_factory=set)
    absent: int = 0
    warnings: list[str] = field(default_factory=list)

    def keep(self, root: Path | str, why: str, count: int, remedy: str) -> None:
        """Notes that files below a root stay."""
        self.absent += count
        self.warnings.append(
            f"{root} is {why}; {count} indexed files are kept and marked absent; "
            f"if they were deleted on purpose, {remedy}"
        )


WHY = {"missing": "not there", "empty": "empty"}


def find_gone(
    catalog: Catalog,
    found: Mapping[Path, int],
    *,
    unreadable: Sequence[Path],
    sidecars: Set[str] = frozenset(),
    prune: bool,
) -> Gone:
    """Sorts the files that the scan did not see into deleted ones and absent ones.

    Args:
        catalog: After a scan.
        found: For each path that was named, how many files the scan saw below it.
        unreadable: Folders whose files are unknown.
        sidecars: Files that describe others: one that was indexed by itself goes.
        prune: Whether files elsewhere count too, and those below a named path that is away.
    """
    gone, roots = Gone(), Roots()
    for named, count in found.items():
        missing = catalog.unseen(named)
        if missing and not count and not prune and named not in unreadable:
            # An empty folder is what an unplugged drive leaves behind.
            why = WHY[roots.absence(named) or "empty"]
            gone.keep(named, why, len(missing), "run again with --prune")
            continue
        away: Counter[str] = Counter()
        for path, root in missing:
            if _is_below(path, unreadable):
                continue
            if named in Path(root).parents and roots.absence(root):
                away[root] += 1  # a drive below a folder that was named
            elif path in sidecars or is_gone(path):
                gone.paths.add(path)
        _keep(gone, roots, away)
    if prune:
        _look_elsewhere(catalog, list(found), gone, roots)
    return gone


def _look_elsewhere(catalog: Catalog, named: Sequence[Path], gone: Gone, roots: Roots) -> None:
    away: Counter[str] = Counter()
    for path, root in catalog.paths():
        if _is_below(path, named):
            continue
        if roots.absence(root):
            away[root] += 1
        elif is_gone(path):
            gone.paths.add(path)
    _keep(gone, roots, away)


def _keep(gone: Gone, roots: Roots, away: Mapping[str, int]) -> None:
    for root, count in away.items():
        why = WHY[roots.absence(root) or "empty"]
        gone.keep(root, why, count, "name that folder and say --prune")


def agreed(count: int, total: int, *, prune: bool, confirm: Confirm | None) -> bool:
    """Whether `count` of `total` files may be removed.

    Raises:
        RemovalRefusedError: It is a large share, and there is nobody to ask.
    """
    if count <= MANY_SHARE * total or (not prune and count <= FEW_FILES):
        return True
    if not prune:
        return False
    if confirm is None:
        raise RemovalRefusedError(count, total)
    return confirm(count, total)


def is_gone(path: str) -> bool:
    """Whether there is no such file; what cannot be told counts as being there."""
    try:
        os.stat(path)  # noqa: PTH116 - called for every file of a library
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _is_below(path: str, folders: Sequence[Path]) -> bool:
    return any(path == str(folder) or path.startswith(f"{folder}/") for folder in folders)
