"""The parts of an open library, which follow when its store or its model is changed elsewhere."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from secondglance.errors import CatalogError, SecondGlanceError, StoreError
from secondglance.pipelines.build import Parts
from secondglance.pipelines.generations import sweep_if_free
from secondglance.pipelines.locking import writing
from secondglance.pipelines.opening import Said, follow, stamp_state

logger = logging.getLogger(__name__)

T = TypeVar("T")

REST_S = 30.0
"""Between two tries to follow: each may load a model."""


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
        self._failed_at = (0, 0)
        self._rest_until = 0.0
        self._trouble: str | None = None

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

    def _retrying(self, work: Callable[[Parts], T]) -> T:
        """Does `work`; again if the vectors were removed under it, where no lock keeps them."""
        with self._reading() as parts:
            try:
                answer = work(parts)
                if parts.leased or stamp_state(self.folder) == parts.stamped:
                    return answer
            except (StoreError, CatalogError):
                if stamp_state(self.folder) == parts.stamped:
                    raise
        with self._reading(now=True) as parts:
            return work(parts)

    @contextlib.contextmanager
    def _changing(self, *, wait: bool = False) -> Iterator[Parts]:
        """As `_reading`, while no other process writes to the library.

        Raises:
            LibraryBusyError: Another one does.
        """
        with writing(self.folder, wait=wait), self._reading(now=True) as parts:
            yield parts

    def _follow(self, *, wait: bool = False) -> None:
        state = stamp_state(self.folder)
        if state == self._parts.stamped:
            return
        resting = self._failed_at == state and time.monotonic() < self._rest_until
        if (resting and not wait) or not self._following.acquire(blocking=wait):
            return
        try:
            before = self._parts
            if stamp_state(self.folder) == before.stamped:
                return
            try:
                parts = follow(before, self._said)
            except SecondGlanceError as error:
                if wait or not before.leased:
                    raise
                # The old vectors are there as long as they are in use: better than no answer.
                self._failed_at, self._rest_until = state, time.monotonic() + REST_S
                self._trouble = (
                    f"the library has changed, and what it has now cannot be used: {error}; "
                    "answers come from what it had"
                )
                logger.warning("%s", self._trouble)
                return
            self._trouble = None
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
