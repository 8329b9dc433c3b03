"""The ingestion job: scan, decode, embed, store, and put the catalog in order.

Order of writing, so that a kill at any moment loses nothing: ids to the catalog, vectors to the
store, files marked done. What no file holds any more is removed at the end.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secondglance.errors import InputError
from secondglance.ingest.catalog import Catalog, FileRow, Outdated, description
from secondglance.ingest.scan import Scan, check_paths, walk
from secondglance.pipelines.build import Parts
from secondglance.pipelines.embed import EmbedJob
from secondglance.pipelines.records import file_payload
from secondglance.types import FileFailure, IndexReport, MediaItem, Record

DESCRIBED_AT_ONCE = 256
"""Contents whose payloads are rewritten with one write and one commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is; `total` is 0 while the scan still counts."""

    stage: Literal["scan", "load", "embed", "tidy"]
    done: int
    total: int
    failed: int = 0
    segments: int = 0


class IndexInterruptedError(KeyboardInterrupt):
    """Ctrl-C: everything in `report` is stored, and the next run goes on from there."""

    def __init__(self, report: IndexReport) -> None:
        super().__init__("interrupted")
        self.report = report


def index(
    parts: Parts,
    paths: Sequence[str | Path],
    *,
    prune: bool = False,
    retry_failed: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> IndexReport:
    """Brings a library up to date with folders and files.

    Args:
        parts: Of the library.
        paths: Folders and files.
        prune: Also remove files outside `paths` that no longer exist.
        retry_failed: Try files again that failed before and did not change.
        on_progress: Called often.

    Raises:
        InputError: A path does not exist, or there is none.
        IndexInterruptedError: Ctrl-C; what was embedded is stored.
    """
    roots = check_paths(paths)
    if not roots and not prune:
        raise InputError("nothing to index", remedy="name at least one folder or file")
    run = _Run(parts, retry_failed=retry_failed, on_progress=on_progress)
    try:
        run.scan(roots)
        run.embed()
    except KeyboardInterrupt:
        raise IndexInterruptedError(run.report()) from None
    run.tidy(roots, prune=prune)
    return run.report()


class _Run:
    def __init__(
        self, parts: Parts, *, retry_failed: bool, on_progress: Callable[[Progress], None]
    ) -> None:
        self._parts = parts
        self._catalog: Catalog = parts.catalog
        self._retry_failed = retry_failed
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._scan = Scan()
        self._todo: list[MediaItem] = []
        self._known_failures: list[FileFailure] = []
        self._job: EmbedJob | None = None
        self._present: dict[Path, int] = {}
        self._unchanged = 0
        self._removed = 0
        self._warnings: list[str] = []

    def scan(self, roots: Sequence[Path]) -> None:
        """Sorts the files that exist into unchanged, known to fail, and to do."""
        self._parts.words()  # notes from now on which files change
        self._catalog.start_scan()
        count = 0
        batch: list[Path] = []
        for root in roots:
            before = count
            for item in walk(root, exclude=self._parts.folder, scan=self._scan):
                count += 1
                batch.append(item.path)
                self._sort(item)
                if len(batch) == 1000:
                    self._catalog.see(batch)
                    batch.clear()
                    self._on_progress(Progress(stage="scan", done=count, total=0))
            self._present[root] = count - before
        self._catalog.see(batch)
        self._on_progress(Progress(stage="scan", done=count, total=count))

    def _sort(self, item: MediaItem) -> None:
        row = self._catalog.file(item.path)
        if (
            row is None
            or not row.same_file_as(item)
            or row.state == "unreadable"
            or (row.state == "failed" and self._retry_failed)
        ):
            self._todo.append(item)
        else:
            if row.caption != item.caption or row.root != str(item.root):
                self._catalog.set_caption(item)
            if row.error is not None:
                self._known_failures.append(FileFailure(path=row.path, reason=row.error))
            else:
                self._unchanged += 1

    def embed(self) -> None:
        """Decodes, embeds and stores what is to do."""
        if not self._todo:
            return
        self._on_progress(Progress(stage="load", done=0, total=0))
        self._parts.embedder()
        self._job = EmbedJob(self._parts, self._todo, on_progress=self._on_embed)
        self._job.run()

    def _on_embed(self, done: int, failed: int, segments: int) -> None:
        total = len(self._todo)
        self._on_progress(
            Progress(stage="embed", done=done, total=total, failed=failed, segments=segments)
        )

    def tidy(self, roots: Sequence[Path], *, prune: bool) -> None:
        """Removes what is gone, and lets payloads name the files that hold them now."""
        self._on_progress(Progress(stage="tidy", done=0, total=0))
        gone: set[str] = set()
        for root in roots:
            gone.update(self._gone_below(root, prune=prune))
        if prune:
            gone.update(path for path in self._catalog.paths() if not Path(path).exists())
        if gone:
            self._catalog.forget(sorted(gone))
            self._removed = len(gone)
        if orphans := self._catalog.orphans():
            store = self._parts.store()
            store.delete([id_ for content in orphans for id_ in self._catalog.record_ids(content)])
            store.flush()
            self._catalog.drop_contents(orphans)
        outdated = self._catalog.outdated()
        for start in range(0, len(outdated), DESCRIBED_AT_ONCE):
            _describe_again(self._parts, outdated[start : start + DESCRIBED_AT_ONCE])
        self._parts.words().sync(self._parts.store)

    def _gone_below(self, root: Path, *, prune: bool) -> list[str]:
        missing = self._catalog.unseen(root)
        if missing and not self._present[root] and not prune:
            # An empty folder is what an unplugged drive leaves behind.
            self._warnings.append(
                f"{root} is empty, {len(missing)} indexed files are kept; "
                "if they were deleted on purpose, run again with --prune"
            )
            return []
        unreadable = self._scan.unreadable
        return [
            path
            for path in missing
            if not any(
                folder == Path(path) or folder in Path(path).parents for folder in unreadable
            )
            # An unseen file that exists is hidden, linked, or listed by a manifest elsewhere.
            and not Path(path).exists()
        ]

    def report(self) -> IndexReport:
        """What was done so far."""
        job = self._job
        failures = [*self._scan.failures, *self._known_failures, *(job.failures if job else ())]
        in_files = len(self._known_failures) + (len(job.failed_paths) if job else 0)
        return IndexReport(
            files=sum(self._present.values()),
            indexed=job.indexed if job else 0,
            unchanged=self._unchanged,
            moved=job.moved if job else 0,
            removed=self._removed,
            failed=in_files,
            segments=job.segments if job else 0,
            seconds=round(time.monotonic() - self._started, 3),
            errors=tuple(sorted(failures, key=lambda failure: failure.path)),
            warnings=(*self._warnings, *(job.warnings if job else ())),
        )


def _describe_again(parts: Parts, outdated: Sequence[Outdated]) -> None:
    """Rewrites payloads after moves and new captions; the vectors are kept."""
    store = parts.store()
    renewed = [
        dataclasses.replace(record, payload=_renamed(record, item.file))
        for item in outdated
        for record in store.get(parts.catalog.record_ids(item.hash))
    ]
    if renewed:
        store.upsert(renewed)
        store.flush()
    files = ((item.hash, item.file) for item in outdated)
    parts.catalog.describe(
        [(content, description(file.path, file.root, file.caption)) for content, file in files]
    )


def _renamed(record: Record, file: FileRow) -> dict[str, str | int | float]:
    kind = record.payload["kind"]
    kept = {key: value for key, value in record.payload.items() if key != "text" or kind == "text"}
    named = file_payload(
        Path(file.path),
        Path(file.root),
        file.caption,
        kind=kind,  # type: ignore[arg-type]
        mtime_ns=file.mtime_ns,
    )
    return {**kept, **named}
