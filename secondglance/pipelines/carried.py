"""What a library holds, as files to index again under another model; and what cannot come along."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from secondglance.evaluation.trec import named
from secondglance.ingest import sidecars
from secondglance.ingest.catalog import Catalog, FileRow
from secondglance.ingest.media_types import kind_by_extension
from secondglance.ingest.presence import Roots
from secondglance.ingest.scan import siblings
from secondglance.pipelines.batches import batches
from secondglance.pipelines.removal import agreed, is_gone
from secondglance.types import MediaItem

AT_ONCE = 1000

FOLDERS_KNOWN = 64
"""Folders whose sidecars are remembered; files come by path, so few are open at a time."""


class Carried:
    """The files of one catalog on their way into another.

    They keep their roots and captions. Not the folders are scanned, but the files that are known:
    neither a file that was named by itself nor one that appeared since changes what there is.

    Attributes:
        deleted: Files that are gone from folders that are there, and were left out; after `lost`.
        warnings: After `lost`.

    Args:
        old: Of the library as it is.
        new: Of the vectors that are being built.
        named: Folders and files that come besides.
    """

    def __init__(self, old: Catalog, new: Catalog, *, named: Sequence[Path]) -> None:
        self.deleted = 0
        self.warnings: list[str] = []
        self._old = old
        self._new = new
        self._named = named
        self._sidecars = lru_cache(maxsize=FOLDERS_KNOWN)(_sidecars_in)

    def items(self) -> Iterator[MediaItem]:
        """The files that can be read now, as a scan would yield them."""
        self._sidecars.cache_clear()
        for row in self._rows(self._old):
            path = Path(row.path)
            status = _status(path)
            if status is None:
                continue
            beside = self._sidecars(path.parent).get(path, ())
            yield MediaItem(
                path=path,
                root=Path(row.root),
                kind=kind_by_extension(path),
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                caption=row.caption,
                sidecars=beside,
                sidecar_stamp=sidecars.stamp(beside) if beside else "",
            )

    def drop_removed(self) -> None:
        """Forgets what the library has removed since an earlier run, so that both agree."""
        for paths in batches((path for path, _ in self._new.paths()), AT_ONCE):
            known = self._old.files_among([Path(path) for path in paths])
            gone = [path for path in paths if path not in known and not self._is_named(path)]
            if gone:
                self._new.forget(gone)

    def _is_named(self, path: str) -> bool:
        return any(path == str(each) or path.startswith(f"{each}{os.sep}") for each in self._named)

    def absent(self) -> list[str]:
        """Files that have vectors and cannot be read now; those with new vectors are none."""
        return [row.path for row in self._without_vectors() if _status(Path(row.path)) is None]

    def lost(self) -> dict[str, str]:
        """Files with vectors that would have none after the switch, and why; by path.

        A few files that were deleted are no loss: `index` would remove them as well.
        """
        lost: dict[str, str] = {}
        deleted: list[str] = []
        roots = Roots()
        for row in self._without_vectors():
            failed = self._new.file(row.path)
            if not is_gone(row.path):
                lost[row.path] = (failed and failed.error) or "it cannot be read"
            elif not row.mtime_ns:
                lost[row.path] = "its vectors were imported, and there is no file"
            elif roots.absence(row.root):
                lost[row.path] = f"{row.root} is away"
            else:
                deleted.append(row.path)
        if not agreed(len(deleted), self._old.file_count(), prune=False, confirm=None):
            lost |= dict.fromkeys(deleted, "it is gone")
            deleted = []
        self.deleted = len(deleted)
        self.warnings = []
        if deleted:
            self.warnings.append(
                f"{len(deleted)} files are gone and were left out: {named(deleted)}"
            )
        return lost

    def _without_vectors(self) -> Iterator[FileRow]:
        for rows in batches(self._rows(self._old), AT_ONCE):
            old = {row.path: row for row in rows if row.hash is not None}
            stored = self._old.content_kinds([row.hash for row in old.values() if row.hash])
            new = self._new.files_among([Path(path) for path in old])
            hashes = [row.hash for row in new.values() if row.hash]
            done = self._new.content_kinds(hashes)
            for path, row in old.items():
                if row.hash in stored and (path not in new or new[path].hash not in done):
                    yield row

    @staticmethod
    def _rows(catalog: Catalog) -> Iterator[FileRow]:
        for paths in batches((path for path, _ in catalog.paths()), AT_ONCE):
            rows = catalog.files_among([Path(path) for path in paths])
            yield from (rows[path] for path in paths if path in rows)


def _status(path: Path) -> os.stat_result | None:
    """Of a file that can be read as one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _sidecars_in(folder: Path) -> dict[Path, tuple[Path, ...]]:
    return sidecars.match(siblings(folder))
