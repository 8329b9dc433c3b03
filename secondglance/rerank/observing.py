"""Watching the second pass at work: batches, and what the cache of scores saved.

Models come and go while a server runs, so whoever watches asks here, for all of the process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Observer(Protocol):
    """Is told what happens, in the thread where it does; must be quick and must not raise."""

    def batch(self, pairs: int, seconds: float) -> None:
        """A device scored a batch."""
        ...

    def cache(self, hits: int, misses: int) -> None:
        """So many pairs had a score in the cache, and so many had not."""
        ...


# Replaced, never changed: threads read it without a lock.
_observers: tuple[Observer, ...] = ()


@contextlib.contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Tells an observer what happens within the block, in any thread."""
    global _observers
    _observers = (*_observers, observer)
    try:
        yield
    finally:
        _observers = tuple(other for other in _observers if other is not observer)


def tell_batch(pairs: int, seconds: float) -> None:
    """A batch was scored."""
    for observer in _observers:
        observer.batch(pairs, seconds)


def tell_cache(hits: int, misses: int) -> None:
    """The cache was asked."""
    for observer in _observers:
        observer.cache(hits, misses)
