"""Models in memory once, however many libraries of a process use them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

T = TypeVar("T")


class SharedModels:
    """Lends loaded models: those who ask for the same get the same.

    Unlike `rerank.pool.ModelPool`, a lease lasts as long as its taker likes, and nothing is closed
    before the last one has given it back. Safe to call from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def take(self, key: Hashable, load: Callable[[], T]) -> T:
        """A model, loaded if nobody has it yet.

        Of several threads that ask for one model, one loads it and the others wait. A load that
        raises leaves nothing behind, and a thread that waited then tries itself.

        Args:
            key: All that the model depends on.
            load: Makes it.

        Raises:
            Exception: What `load` raised.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(threading.Lock()))
            entry.leases += 1
        try:
            with entry.loading:
                if not entry.ready:
                    entry.model = load()
                    entry.ready = True
                return cast("T", entry.model)
        except BaseException:
            self._drop(key, entry)
            raise

    def give_back(self, model: object) -> bool:
        """Ends one lease of a model.

        Returns:
            Whether it was the last one, and the caller is to free the model. That holds of a model,
            too, which was never lent here.
        """
        with self._lock:
            found = [
                (key, entry)
                for key, entry in self._entries.items()
                if entry.ready and entry.model is model
            ]
        return all(self._drop(key, entry) for key, entry in found)

    def __len__(self) -> int:
        """Models that are loaded or about to be."""
        return len(self._entries)

    def _drop(self, key: Hashable, entry: _Entry) -> bool:
        with self._lock:
            entry.leases -= 1
            if entry.leases == 0:
                del self._entries[key]
            return entry.leases == 0


@dataclass(slots=True, eq=False)
class _Entry:
    """A model that is being loaded or ready. `leases` changes under the lock of all."""

    loading: threading.Lock
    model: Any = None
    ready: bool = False
    leases: int = 0
