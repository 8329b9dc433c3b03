"""Turns to work, for all libraries of a process: fair between them, and few in all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import ThreadPoolExecutor

LOOK_EVERY_S = 0.2
"""Between two looks whether a job that waits for its turn was cancelled."""


class Turns:
    """Turns of requests, and the threads that they work in.

    Each queue that shares them is an owner. Who waits gets the next turn that is free, one owner
    after the other, however many requests of one owner wait. Where several share them, one owner
    cannot have all turns at once: one is left, so that another need not wait for the long work of
    the first. Belongs to one event loop, but for the threads.

    Args:
        count: Turns at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="request")
        self._owners: set[Hashable] = set()
        self._held: Counter[Hashable] = Counter()
        # Whoever got a turn goes to the end.
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()
        self._idle: dict[Hashable, asyncio.Event] = {}

    def join(self, owner: Hashable) -> None:
        """Notes that an owner will ask for turns."""
        self._owners.add(owner)

    def leave(self, owner: Hashable) -> None:
        """Notes that an owner will not ask any more."""
        self._owners.discard(owner)

    def most(self) -> int:
        """Turns that one owner may have at once."""
        return self.count - 1 if len(self._owners) > 1 and self.count > 1 else self.count

    def has_room(self, owner: Hashable) -> bool:
        """Whether a request of this owner would get a turn at once."""
        return (
            owner not in self._idle
            and self._held[owner] < self.most()
            and self._held.total() < self.count
        )

    def take_now(self, owner: Hashable) -> bool:
        """Takes a turn, if one is free and nobody of this owner waits for it."""
        if not self.has_room(owner) or self._waiting.get(owner):
            return False
        self._held[owner] += 1
        return True

    async def take(self, owner: Hashable) -> None:
        """Waits for a turn; whoever is cancelled meanwhile has none."""
        if self.take_now(owner):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(owner)
            elif turn in (line := self._waiting.get(owner, deque())):
                line.remove(turn)
            raise

    def give_back(self, owner: Hashable) -> None:
        """Ends a turn; the next one that waits has it."""
        self._held[owner] -= 1
        if not self._held[owner] and owner in self._idle:
            self._idle[owner].set()
        self._hand_out()

    @contextlib.asynccontextmanager
    async def alone(self, owner: Hashable, timeout_s: float) -> AsyncIterator[None]:
        """A time in which no work of an owner runs; that of others goes on. One at a time.

        Args:
            owner: Whose work ends first, and whose requests wait.
            timeout_s: For what runs.

        Raises:
            asyncio.TimeoutError: It has not ended.
        """
        event = self._idle[owner] = asyncio.Event()
        try:
            if self._held[owner]:
                await asyncio.wait_for(event.wait(), timeout_s)
            yield
        finally:
            del self._idle[owner]
            self._hand_out()

    def close(self) -> None:
        """Ends the threads, after the work that they do."""
        self.threads.shutdown(wait=True, cancel_futures=True)

    def _hand_out(self) -> None:
        while self._held.total() < self.count:
            owner = next(
                (o for o, line in self._waiting.items() if line and self.has_room(o)), None
            )
            if owner is None:
                return
            line = self._waiting[owner]
            turn = line.popleft()
            self._waiting.move_to_end(owner)
            if not line:
                del self._waiting[owner]
            if not turn.done():  # else it was cancelled, and nobody takes it
                turn.set_result(None)
                self._held[owner] += 1


class JobTurns:
    """Turns of long jobs, in threads: first come, first served.

    Args:
        count: Jobs at the same time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._held = 0

    def is_free(self) -> bool:
        """Whether a job would get a turn at once."""
        with self._changed:
            return not self._line and self._held < self._count

    def take(self, stop: threading.Event) -> bool:
        """Waits for a turn.

        Args:
            stop: Ends the wait.

        Returns:
            Whether there is one now, which `give_back` ends.
        """
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                while not stop.is_set():
                    if self._line[0] is ticket and self._held < self._count:
                        self._held += 1
                        return True
                    self._changed.wait(LOOK_EVERY_S)
                return False
            finally:
                self._line.remove(ticket)
                self._changed.notify_all()

    def give_back(self) -> None:
        """Ends a turn."""
        with self._changed:
            self._held -= 1
            self._changed.notify_all()
