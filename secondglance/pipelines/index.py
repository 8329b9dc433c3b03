"""The ingestion job: scan, decode, embed, store, and put the catalog in order.

Order of writing, so that a kill at any moment loses nothing: ids to the catalog, vectors to the
store, files marked done. What no file holds any more is removed at the end.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secondglance.errors import InputError, StoppedError
from secondglance.ingest import described, imported, looks, moves
from secondglance.ingest.catalog import Catalog, FileRow, description
from secondglance.ingest.scan import Scan, check_paths, walk
from secondglance.pipelines.batches import batches
from secondglance.pipelines.build import Parts
from secondglance.pipelines.describe import DescribeJob
from secondglance.pipelines.embed import LocalEngine
from secondglance.pipelines.ray_engine import RayEngine, check_ray
from secondglance.pipelines.records import caption_text, file_payload
from secondglance.pipelines.removal import (
    MANY_SHARE,
    Confirm,
    RemovalRefusedError,
    agreed,
    find_gone,
)
from secondglance.pipelines.storing import Storing
from secondglance.rerank import stopping
from secondglance.sections import Engine
from secondglance.types import FileFailure, IndexReport, MediaItem, Record

DESCRIBED_AT_ONCE = 2000
"""Records whose payloads are rewritten with one write and one commit, or those of one file."""

SORTED_AT_ONCE = 1000
"""Files that the scan compares with the catalog in one go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is; `total` is 0 while the scan still counts."""

    stage: Literal["scan", "load", "embed", "tidy", "describe"]
    done: int
    total: int
    failed: int = 0
    segments: int = 0


class IndexInterruptedError(KeyboardInterrupt):
    """Ctrl-C: everything in `report` is stored, and the next run goes on from there."""

    def __init__(self, report: IndexReport) -> None:
        super().__init__("interrupted")
        self.report = report


class IndexStoppedError(StoppedError):
    """Told to stop: everything in `report` is stored, and the next run goes on from there."""

    def __init__(self, report: IndexReport) -> None:
        super().__init__("the run was stopped", remedy="run it again to go on from there")
        self.report = report


def index(
    parts: Parts,
    paths: Sequence[str | Path],
    *,
    prune: bool = False,
    confirm: Confirm | None = None,
    retry_failed: bool = False,
    postponed: Set[Path] = frozenset(),
    engine: Engine | None = None,
    address: str | None = None,
    items: Callable[[], Iterator[MediaItem]] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> IndexReport:
    """Brings a library up to date with folders and files.

    Another thread can end it, see `rerank.stopping`: what was embedded is stored then.

    Args:
        parts: Of the library.
        paths: Folders and files.
        prune: Also remove files outside `paths` that no longer exist, and those below a path that
            is missing or empty; other folders that are away keep theirs.
        confirm: Asked before a prune removes more than a tenth of the library's files:
            (files to remove, files in all); None refuses.
        retry_failed: Try files again that failed before and did not change.
        postponed: Files to leave as they are known, because they are still being written.
        engine: What decodes and embeds; None: `ingest.engine`.
        address: Of the Ray cluster; None: `ingest.ray_address`.
        items: Yields single files, instead of paths; nothing counts as gone for not being there.
        on_progress: Called often.

    Raises:
        InputError: There is no path, or one does not exist and holds no indexed files.
        RemovalRefusedError: All is done but for removing what is gone: it is too much.
        IndexInterruptedError: Ctrl-C; what was embedded is stored.
        IndexStoppedError: It was told to stop; what was embedded is stored.
        MissingExtraError: Ray is not installed.
        ClusterError: Ray cannot be started or reached, or was lost; what was embedded is stored.
    """
    engine = engine or parts.settings.ingest.engine
    address = address or parts.settings.ingest.ray_address
    if engine == "ray":
        check_ray(address)
    roots = check_paths(paths, is_known=parts.catalog.knows)
    if not roots and not prune and items is None:
        raise InputError("nothing to index", remedy="name at least one folder or file")

    def told(progress: Progress) -> None:
        stopping.check()
        on_progress(progress)

    run = _Run(parts, retry_failed=retry_failed, postponed=postponed, on_progress=told)
    try:
        try:
            run.scan(roots, items)
            run.embed(engine, address)
        except KeyboardInterrupt:
            raise IndexInterruptedError(run.report()) from None
        refusal = run.tidy(prune=prune, confirm=confirm)
        run.describe()
    except StoppedError:
        raise IndexStoppedError(run.report()) from None
    if refusal is not None:
        refusal.report = run.report()
        raise refusal
    return run.report()


class _Run:
    def __init__(
        self,
        parts: Parts,
        *,
        retry_failed: bool,
        postponed: Set[Path],
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._parts = parts
        self._catalog: Catalog = parts.catalog
        self._retry_failed = retry_failed
        self._postponed = postponed
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._scan_seconds = 0.0
        self._scan = Scan()
        self._scanned = 0
        self._stamps: dict[str, str] = {}
        self._restamped: dict[str, str] = {}
        self._todo: list[MediaItem] = []
        self._known_failures: list[FileFailure] = []
        self._job: Storing | None = None
        self._present: dict[Path, int] = {}
        self._sidecars: dict[str, tuple[Path, ...]] = {}
        self._describing: DescribeJob | None = None
        self._unchanged = 0
        self._removed = 0
        self._absent = 0
        self._warnings: list[str] = []

    def scan(
        self, roots: Sequence[Path], items: Callable[[], Iterator[MediaItem]] | None = None
    ) -> None:
        """Sorts the files that exist into unchanged, known to fail, and to do."""
        self._parts.words()  # notes from now on which files change
        self._catalog.start_scan()
        self._stamps = described.stamps(self._catalog)
        indexed = [Path(folder) for folder in self._catalog.roots()]
        for root in roots:
            before = self._scanned
            # What lies in a folder that was indexed keeps its place there.
            above = [folder for folder in indexed if folder in root.parents]
            within = max(above, key=lambda folder: len(folder.parts), default=None)
            found = walk(root, exclude=self._parts.folder, scan=self._scan, within=within)
            for batch in batches(found if root.exists() else (), SORTED_AT_ONCE):
                self._take(batch, within=within)
            self._present[root] = self._scanned - before
        for batch in batches(items() if items is not None else (), SORTED_AT_ONCE):
            self._take(batch, within=None)
        described.set_stamps(self._catalog, self._restamped)
        self._scan_seconds = time.monotonic() - self._started
        self._on_progress(Progress(stage="scan", done=self._scanned, total=self._scanned))

    def _take(self, batch: Sequence[MediaItem], *, within: Path | None) -> None:
        """Sorts some of the files that the scan came across."""
        self._scanned += len(batch)
        paths = [item.path for item in batch]
        self._catalog.see(paths)
        known = self._catalog.files_among(paths)
        given = imported.captions_among(self._catalog, paths)
        for item in batch:
            if item.path in self._postponed:
                continue
            row = known.get(str(item.path))
            if within and row and not item.caption:
                # A manifest further up, which was not read now, may have said it.
                item = dataclasses.replace(item, caption=row.caption)
            elif not item.caption and str(item.path) in given:
                item = dataclasses.replace(item, caption=given[str(item.path)])
            self._sort(item, row)
            if item.sidecars:
                self._sidecars[str(item.path)] = item.sidecars
            if self._stamps.get(str(item.path), "") != item.sidecar_stamp:
                self._restamped[str(item.path)] = item.sidecar_stamp
        self._on_progress(Progress(stage="scan", done=self._scanned, total=0))

    def _sort(self, item: MediaItem, row: FileRow | None) -> None:
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

    def embed(self, engine: Engine, address: str | None) -> None:
        """Decodes, embeds and stores what is to do."""
        if not self._todo:
            return
        self._on_progress(Progress(stage="load", done=0, total=0))
        self._job = Storing(self._parts, on_progress=self._on_embed)
        if engine == "ray":
            RayEngine(self._parts, self._todo, self._job, address=address).run()
        else:
            LocalEngine(self._parts, self._todo, self._job).run()

    def _on_embed(self, done: int, failed: int, segments: int) -> None:
        total = len(self._todo)
        self._on_progress(
            Progress(stage="embed", done=done, total=total, failed=failed, segments=segments)
        )

    def tidy(self, *, prune: bool, confirm: Confirm | None) -> RemovalRefusedError | None:
        """Removes what is gone, and lets payloads name the files that hold them now.

        Returns:
            What to raise in the end, if nobody agreed to remove so much.
        """
        self._on_progress(Progress(stage="tidy", done=0, total=0))
        gone = find_gone(
            self._catalog,
            self._present,
            unreadable=self._scan.unreadable,
            sidecars=self._scan.sidecars,
            prune=prune,
        )
        self._warnings += gone.warnings
        self._absent = gone.absent
        refusal = self._remove(gone.paths, prune=prune, confirm=confirm)
        if orphans := self._catalog.orphans():
            store = self._parts.store()
            store.delete([id_ for content in orphans for id_ in self._catalog.record_ids(content)])
            store.flush()
            looks.drop(self._catalog, orphans)
            self._catalog.drop_contents(orphans)
        _describe_again(self._parts, moves.outdated(self._catalog))
        return refusal

    def _remove(
        self, paths: Set[str], *, prune: bool, confirm: Confirm | None
    ) -> RemovalRefusedError | None:
        """Forgets deleted files, unless there are too many for anyone not to ask."""
        total = self._catalog.file_count()
        try:
            if agreed(len(paths), total, prune=prune, confirm=confirm):
                self._catalog.forget(sorted(paths))
                self._removed = len(paths)
                return None
        except RemovalRefusedError as error:
            self._absent += len(paths)
            return error
        self._absent += len(paths)
        self._warnings.append(
            f"{len(paths)} of {total} indexed files are gone, more than {MANY_SHARE:.0%}; they are "
            "kept; if they were deleted on purpose, run again with --prune"
        )
        return None

    def describe(self) -> None:
        """Reads metadata again where sidecars changed, and brings the word index up to date."""
        self._describing = DescribeJob(
            self._parts,
            sidecars=self._sidecars,
            on_progress=lambda done, total: self._on_progress(
                Progress(stage="describe", done=done, total=total)
            ),
        )
        self._describing.run()
        self._parts.words().sync(self._parts.store)

    def report(self) -> IndexReport:
        """What was done so far."""
        job = self._job
        describing = self._describing
        failures = [
            *self._scan.failures,
            *self._known_failures,
            *(job.failures if job else ()),
            *(describing.failures if describing else ()),
        ]
        in_files = len(self._known_failures) + (len(job.failed_paths) if job else 0)
        return IndexReport(
            files=self._scanned,
            indexed=job.indexed if job else 0,
            unchanged=self._unchanged,
            moved=job.moved if job else 0,
            removed=self._removed,
            absent=self._absent,
            failed=in_files,
            segments=job.segments if job else 0,
            scan_seconds=round(self._scan_seconds, 3),
            described=describing.described if describing else 0,
            seconds=round(time.monotonic() - self._started, 3),
            errors=tuple(sorted(failures, key=lambda failure: failure.path)),
            warnings=(*self._warnings, *(job.warnings if job else ())),
        )


def _describe_again(parts: Parts, outdated: Sequence[moves.Outdated]) -> None:
    """Rewrites payloads after moves and new captions; the vectors are kept."""
    files: dict[str, FileRow] = {}  # by record
    said: list[tuple[str, str]] = []
    for item in outdated:
        file = item.file
        files |= dict.fromkeys(parts.catalog.record_ids(item.hash), file)
        said.append((item.hash, description(file.path, file.root, file.caption)))
        if len(files) >= DESCRIBED_AT_ONCE or item is outdated[-1]:
            store = parts.store()
            store.upsert(
                [
                    dataclasses.replace(record, payload=_renamed(record, files[record.id]))
                    for record in store.get(list(files))
                ]
            )
            store.flush()
            moves.describe(parts.catalog, said)
            files, said = {}, []


def _renamed(record: Record, file: FileRow) -> dict[str, str | int | float]:
    kind = record.payload["kind"]
    kept = {key: value for key, value in record.payload.items() if key != "text" or kind == "text"}
    named = file_payload(
        Path(file.path),
        Path(file.root),
        caption_text(file.caption, record.payload),
        kind=kind,  # type: ignore[arg-type]
        mtime_ns=file.mtime_ns,
    )
    return {**kept, **named}
