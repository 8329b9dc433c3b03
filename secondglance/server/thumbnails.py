"""Small pictures of records, made once and kept in memory."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from pathlib import Path

from secondglance.server import intake
from secondglance.server.decoding import Decoding
from secondglance.server.problems import ApiError

SIDES = (64, 128, 192, 256, 384, 512, 768, 1024)
"""Others are rounded up to these, so that nobody fills the cache with one picture."""
MAX_BYTES = 64 * 1024 * 1024
MAX_WAITING = 256

Key = tuple[str, int, int, float | None, int]
"""Path, size, time of change, time of the frame, side."""


def side_of(size: int) -> int:
    """The side in pixels that is made for a size."""
    return next((side for side in SIDES if side >= size), SIDES[-1])


class Thumbnails:
    """Makes small pictures, each once.

    Args:
        decoding: Where the files are read.
        max_pixels: Of a picture or frame.
        max_bytes: Of the cache; those used longest ago go first.
        max_waiting: Thumbnails that wait to be made, at most.
    """

    def __init__(
        self,
        decoding: Decoding,
        *,
        max_pixels: int,
        max_bytes: int = MAX_BYTES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._decoding = decoding
        self._max_pixels = max_pixels
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, bytes] = OrderedDict()
        self._coming: dict[Key, asyncio.Task[bytes]] = {}
        self.held_bytes = 0
        """Of the cache."""

    def known(self, key: Key) -> bytes | None:
        """A small picture from the cache."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    async def make(self, key: Key) -> bytes:
        """A small picture, as JPEG.

        Raises:
            ApiError: 429 if too many wait.
            MediaError: The file cannot be read.
        """
        found = self.known(key)
        if found is not None:
            return found
        task = self._coming.get(key)
        if task is None:
            if len(self._coming) >= self._max_waiting:
                raise ApiError(
                    429,
                    "too-many-requests",
                    f"{len(self._coming)} thumbnails wait to be made",
                    headers={"Retry-After": "2"},
                )
            task = asyncio.create_task(self._made(key))
            self._coming[key] = task
            task.add_done_callback(lambda done: self._end(key, done))
        # One client that goes away does not take it from the others.
        return await asyncio.shield(task)

    def _end(self, key: Key, task: asyncio.Task[bytes]) -> None:
        self._coming.pop(key, None)
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits any more

    async def _made(self, key: Key) -> bytes:
        path, _, _, at_s, side = key
        small = await self._decoding.turn(
            intake.thumbnail, Path(path), at_s, side, self._max_pixels
        )
        with self._lock:
            self._kept[key] = small
            self.held_bytes += len(small)
            while self.held_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self.held_bytes -= len(oldest)
        return small
