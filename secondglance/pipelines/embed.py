"""The local engine of the ingestion job: worker processes decode while this process embeds."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import MediaError
from secondglance.ingest.decode import Decoded
from secondglance.pipelines.build import Parts
from secondglance.pipelines.decode_calls import FILES_PER_CALL, DecodeCalls, Opened
from secondglance.pipelines.records import content_hash
from secondglance.pipelines.storing import Hashed, Storing
from secondglance.pipelines.work import Work
from secondglance.types import MediaItem, Segment

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.ingest.embedder import ClipEmbedder, Vectors

    Picture = npt.NDArray[np.uint8]

AHEAD = 32
"""Pictures that are decoded ahead before it is known how many the embedder takes at once."""

HASH_THREADS = 2


def portions(items: Sequence[MediaItem], at_once: int) -> Iterator[list[MediaItem]]:
    """Pictures several at a time; everything else by itself."""
    pictures: list[MediaItem] = []
    for item in items:
        if item.kind != "image":
            yield [item]
            continue
        pictures.append(item)
        if len(pictures) >= at_once:
            yield pictures
            pictures = []
    if pictures:
        yield pictures


class LocalEngine:
    """Embeds files on this machine.

    Args:
        parts: Of the library.
        items: New and changed files.
        storing: Takes in what comes of them.
    """

    def __init__(self, parts: Parts, items: Sequence[MediaItem], storing: Storing) -> None:
        self._parts = parts
        self._items = items
        self._storing = storing
        self._pictures: list[tuple[Work, Segment, Picture]] = []
        self._texts: list[tuple[Work, Segment]] = []
        self._begun: tuple[list[tuple[Work, Segment]], Callable[[], Vectors]] | None = None
        self._at_once = parts.settings.recall.batch_size or AHEAD

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
                # So many at a time that each worker gets some.
                at_once = min(FILES_PER_CALL, 1 + len(self._items) // (4 * pool.workers))
                hashed = self._hashed(threads, portions(self._items, at_once))
                while True:
                    self._feed(calls, hashed, window=2 * pool.workers)
                    if not calls.in_flight:
                        break
                    self._take(calls)
                    self._embed(last=False)
                self._embed(last=True)
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
                self._storing.write()

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
            if works := self._storing.new_works(portion):
                calls.open(works)

    def _take(self, calls: DecodeCalls) -> None:
        """Waits for answers of a worker and queues their pictures and words."""
        for got in calls.take():
            work = got.work
            if isinstance(got, Opened):
                if isinstance(got.answer, MediaError):
                    self._storing.abandon(work, str(got.answer))
                else:
                    self._open(calls, work, got.answer)
            elif isinstance(got.answer, MediaError):
                self._storing.lose(work, len(got.positions), reason=str(got.answer))
            else:
                for position, picture in zip(got.positions, got.answer, strict=True):
                    if picture is not None:
                        self._pictures.append((work, work.segments[position], picture))
                self._storing.lose(work, sum(picture is None for picture in got.answer))

    def _open(self, calls: DecodeCalls, work: Work, decoded: Decoded) -> None:
        """Takes in what a file turned out to be."""
        if decoded.unfinished is not None:
            calls.continue_scan(work, decoded.unfinished)
            return
        self._storing.open(work, decoded)
        if decoded.kind == "video":
            calls.read_frames(work, decoded.frames)
        elif decoded.pixels is not None:
            self._pictures += [
                (work, segment, picture)
                for segment, picture in zip(decoded.segments, decoded.pixels, strict=True)
            ]
        else:
            self._texts += [(work, segment) for segment in decoded.segments]

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
                self._storing.add(words, self._embedder.embed_texts(texts))
        if last:
            self._finish_pictures()
        self._storing.report()
        self._storing.write_if_due()

    def _finish_pictures(self) -> None:
        if self._begun is not None:
            batch, vectors = self._begun
            self._begun = None
            self._storing.add(batch, vectors())
