"""The middle of the ingestion job: worker processes decode while this process embeds."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import MediaError
from secondglance.ingest import described, looks
from secondglance.ingest.catalog import Announcement, description
from secondglance.ingest.decode import Decoded
from secondglance.ingest.presence import Roots
from secondglance.pipelines.alike import merge_alike
from secondglance.pipelines.build import Parts
from secondglance.pipelines.decode_calls import FILES_PER_CALL, DecodeCalls, Opened
from secondglance.pipelines.records import (
    content_hash,
    record_id,
)
from secondglance.pipelines.work import Work, record_of
from secondglance.types import FileFailure, MediaItem, Record, Segment

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.ingest.embedder import ClipEmbedder, Vectors
    from secondglance.types import Vector

    Picture = npt.NDArray[np.uint8]
    Hashed = list[tuple[MediaItem, str | OSError]]

AHEAD = 32
"""Pictures that are decoded ahead before it is known how many the embedder takes at once."""

WRITE_EVERY_S = 2.0
WRITE_RECORDS = 512
HASH_THREADS = 2


class EmbedJob:
    """Embeds files into the store and marks them in the catalog.

    Args:
        parts: Of the library.
        items: New and changed files.
        on_progress: Called with (files done, files failed, segments stored).
    """

    def __init__(
        self,
        parts: Parts,
        items: Sequence[MediaItem],
        *,
        on_progress: Callable[[int, int, int], None],
    ) -> None:
        self.indexed = self.moved = self.segments = 0
        self.failures: list[FileFailure] = []
        self.failed_paths: set[str] = set()
        self.warnings: list[str] = []
        self._catalog = parts.catalog
        self._parts = parts
        self._items = items
        self._on_progress = on_progress
        self._works: dict[str, Work] = {}
        self._pictures: list[tuple[Work, Segment, Picture]] = []
        self._texts: list[tuple[Work, Segment]] = []
        self._begun: tuple[list[tuple[Work, Segment]], Callable[[], Vectors]] | None = None
        self._at_once = parts.settings.recall.batch_size or AHEAD
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

    def run(self) -> None:
        """Does the job. On Ctrl-C, stores what is embedded, then lets the interrupt go on."""
        pool = self._parts.decode_pool()
        calls = DecodeCalls(pool, self._parts.limits, lambda: self._embedder.preprocessing)
        with pool, ThreadPoolExecutor(HASH_THREADS) as threads:
            try:
                hashed = self._hashed(threads, self._portions(pool.workers))
                while True:
                    self._feed(calls, hashed, window=2 * pool.workers)
                    if not calls.in_flight:
                        break
                    self._take(calls)
                    self._embed(last=False)
                self._embed(last=True)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                self._write()

    def _portions(self, workers: int) -> Iterator[list[MediaItem]]:
        """Pictures several at a time, so that each worker gets some; everything else by itself."""
        at_once = min(FILES_PER_CALL, 1 + len(self._items) // (4 * workers))
        pictures: list[MediaItem] = []
        for item in self._items:
            if item.kind != "image":
                yield [item]
                continue
            pictures.append(item)
            if len(pictures) >= at_once:
                yield pictures
                pictures = []
        if pictures:
            yield pictures

    @staticmethod
    def _hashed(
        threads: ThreadPoolExecutor, portions: Iterator[list[MediaItem]]
    ) -> Iterator[Hashed]:
        """The items with the hashes of their contents, some ahead; or why they cannot be read."""

        def hash_of(item: MediaItem) -> str | OSError:
            try:
                return content_hash(item.path, manifest=item.kind == "manifest")
            except OSError as error:
                return error

        def hash_all(items: list[MediaItem]) -> Hashed:
            return [(item, hash_of(item)) for item in items]

        ahead: deque[Future[Hashed]] = deque()
        for portion in itertools.islice(portions, 4 * HASH_THREADS):
            ahead.append(threads.submit(hash_all, portion))
        while ahead:
            future = ahead.popleft()
            for portion in itertools.islice(portions, 1):
                ahead.append(threads.submit(hash_all, portion))
            yield future.result()

    def _feed(self, calls: DecodeCalls, hashed: Iterator[Hashed], *, window: int) -> None:
        """Keeps the workers busy; frames of open videos go before new files."""
        # Enough for the time of one batch of the embedder, and no more: what is decoded and waits
        # takes memory.
        while calls.in_flight < window + self._at_once:
            if calls.start_queued():
                continue
            portion = next(hashed, None)
            if portion is None:
                return
            if works := self._new_works(portion):
                calls.open(works)

    def _new_works(self, portion: Hashed) -> list[Work]:
        """The contents that are neither stored nor under way."""
        hashes = [content for _, content in portion if isinstance(content, str)]
        stored = self._catalog.content_kinds(hashes)
        works: list[Work] = []
        for item, content in portion:
            if isinstance(content, OSError):
                reason = f"cannot be read: {content.strerror or content}"
                self._fail(item, reason, unreadable=True)
            elif (under_way := self._works.get(content)) is not None:
                under_way.items.append(item)
            elif content in stored:
                self._link(item, content, stored[content])
            else:
                self._works[content] = Work(items=[item], content=content)
                works.append(self._works[content])
        if self._linked and (len(self._linked) >= WRITE_RECORDS or self._is_due()):
            self._write()
        if len(works) < len(portion):
            self._report()
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

    def _take(self, calls: DecodeCalls) -> None:
        """Waits for answers of a worker and queues their pictures and words."""
        for got in calls.take():
            work = got.work
            if isinstance(got, Opened):
                if isinstance(got.answer, MediaError):
                    self._abandon(work, str(got.answer))
                else:
                    self._open(calls, work, got.answer)
            elif isinstance(got.answer, MediaError):
                work.reason = str(got.answer)
                self._lose(work, len(got.positions))
            else:
                for position, picture in zip(got.positions, got.answer, strict=True):
                    if picture is not None:
                        self._pictures.append((work, work.segments[position], picture))
                self._lose(work, sum(picture is None for picture in got.answer))

    def _open(self, calls: DecodeCalls, work: Work, decoded: Decoded) -> None:
        """Takes in what a file turned out to be."""
        work.kind = decoded.kind
        if decoded.unfinished is not None:
            calls.continue_scan(work, decoded.unfinished)
            return
        work.segments = decoded.segments
        work.metadata = decoded.metadata
        work.look = decoded.look
        work.planned = work.left = len(decoded.segments)
        for row, problem in decoded.problems:
            self.failures.append(FileFailure(path=f"{work.item.path}:{row}", reason=problem))
        for path, problem in decoded.sidecar_problems:
            self.failures.append(FileFailure(path=path, reason=problem))
        if decoded.kind == "video":
            calls.read_frames(work, decoded.frames)
        elif decoded.pixels is not None:
            self._pictures += [
                (work, segment, picture)
                for segment, picture in zip(decoded.segments, decoded.pixels, strict=True)
            ]
        else:
            self._texts += [(work, segment) for segment in decoded.segments]
        if not work.segments:
            # A manifest that only captions other files is done as soon as it is read.
            self._touched.append(work)
            self._close_work(work)

    def _lose(self, work: Work, count: int) -> None:
        """Some frames of a video are damaged; the others are still worth having."""
        if count:
            work.damaged += count
            work.left -= count
            if not work.left:
                self._close_work(work)

    def _close_work(self, work: Work) -> None:
        if work.vectors:
            self._merge(work)
        if work.segments and not work.stored:
            self._abandon(work, work.reason or "damaged video: no frame could be decoded")
            return
        if work.damaged:
            self._damaged.append(work)
            self.warnings.append(
                f"{work.item.path}: {work.damaged} of {work.planned} stretches are damaged "
                "and were left out"
            )
        self._complete.append(work)

    def _embed(self, *, last: bool) -> None:
        """Embeds what has come together; writes from time to time."""
        if self._pictures or self._texts:
            size = self._at_once = self._embedder.batch_size
            while len(self._pictures) >= (1 if last else size):
                batch, self._pictures = self._pictures[:size], self._pictures[size:]
                pixels = np.stack([picture for _, _, picture in batch])
                vectors = self._embedder.begin_pixels(pixels)
                self._finish_pictures()  # of the batch before, while a GPU works on this one
                self._begun = [(work, segment) for work, segment, _ in batch], vectors
            while len(self._texts) >= (1 if last else size):
                words, self._texts = self._texts[:size], self._texts[size:]
                texts = [segment.text for _, segment in words]
                self._add(words, self._embedder.embed_texts(texts))
        if last:
            self._finish_pictures()
        self._report()
        if self._is_due() or len(self._records) >= WRITE_RECORDS:
            self._write()

    def _finish_pictures(self) -> None:
        if self._begun is not None:
            batch, vectors = self._begun
            self._begun = None
            self._add(batch, vectors())

    def _add(self, batch: Sequence[tuple[Work, Segment]], vectors: Vectors) -> None:
        usable = np.isclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        for (work, segment), vector, good in zip(batch, vectors, usable, strict=True):
            assert work.kind is not None
            if not good:
                work.reason = "the model gave no usable vector for it"
                self._lose(work, 1)
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

    def _write(self) -> None:
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
        self._report()

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

    def _abandon(self, work: Work, reason: str) -> None:
        for item in work.items:
            self._fail(item, reason, unreadable=reason.startswith("cannot be read"))
        self._works.pop(work.content, None)

    def _fail(self, item: MediaItem, reason: str, *, unreadable: bool) -> None:
        self._catalog.fail(item, reason, state="unreadable" if unreadable else "failed")
        self.failures.append(FileFailure(path=str(item.path), reason=reason))
        self.failed_paths.add(str(item.path))
        self._report()

    def _report(self) -> None:
        embedded = sum(len(work.items) for work in self._complete)
        done = self.indexed + self.moved + len(self.failed_paths) + embedded
        self._on_progress(done, len(self.failed_paths), self.segments)
