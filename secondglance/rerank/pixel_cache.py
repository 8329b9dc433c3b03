"""Media that was read and resized before, in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from secondglance.rerank.digests import identify
from secondglance.rerank.limits import Limits
from secondglance.rerank.preprocess import Side, prepare
from secondglance.types import Content

Key: TypeAlias = tuple[object, ...]

ENTRY_BYTES = 4096
"""Counted for an entry besides its pixels."""


class PixelCache:
    """Prepared sides by the state of their files, least recently used ones dropped first.

    Safe to use from several threads; two that ask for the same content at once prepare it once.
    The pixels are shared between callers, who must not write to them.

    Args:
        max_bytes: Memory that is held, at most; 0 holds nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sides: OrderedDict[Key, Side] = OrderedDict()
        self._held = 0
        self._coming: dict[Key, Future[Side | None]] = {}

    @property
    def held_bytes(self) -> int:
        """Memory that is held now."""
        return self._held

    def get(self, content: Content, limits: Limits) -> Side:
        """What `prepare` makes of a content, from memory while its files stay as they are.

        Pictures in memory, lists of frames and plain texts are prepared each time.

        Raises:
            MediaError: A picture or clip cannot be read, naming it. Never remembered.
        """
        key = _key(content, limits) if self.max_bytes > 0 else None
        if key is None:
            return prepare(content, limits)
        while True:
            with self._lock:
                side = self._sides.get(key)
                if side is not None:
                    self._sides.move_to_end(key)
                    return side
                coming = self._coming.get(key)
                if coming is None:
                    mine = self._coming[key] = Future()
            if coming is None:
                with self._announced(key, mine):
                    side = prepare(content, limits)
                    # A file that changed meanwhile: which state was read is not known.
                    if _key(content, limits) == key:
                        self._keep(key, side)
                    mine.set_result(side)
                    return side
            side = coming.result()
            if side is not None:
                return side
            # The other thread failed. This one tries by itself, for an error of its own.

    @contextmanager
    def _announced(self, key: Key, mine: Future[Side | None]) -> Iterator[None]:
        """Lets waiting threads go on, however the block ends."""
        try:
            yield
        finally:
            with self._lock:
                del self._coming[key]
            if not mine.done():
                mine.set_result(None)

    def _keep(self, key: Key, side: Side) -> None:
        size = _size(side)
        if size > self.max_bytes:
            return
        with self._lock:
            self._sides[key] = side
            self._held += size
            while self._held > self.max_bytes:
                _, oldest = self._sides.popitem(last=False)
                self._held -= _size(oldest)


def _key(content: Content, limits: Limits) -> Key | None:
    """None for what is not kept: nothing to read, pictures in memory, files out of reach."""
    if not (content.images or content.videos):
        return None
    parts: list[object] = [limits, tuple(content.texts)]
    try:
        for source in content.images:
            if not isinstance(source, Path):
                return None
            parts.append(identify(source))
        for clip in content.videos:
            if clip.frames or clip.path is None:
                return None
            parts += ["clip", identify(clip.path), clip.start_s, clip.end_s, clip.keyframe_s]
    except (OSError, ValueError):
        return None
    return tuple(parts)


def _size(side: Side) -> int:
    texts = sum(4 * len(piece) for piece in side.pieces if isinstance(piece, str))
    return side.pixel_bytes + texts + ENTRY_BYTES
