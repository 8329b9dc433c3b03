"""Work for requests: so much at a time, so much waiting, and an end when nobody waits.

A request that finds the queue full gets 429 with Retry-After at once. The work itself is threads:
searches that run side by side share the reranker's batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from secondglance.errors import StoppedError
from secondglance.rerank.stopping import stoppable
from secondglance.server.problems import ApiError
from secondglance.server.turns import Turns

if TYPE_CHECKING:
    from fastapi import Request

T = TypeVar("T")

LOOK_EVERY_S = 0.1
"""Between two looks whether the client is still there."""
RECENT = 50
"""Requests whose time tells how long to wait."""
MAX_RETRY_S = 60


def default_concurrency() -> int:
    """Requests at the same time on this machine."""
    return min(32, 4 * (os.cpu_count() or 1))


class WorkQueue:
    """Runs functions in threads, for requests.

    Args:
        concurrency: Functions at the same time; 0 for `default_concurrency`.
        waiting: Requests that wait besides these, at most.
        timeout_s: For a request, waiting included.
        on_wait: Called with the seconds that a request waited.
        turns: Shared with other queues; then `concurrency` is theirs. None for turns of its own.
    """

    def __init__(
        self,
        *,
        concurrency: int = 0,
        waiting: int = 64,
        timeout_s: float = 300.0,
        on_wait: Callable[[float], None] = lambda _: None,
        turns: Turns | None = None,
    ) -> None:
        self._turns = turns or Turns(concurrency or default_concurrency())
        self._turns.join(self)
        self._owns_turns = turns is None
        self.concurrency = self._turns.count
        self.max_waiting = waiting
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._only = asyncio.Lock()
        self._took: deque[float] = deque(maxlen=RECENT)
        self._stops: set[threading.Event] = set()
        self.waiting = 0
        self.running = 0
        self.closed = ""
        """Why no more work is taken; empty if it is."""

    async def run(self, request: Request, function: Callable[[], T]) -> T:
        """Runs a function in a thread and returns what it returns.

        It is stopped (see `rerank.stopping`) when the client goes away or the time is over.

        Raises:
            ApiError: 429 if too many requests wait, 503 if the time is over.
            StoppedError: The client went away.
        """
        ends = time.monotonic() + self._timeout_s
        async with self.turn(ends) as stop:
            future = self.start(function, stop)
            while True:
                done, _ = await asyncio.wait({future}, timeout=LOOK_EVERY_S)
                if done:
                    return future.result()
                gone = await request.is_disconnected()
                if gone or time.monotonic() >= ends:
                    stop.set()
                    # The thread is not free before the function has noticed.
                    await asyncio.wait({future})
                    future.exception()
                    if gone:
                        raise StoppedError("the client went away")
                    raise self._too_long()

    def start(self, function: Callable[[], T], stop: threading.Event) -> asyncio.Future[T]:
        """Begins a function within a turn; `stop` ends it."""

        def work() -> T:
            with stoppable(stop):
                return function()

        context = contextvars.copy_context()
        return asyncio.get_running_loop().run_in_executor(self._turns.threads, context.run, work)

    @asynccontextmanager
    async def turn(self, ends: float | None = None) -> AsyncIterator[threading.Event]:
        """Waits for a turn; the event that is given ends the work of it.

        Args:
            ends: Of `time.monotonic`, when the wait is over; None: after the timeout.

        Raises:
            ApiError: 429 if too many requests wait, 503 if the time is over or the server ends.
        """
        ends = time.monotonic() + self._timeout_s if ends is None else ends
        if self.closed:
            raise ApiError(503, "stopping", self.closed, headers={"Retry-After": "5"})
        began = time.monotonic()
        if not self._turns.take_now(self):
            if self.waiting >= self.max_waiting:
                raise ApiError(
                    429,
                    "too-many-requests",
                    f"{self.running} requests are worked on and {self.waiting} wait",
                    headers={"Retry-After": str(self.retry_after_s())},
                )
            self.waiting += 1
            try:
                await asyncio.wait_for(self._turns.take(self), ends - began)
            except asyncio.TimeoutError:
                raise self._too_long() from None
            finally:
                self.waiting -= 1
        self._on_wait(time.monotonic() - began)
        self.running += 1
        stop = threading.Event()
        self._stops.add(stop)
        started = time.monotonic()
        try:
            yield stop
        finally:
            stop.set()
            self._stops.discard(stop)
            self.running -= 1
            self._took.append(time.monotonic() - started)
            self._turns.give_back(self)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A time without work: what runs ends first, and what comes waits for the block's end.

        Raises:
            ApiError: 503 if the time is over before what runs has ended.
        """
        ends = time.monotonic() + self._timeout_s
        async with self._only, contextlib.AsyncExitStack() as stack:
            left_s = max(0.0, ends - time.monotonic())
            try:
                await stack.enter_async_context(self._turns.alone(self, left_s))
            except asyncio.TimeoutError:
                raise self._too_long() from None
            yield

    def retry_after_s(self) -> int:
        """Seconds after which there is likely room, from how long the last requests took."""
        each = sum(self._took) / len(self._took) if self._took else 1.0
        return max(1, min(MAX_RETRY_S, math.ceil(each * (self.waiting + 1) / self.concurrency)))

    def stop_all(self) -> None:
        """Ends the work of all requests."""
        for stop in list(self._stops):
            stop.set()

    def close(self) -> None:
        """Ends all work, and the threads unless they are shared."""
        self.stop_all()
        self._turns.leave(self)
        if self._owns_turns:
            self._turns.close()

    def _too_long(self) -> ApiError:
        return ApiError(
            503,
            "timeout",
            f"no answer within {self._timeout_s:g} s",
            headers={"Retry-After": str(self.retry_after_s())},
        )
