"""An event loop in a thread of its own, for callers that are no coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

T = TypeVar("T")

JOIN_S = 5.0
"""Longest wait for the thread's end."""


class ClosedError(Exception):
    """The loop was closed before what was asked of it ended."""


class LoopThread:
    """Runs coroutines for other threads. The thread starts with the first, and ends with `close`.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for a coroutine and returns what it returns.

        Raises:
            ClosedError: The loop is closed, or was before the coroutine ended.
        """
        try:
            with self._lock:
                if self._closed:
                    raise ClosedError
                if self._loop is None:
                    self._loop = asyncio.new_event_loop()
                    self._thread = threading.Thread(
                        target=_turn, args=(self._loop,), name=self._name, daemon=True
                    )
                    self._thread.start()
                future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()  # or Python complains that nobody awaited it
            raise
        try:
            return future.result()
        except CancelledError:
            raise ClosedError from None

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Breaks off what runs, runs a last coroutine, and ends. May be called twice.

        Args:
            last: Lets go of what belongs to the loop; not run if the loop never did.
        """
        with self._lock:
            loop, closed, self._closed = self._loop, self._closed, True
        if loop is None or closed:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(_end(last), loop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _end(last: Coroutine[Any, Any, None]) -> None:
    loop = asyncio.get_running_loop()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    try:
        await last
    finally:
        loop.stop()
