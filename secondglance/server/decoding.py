"""The processes that read media of requests: few, limited in memory and time, and expendable."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import wait
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from secondglance.errors import MediaError, StoppedError
from secondglance.rerank import stopping

if TYPE_CHECKING:
    from secondglance.ingest.workers import DecodePool

P = ParamSpec("P")
T = TypeVar("T")

LOOK_EVERY_S = 0.05


class Decoding:
    """Runs functions of `intake` in worker processes, which start with the first call.

    Args:
        workers: Processes.
        timeout_s: For one call; a worker that takes longer is killed.
        max_memory_mb: Data of one worker.
    """

    def __init__(self, *, workers: int, timeout_s: float, max_memory_mb: int) -> None:
        self._settings = {
            "workers": max(1, workers),
            "timeout_s": timeout_s,
            "max_memory_mb": max_memory_mb,
        }
        self._turns = asyncio.Semaphore(max(1, workers))
        self._lock = threading.Lock()
        self._pool: DecodePool | None = None
        self._closed = False

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in a worker, and waits; also where requests are stopped.

        Raises:
            MediaError: Whatever went wrong with the file.
            StoppedError: Nobody waits any more, or the server ends.
        """
        pool = self._opened()
        try:
            future = pool.submit(function, *args, **kwargs)
        except RuntimeError:  # closed meanwhile
            raise StoppedError("the server ends") from None
        while not wait([future], timeout=LOOK_EVERY_S).done:
            try:
                stopping.check()
                self._check_open()
            except StoppedError:
                future.cancel()
                raise
        if future.cancelled():
            raise StoppedError("the server ends")
        try:
            return pool.result(future)
        except MediaError as error:
            # Remedies for whoever indexes are of no use to a client.
            remedy = error.remedy if error.remedy and "ingest." not in error.remedy else None
            raise MediaError(error.problem, remedy=remedy) from None

    async def turn(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for coroutines: only so many threads wait as there are workers.

        Raises:
            MediaError: Whatever went wrong with the file.
            StoppedError: The server ends.
        """
        async with self._turns:
            return await asyncio.to_thread(lambda: self.run(function, *args, **kwargs))

    def close(self) -> None:
        """Kills the workers; calls that have not finished end."""
        with self._lock:
            self._closed = True
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _opened(self) -> DecodePool:
        from secondglance.ingest.workers import DecodePool

        with self._lock:
            self._check_open()
            if self._pool is None:
                self._pool = DecodePool(
                    workers=int(self._settings["workers"]),
                    timeout_s=self._settings["timeout_s"],
                    max_memory_mb=int(self._settings["max_memory_mb"]),
                )
            return self._pool

    def _check_open(self) -> None:
        if self._closed:
            raise StoppedError("the server ends")
