"""Decode workers that outlive the runs that use them.

A run of `index` starts its own and kills them at its end: a second of computing, hundreds of times
in these suites. Here runs with the same settings share workers. Tests of what befalls workers use
`own_workers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import pytest

from secondglance.ingest.workers import DecodePool
from secondglance.pipelines.build import Parts

P = ParamSpec("P")
T = TypeVar("T")

open_own = Parts.decode_pool


class _Shared(DecodePool):
    """One run's share of workers that stay: its end drops its own calls only."""

    def __init__(self, kept: DecodePool) -> None:
        self.__dict__.update(kept.__dict__)
        self._unfinished: set[Future[object]] = set()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = super().submit(function, *args, **kwargs)
        self._unfinished.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._unfinished.discard)
        return future

    def close(self) -> None:
        for future in [*self._unfinished]:
            future.cancel()


@contextmanager
def shared_workers() -> Iterator[None]:
    """Inside it, libraries with equal settings share decode workers."""
    kept: dict[tuple[int, float, int], DecodePool] = {}

    def share(parts: Parts) -> DecodePool:
        ingest = parts.settings.ingest
        key = (ingest.workers, ingest.timeout_s, ingest.max_memory_mb)
        if key not in kept:
            kept[key] = open_own(parts)
        return _Shared(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "decode_pool", share)
        try:
            yield
        finally:
            for pool in kept.values():
                pool.close()
