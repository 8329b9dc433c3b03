"""The bookkeeping of the ingestion job: what becomes of files, whichever engine reads them.

An engine hashes files, decodes and embeds them; here are copies and moves, neighbours that show the
same, the catalog and the store, failures, and progress. So both engines leave the same library.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secondglance.ingest import described, looks
from secondglance.ingest.catalog import Announcement, description
from secondglance.ingest.decode import Decoded
from secondglance.ingest.presence import Roots
from secondglance.pipelines.alike import merge_alike
from secondglance.pipelines.build import Parts
from secondglance.pipelines.records import record_id
from secondglance.pipelines.work import Work, record_of
from secondglance.types import FileFailure, MediaItem, Record, Segment

if TYPE_CHECKING:
    from secondglance.ingest.embedder import ClipEmbedder, Vectors
    from secondglance.types import Vector

Hashed: TypeAlias = "Sequence[tuple[MediaItem, str | OSError]]"
"""Files with the hashes of their contents, or why they cannot be read."""

WRITE_EVERY_S = 2.0
WRITE_RECORDS = 512


class Storing:
    """Stores what an engine embeds and marks files in the catalog.

    Args:
        parts: Of the library.
        on_progress: Called with (files done, files failed, segments stored).
    """

    def __init__(self, parts: Parts, *, on_progress: Callable[[int, int, int], None]) -> None:
        self.indexed = self.moved = self.segments = 0
        self.failures: list[FileFailure] = []
        self.failed_paths: set[str] = set()
        self.warnings: list[str] = []
        self._catalog = parts.catalog
        self._parts = parts
        self._on_progress = on_progress
        self._works: dict[str, Work] = {}
        self._records: list[Record] = []
        self._complete: list[Work] = []
        self._touched: list[Work] = []
        self._damaged: list[Work] = []
        self._linked: list[tuple[MediaItem, str, str]] = []
        self._moved_from: set[str] = set()
        self._roots = Roots()
        self._written_at = time.monotonic()

    @property
    def _embedder(self) -> ClipEmbedder:
        # Loaded when the first content turns out to be new: moves and copies need no model.
        return self._parts.embedder()

    def new_works(self, portion: Hashed) -> list[Work]:
        """The contents that are neither stored nor under way; copies and moves are linked."""
        hashes = [content for _, content in portion if isinstance(content, str)]
        stored = self._catalog.content_kinds(hashes)
        works: list[Work] = []
        for item, content in portion:
            if isinstance(content, OSError):
                reason = f"cannot be read: {content.strerror or content}"
                self.fail(item, reason, unreadable=True)
            elif (under_way := self._works.get(content)) is not None:
                under_way.items.append(item)
            elif content in stored:
                self._link(item, content, stored[content])
            else:
                self._works[content] = Work(items=[item], content=content)
                works.append(self._works[content])
        if self._linked and (len(self._linked) >= WRITE_RECORDS or self._is_due()):
            self.write()
        if len(works) < len(portion):
            self.report()
        return works

    def _link(self, item: MediaItem, content: str, kind: str) -> None:
        """A file whose content is stored: a copy, or one that was moved."""
        moved_from = next(
            (
                row.path
                for row in self._catalog.files_with(content)
                if row.path != str(item.path)
                and row.path not in self._moved_from
                # Only where the folder is there: an unplugged drive has moved nothing.
                and not os.path.lexists(row.path)
                and self._roots.absence(row.root) is None
            ),
            None,
        )
        self._linked.append((item, content, kind))
        if moved_from is None:
            self.indexed += 1
        else:
            self._moved_from.add(moved_from)
            self.moved += 1

    def _is_due(self) -> bool:
        return time.monotonic() - self._written_at > WRITE_EVERY_S

    def write_if_due(self) -> None:
        """Writes from time to time."""
        if self._is_due() or len(self._records) >= WRITE_RECORDS:
            self.write()

    def open(self, work: Work, decoded: Decoded) -> None:
        """Takes in what a file turned out to be, all of its shots being found."""
        work.kind = decoded.kind
        work.segments = decoded.segments
        work.metadata = decoded.metadata
        work.look = decoded.look
        work.planned = work.left = len(decoded.segments)
        for row, problem in decoded.problems:
            self.failures.append(FileFailure(path=f"{work.item.path}:{row}", reason=problem))
        for path, problem in decoded.sidecar_problems:
            self.failures.append(FileFailure(path=path, reason=problem))
        if not work.segments:
            # A manifest that only captions other files is done as soon as it is read.
            self._touched.append(work)
            self._close_work(work)

    def lose(self, work: Work, count: int, *, reason: str = "") -> None:
        """Some segments have no vector, as damaged frames; the others are still worth having."""
        work.reason = reason or work.reason
        if count:
            work.damaged += count
            work.left -= count
            if not work.left:
                self._close_work(work)

    def _close_work(self, work: Work) -> None:
        if work.vectors:
            self._merge(work)
        if work.segments and not work.stored:
            self.abandon(work, work.reason or "damaged video: no frame could be decoded")
            return
        if work.damaged:
            self._damaged.append(work)
            self.warnings.append(
                f"{work.item.path}: {work.damaged} of {work.planned} stretches are damaged "
                "and were left out"
            )
        self._complete.append(work)

    def add(self, batch: Sequence[tuple[Work, Segment]], vectors: Vectors) -> None:
        """Takes in the vectors of segments, shape (segments, dim), of contents that are open."""
        usable = np.isclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        for (work, segment), vector, good in zip(batch, vectors, usable, strict=True):
            assert work.kind is not None
            if not good:
                self.lose(work, 1, reason="the model gave no usable vector for it")
                continue
            if work.kind == "video":
                work.vectors[segment.position] = vector
            else:
                self._record(work, segment, vector)
            work.left -= 1
            if not work.left:
                self._close_work(work)

    def _merge(self, work: Work) -> None:
        """A video is stored once all of it is embedded: only then its segments are known."""
        ingest = self._parts.settings.ingest
        longest_s = ingest.max_segment_s if ingest.fps is None else 1 / ingest.fps
        merged = merge_alike(
            work.segments, work.vectors, alike=ingest.alike, max_segment_s=longest_s
        )
        work.segments = tuple(segment for segment, _ in merged)
        work.vectors = {}
        for segment, vector in merged:
            self._record(work, segment, vector)

    def _record(self, work: Work, segment: Segment, vector: Vector) -> None:
        record = record_of(work, segment, vector, fingerprint=self._embedder.fingerprint)
        self._records.append(record)
        if not work.stored:
            self._touched.append(work)
        work.stored.append(record.id)

    def write(self) -> None:
        """Ids to the catalog, vectors to the store, then files marked done."""
        # Moved files and copies: their vectors are stored already.
        self._catalog.finish(self._linked, gone=self._moved_from)
        self._linked, self._moved_from = [], set()
        self._catalog.announce([self._announcement(work) for work in self._touched])
        looks.note(
            self._catalog, [(w.content, w.look) for w in self._touched if w.look is not None]
        )
        if self._records:
            store = self._parts.store()
            store.upsert(self._records)
            store.flush()
            self.segments += len(self._records)
        self._drop_stale([work for work in self._complete if work.kind == "video"])
        for work in self._damaged:
            self._catalog.keep_records(work.content, work.stored)
        done = [(i, w.content, w.kind) for w in self._complete for i in w.items if w.kind]
        self._catalog.finish(done)
        described.note(self._catalog, [(w.content, w.item.sidecar_stamp) for w in self._complete])
        self._parts.words().sync(self._parts.store)
        self.indexed += len(done)
        for work in self._complete:
            del self._works[work.content]
        self._records, self._touched, self._complete, self._damaged = [], [], [], []
        self._written_at = time.monotonic()
        self.report()

    def _drop_stale(self, videos: Sequence[Work]) -> None:
        """What a run stored that was killed, and that cut the video in another way."""
        for work in videos:
            stale = set(self._catalog.record_ids(work.content)) - set(work.stored)
            if stale:
                store = self._parts.store()
                store.delete(sorted(stale))
                store.flush()
                self._catalog.keep_records(work.content, work.stored)

    def _announcement(self, work: Work) -> Announcement:
        fingerprint = self._embedder.fingerprint
        item = work.item
        assert work.kind is not None
        return Announcement(
            content=work.content,
            kind=work.kind,
            ids=tuple(record_id(work.content, s, fingerprint) for s in work.segments),
            described_by=description(item.path, item.root, item.caption),
        )

    def abandon(self, work: Work, reason: str) -> None:
        """A content that cannot be used: all of its files fail."""
        for item in work.items:
            self.fail(item, reason, unreadable=reason.startswith("cannot be read"))
        self._works.pop(work.content, None)

    def fail(self, item: MediaItem, reason: str, *, unreadable: bool) -> None:
        """A file that cannot be used; an unreadable one is tried again by the next run."""
        self._catalog.fail(item, reason, state="unreadable" if unreadable else "failed")
        self.failures.append(FileFailure(path=str(item.path), reason=reason))
        self.failed_paths.add(str(item.path))
        self.report()

    def report(self) -> None:
        """Tells how far the run is."""
        embedded = sum(len(work.items) for work in self._complete)
        done = self.indexed + self.moved + len(self.failed_paths) + embedded
        self._on_progress(done, len(self.failed_paths), self.segments)
