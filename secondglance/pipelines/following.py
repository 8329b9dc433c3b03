"""The parts of an open library, which follow when its store or its model is changed elsewhere."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from secondglance.errors import SecondGlanceError
from secondglance.pipelines.build import Parts
from secondglance.pipelines.generations import sweep_if_free
from secondglance.pipelines.locking import writing
from secondglance.pipelines.opening import Said, follow, stamp_state

logger = logging.getLogger(__name__)


class Following:
    """The part of `Library` that every method reads through: `_reading`, or `_changing`.

    Args:
        folder: The library folder.
        parts: Open.
        said: By whoever opened it; it holds for what comes after, too.
    """

    def __init__(self, folder: Path, parts: Parts, said: Said) -> None:
        self.folder = folder
        self._parts = parts
        self._said = said
        self._users: Counter[Parts] = Counter()
        self._swapping = threading.Lock()
        self._following = threading.RLock()

    @contextlib.contextmanager
    def _reading(self, *, now: bool = False) -> Iterator[Parts]:
        """The parts as the stamp names them; they stay open until the block ends.

        While one thread takes others, which may load a model, the rest goes on with the old ones.

        Args:
            now: Wait for that thread: what is written must not go to the old ones.
        """
        self._follow(wait=now)
        with self._swapping:
            parts = self._parts
            self._users[parts] += 1
        try:
            yield parts
        finally:
            with self._swapping:
                self._users[parts] -= 1
                if not self._users[parts]:
                    del self._users[parts]
            self._retire(parts)

    @contextlib.contextmanager
    def _changing(self, *, wait: bool = False) -> Iterator[Parts]:
        """As `_reading`, while no other process writes to the library.

        Raises:
            LibraryBusyError: Another one does.
        """
        with writing(self.folder, wait=wait), self._reading(now=True) as parts:
            yield parts

    def _follow(self, *, wait: bool = False) -> None:
        if stamp_state(self.folder) == self._parts.stamped:
            return
        if not self._following.acquire(blocking=wait):
            return
        try:
            before = self._parts
            if stamp_state(self.folder) == before.stamped:
                return
            parts = follow(before, self._said)
            with self._swapping:
                self._parts = parts
            self._retire(before)
        finally:
            self._following.release()

    def _retire(self, parts: Parts) -> None:
        """Closes parts that are no more in use; then their vectors may go."""
        with self._swapping:
            if parts is self._parts or parts in self._users:
                return
        # Nothing is written to them any more, and a server may have lost what they are of.
        with contextlib.suppress(SecondGlanceError):
            parts.close()
        known = (parts.settings.store, self._parts.settings.store)
        sweep_if_free(self.folder, known=known)
