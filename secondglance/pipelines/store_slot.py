"""The store of open parts, which may be let go of and opened again."""

from __future__ import annotations

from collections.abc import Callable

from secondglance.retrieve.store import Store


class StoreSlot:
    """Holds one store, opened on first use. Not safe from several threads: its owner locks."""

    def __init__(self) -> None:
        self._store: Store | None = None

    def get(self, make: Callable[[], Store]) -> Store:
        """The store; made if there is none."""
        if self._store is None:
            self._store = make()
        return self._store

    def close(self) -> None:
        """Lets go of the store; the next use makes one."""
        if self._store is not None:
            store, self._store = self._store, None
            store.close()
