"""The store of an open library, which another may take the place of while searches go on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from secondglance.errors import StoreError
from secondglance.retrieve.store import Store


class StoreSlot:
    """Holds one store, opened on first use. Not safe from several threads: its owner locks."""

    def __init__(self) -> None:
        self._store: Store | None = None
        self._retired: list[Store] = []

    def get(self, make: Callable[[], Store]) -> Store:
        """The store; made if there is none."""
        if self._store is None:
            self._store = make()
        return self._store

    def retire(self) -> None:
        """The next use makes a store; searches that are under way end on the old one."""
        if self._store is not None:
            self._retired.append(self._store)
            self._store = None

    def close(self) -> None:
        """Lets go of all stores; the next use makes one."""
        while self._retired:
            # Nothing is written to it any more, and another process may have deleted it.
            with contextlib.suppress(StoreError):
                self._retired.pop().close()
        if self._store is not None:
            self._store.close()
            self._store = None
