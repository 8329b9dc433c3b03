"""Calls of the decode workers that are under way for an ingestion job, and their answers."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from secondglance.errors import MediaError
from secondglance.ingest.decode import Decoded, Limits, decode_all, decode_frames, go_on
from secondglance.ingest.images import Preprocessing
from secondglance.ingest.shots import Scan
from secondglance.ingest.video import FrameAt
from secondglance.ingest.workers import DecodePool
from secondglance.pipelines.work import Work
from secondglance.rerank import stopping

if TYPE_CHECKING:
    import numpy.typing as npt

FRAMES_PER_CALL = 16
"""Frames of a video that one worker call reads: bounds its time and what it sends back."""
FILES_PER_CALL = 8


@dataclass(frozen=True, slots=True)
class Opened:
    """What a file turned out to be, or why it cannot be used."""

    work: Work
    answer: Decoded | MediaError


@dataclass(frozen=True, slots=True)
class FramesRead:
    """Frames of a video, None where damaged; or why none can be read."""

    work: Work
    positions: tuple[int, ...]
    answer: Sequence[npt.NDArray[Any] | None] | MediaError


@dataclass(frozen=True, slots=True)
class _Call:
    works: Sequence[Work]
    positions: tuple[int, ...]  # of frames; of files, none
    future: Future[Any]


class DecodeCalls:
    """Gives files to decode workers and hands out what they were.

    Args:
        pool: The workers.
        limits: For them.
        preprocessing: Gives the embedder's wishes; asked once there is something to decode.
    """

    def __init__(
        self, pool: DecodePool, limits: Limits, preprocessing: Callable[[], Preprocessing]
    ) -> None:
        self.in_flight = 0
        """Files and portions of videos that workers have or will get."""
        self._pool = pool
        self._limits = limits
        self._preprocessing = preprocessing
        self._answers: queue.SimpleQueue[_Call] = queue.SimpleQueue()
        self._videos: deque[Callable[[], None]] = deque()

    def open(self, works: Sequence[Work]) -> None:
        """Lets a worker read what these contents are."""
        files = [(work.item.path, work.item.kind, work.item.sidecars) for work in works]
        future = self._pool.submit(decode_all, files, self._preprocessing(), self._limits)
        self._expect(works, (), future)

    def continue_scan(self, work: Work, scan: Scan) -> None:
        """Queues the search for the rest of a video's shots."""
        self._videos.append(partial(self._continue, work, scan))

    def _continue(self, work: Work, scan: Scan) -> None:
        item = work.item
        future = self._pool.submit(_go_on, item.path, scan, self._limits, item.sidecars)
        self._expect([work], (), future)

    def read_frames(self, work: Work, frames: Sequence[FrameAt]) -> None:
        """Queues the reading of a video's frames, some at a time."""
        for first in range(0, len(frames), FRAMES_PER_CALL):
            some = frames[first : first + FRAMES_PER_CALL]
            self._videos.append(partial(self._read, work, first, some))

    def _read(self, work: Work, first: int, frames: Sequence[FrameAt]) -> None:
        positions = tuple(range(first, first + len(frames)))
        future = self._pool.submit(
            decode_frames, work.item.path, frames, self._preprocessing(), self._limits
        )
        self._expect([work], positions, future)

    def start_queued(self) -> bool:
        """Starts one queued call of an open video; False if there is none."""
        if self._videos:
            self._videos.popleft()()
            return True
        return False

    def _expect(
        self, works: Sequence[Work], positions: tuple[int, ...], future: Future[Any]
    ) -> None:
        self.in_flight += len(works)
        future.add_done_callback(lambda done: self._answers.put(_Call(works, positions, done)))

    def take(self) -> Sequence[Opened | FramesRead]:
        """Waits for a call and gives its answers; none if its files have to be tried one by one.

        Raises:
            StoppedError: The run was told to stop; see `rerank.stopping`.
        """
        call = self._next()
        self.in_flight -= len(call.works)
        try:
            answers = self._pool.result(call.future)
        except MediaError as error:
            if call.positions:
                return [FramesRead(call.works[0], call.positions, error)]
            if len(call.works) > 1:
                # One of them took the worker, or all the time there was. Which one?
                for work in call.works:
                    self.open([work])
                return []
            answers = [error]
        if call.positions:
            return [FramesRead(call.works[0], call.positions, answers)]
        return [Opened(*pair) for pair in zip(call.works, answers, strict=True)]

    def _next(self) -> _Call:
        while True:
            stopping.check()
            try:
                # A worker may take minutes for one video: longer than whoever stops the run waits.
                wait_s = None if stopping.current() is None else stopping.LOOK_EVERY_S
                return self._answers.get(timeout=wait_s)
            except queue.Empty:
                continue


def _go_on(*arguments: Any) -> list[Decoded]:
    return [go_on(*arguments)]
