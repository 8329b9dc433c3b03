"""Batches that several calls share, on one or more devices.

Pairs wait in lanes, one for each key, and only pairs of one lane share a batch. Lanes take turns,
and so do the jobs of a lane: whoever's turn it is gives the batch its longest pair, and the other
jobs fill it up with pairs that are no longer. So a batch holds pairs of like length, longest first,
within the budget of padded tokens, and a short job waits for one batch of each job before it,
however long they are.
"""

from __future__ import annotations

import threading
import time
import weakref
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence, Sized
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from secondglance.errors import InputError, RerankError
from secondglance.rerank import observing
from secondglance.rerank.lanes import Lane, Pick
from secondglance.types import PairScore

Runner: TypeAlias = Callable[[Sequence[Any]], list[PairScore]]
"""Scores one batch on one device, in the order given."""

WAIT_MS = 2.0
"""Longest that an idle device waits for others to fill a batch."""


class Job:
    """Pairs handed to a `Scheduler`, and their scores once they are known."""

    def __init__(self, scheduler: Scheduler, pairs: Sequence[Sized], key: Hashable) -> None:
        # The scheduler is not collected while somebody still waits for its work.
        self._scheduler = scheduler
        self._key = key
        # Longest last, and of equal ones the first last: the end is what goes next. Pairs leave
        # this list as they go, so that their pixels can be freed.
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place]), reverse=True)
        self._waiting = [(place, pairs[place]) for place in reversed(order)]
        self._scores: list[PairScore | None] = [None] * len(pairs)
        self._left = len(pairs)
        self._error: BaseException | None = None
        self._done = threading.Event()

    @property
    def done(self) -> bool:
        """Whether `result` would answer or raise at once."""
        return self._done.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the job, at most so many seconds; returns `done`."""
        return self._done.wait(timeout_s)

    def result(self, timeout_s: float | None = None) -> list[PairScore]:
        """Waits for the scores.

        May be called again after a timeout, and by several threads.

        Args:
            timeout_s: Seconds to wait; None waits as long as it takes.

        Returns:
            One score a pair, in the order submitted.

        Raises:
            RerankError: The job was cancelled, the scheduler was closed, a batch had the wrong
                number of scores, or `timeout_s` has passed (then `done` is False, and the job
                goes on).
            Exception: What a runner raised for a batch that held a pair of this job.
        """
        if not self._done.wait(timeout_s):
            raise RerankError(
                f"{self._left} of {len(self._scores)} pairs have no score after {timeout_s:g} s",
                remedy="wait longer, rerank fewer candidates, or cancel the job",
            )
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # or the error's traceback would refer to the job that holds the error
        return [score for score in self._scores if score is not None]

    def cancel(self) -> bool:
        """Drops the pairs that have not started; whoever waits gets a RerankError.

        Pairs that are on a device finish there, and their scores are thrown away.

        Returns:
            False if the job was already done, which changes nothing.
        """
        error = RerankError("the job was cancelled", remedy="submit its pairs again")
        return self._scheduler._queue.fail([self], error)

    def _pop(self, *, shortest: int, longest: int) -> Pick | None:
        """Takes the longest pair within these numbers of tokens."""
        at = bisect_right(self._waiting, longest, key=lambda item: len(item[1])) - 1
        if at < 0 or len(self._waiting[at][1]) < shortest:
            return None
        place, pair = self._waiting.pop(at)
        return Pick(self, place, pair)


class Scheduler:
    """Batches pairs of several jobs and threads, and spreads the batches over devices.

    Each runner has a daemon thread, which starts with the first job and ends with `close`, with
    the scheduler's last reference, or with the interpreter. A runner that raises fails the jobs
    with a pair in that batch, and nothing else. Runners may refer to the scheduler's owner, but
    must not wait for jobs of the same scheduler.

    Args:
        runners: One for each device (replica), or several, the devices in turn. Each is called by
            one thread at a time.
        batch_tokens: Tokens of a batch, padding included. A longer pair goes alone.
        wait_ms: Milliseconds that pairs wait for others where they do not fill a batch; 0 never
            waits. Pairs that arrive while every device is busy are batched anyway.
        devices: How many; None: as many as runners. One that is at work lets the idle go first.

    Raises:
        InputError: No runners, or a number that is out of range.
    """

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        batch_tokens: int,
        wait_ms: float = WAIT_MS,
        devices: int | None = None,
    ) -> None:
        if not runners:
            raise InputError("no runners", remedy="give one for each device")
        if batch_tokens < 1:
            raise InputError(f"batch_tokens is {batch_tokens}; it must be at least 1")
        if not 0 <= wait_ms < float("inf"):
            raise InputError(f"wait_ms is {wait_ms}; it must be 0 or more, and finite")
        self._runners: tuple[Runner, ...] = tuple(runners)
        self._queue = _Queue(
            len(runners),
            devices=devices or len(runners),
            batch_tokens=batch_tokens,
            wait_s=wait_ms / 1000,
        )
        self._threads: list[threading.Thread] = []
        self._finalizer = weakref.finalize(self, self._queue.stop)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, padding included."""
        return self._queue.batch_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._queue.batch_tokens = tokens

    def submit(self, pairs: Sequence[Sized], *, key: Hashable = None) -> Job:
        """Queues pairs, and returns at once.

        Args:
            pairs: What to score, with its number of tokens as its length; none is a job that is
                done.
            key: Only pairs of equal keys share a batch: those of one query, whose common beginning
                the engine then computes once. None is a key like any other, for pairs that may
                share with whatever else has no key.

        Raises:
            RerankError: The scheduler is closed.
        """
        job = Job(self, pairs, key)
        with self._queue.lock:
            self._queue.require_open()
            self._start()
            self._queue.add(job)
        return job

    def close(self, *, timeout_s: float | None = None) -> None:
        """Ends the worker threads; jobs with pairs that have not started raise RerankError.

        Batches that are on a device finish, and jobs that are complete with them get their
        scores. Closing again does nothing.

        Args:
            timeout_s: Seconds to wait for those batches; None waits as long as they take. The
                threads end after their batch in any case.
        """
        self._queue.close()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
                thread.join(left_s)
        self._runners = ()  # and with them the models

    def _start(self) -> None:
        while len(self._threads) < len(self._runners):
            number = len(self._threads)
            thread = threading.Thread(
                # Without the scheduler: an idle thread must not keep it, and with it the model.
                target=_work,
                args=(self._queue, number),
                name=f"rerank-device-{number}",
                daemon=True,
            )
            thread.start()
            self._threads.append(thread)


class _Queue:
    """What the workers share. Holds no runner, and no scheduler but through waiting jobs."""

    def __init__(self, workers: int, *, devices: int, batch_tokens: int, wait_s: float) -> None:
        self.lock = threading.Lock()
        self._devices = devices
        self.batch_tokens = batch_tokens
        self._wait_s = wait_s
        self._lanes: OrderedDict[Hashable, Lane] = OrderedDict()
        self._idle: set[int] = set()
        # A condition would not do: `stop` may run in a garbage collection that interrupts a worker
        # just before it waits. A token put into a simple queue is found by the wait that follows.
        self._wakes: list[SimpleQueue[None]] = [SimpleQueue() for _ in range(workers)]
        self._running = [0] * devices  # batches on each device now
        self._closed = False

    def require_open(self) -> None:
        if self._closed:
            raise RerankError("the scheduler is closed", remedy="open the reranker again")

    def add(self, job: Job) -> None:
        """Appends a job and wakes the idle workers; the caller holds the lock."""
        if not job._waiting:
            job._done.set()
            return
        lane = self._lanes.get(job._key)
        if lane is None:
            lane = self._lanes[job._key] = Lane(time.monotonic() + self._wait_s)
        lane.jobs.append(job)
        self._wake()

    def take(self, worker: int) -> list[Pick] | None:
        """Waits for the next batch; None at the end."""
        while True:
            with self.lock:
                if self._closed:
                    return None
                deferring = self._others_first(worker)
                batch = [] if deferring else self._next()
                if batch:
                    self._idle.discard(worker)
                    self._running[self._device(worker)] += 1
                    self._wake()  # whoever let this device go first
                    return batch
                self._idle.add(worker)
                dues_s = [] if deferring else [lane.due_s for lane in self._lanes.values()]
                due_s = min(dues_s, default=None)
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            with suppress(Empty):  # then what is there has waited long enough
                self._wakes[worker].get(timeout=wait_s)

    def done(self, worker: int) -> None:
        """The device of a worker has finished its batch."""
        with self.lock:
            self._running[self._device(worker)] -= 1

    def _device(self, worker: int) -> int:
        return worker % self._devices

    def _others_first(self, worker: int) -> bool:
        """Whether the device is at work and another is not: that one's workers are on their way."""
        return self._running[self._device(worker)] > 0 and min(self._running) == 0

    def _wake(self) -> None:
        while self._idle:
            self._wakes[self._idle.pop()].put(None)

    def _next(self) -> list[Pick]:
        """A batch of the first lane that is full or has waited; empty if none has."""
        now_s = time.monotonic()
        for key, lane in self._lanes.items():
            room = lane.room(self.batch_tokens, self._devices)
            if lane.due_s <= now_s or lane.fills(room):
                batch = lane.form(room)
                self._lanes.move_to_end(key)
                self._drop_empty(key)
                return batch
        return []

    def settle(self, batch: Sequence[Pick], scores: Sequence[PairScore]) -> None:
        """Hands out the scores of a batch."""
        with self.lock:
            for pick, score in zip(batch, scores, strict=True):
                pick.job._scores[pick.place] = score
                pick.job._left -= 1
                if not pick.job._left:
                    pick.job._done.set()

    def fail(self, jobs: Sequence[Job], error: BaseException) -> bool:
        """Ends jobs that are not done yet; whether there was one."""
        with self.lock:
            failed = [self._fail(job, error) for job in jobs]  # all of them, so no bare any()
            return any(failed)

    def _fail(self, job: Job, error: BaseException) -> bool:
        if job.done:
            return False
        if job._waiting:
            job._waiting.clear()
            self._lanes[job._key].jobs.remove(job)
            self._drop_empty(job._key)
        job._error = error
        job._done.set()
        return True

    def _drop_empty(self, key: Hashable) -> None:
        if not self._lanes[key].jobs:
            del self._lanes[key]

    def close(self) -> None:
        """Fails every job that has waiting pairs, and ends the workers."""
        with self.lock:
            self.stop()
            for job in [job for lane in self._lanes.values() for job in lane.jobs]:
                self._fail(
                    job,
                    RerankError(
                        f"the scheduler was closed before {len(job._waiting)} of "
                        f"{len(job._scores)} pairs had started",
                        remedy="open the reranker again",
                    ),
                )

    def stop(self) -> None:
        """Ends the workers. Takes no lock: the garbage collector may call it anywhere."""
        self._closed = True
        for wake in self._wakes:
            wake.put(None)


def _work(queue: _Queue, worker: int) -> None:
    """Body of a worker thread."""
    while True:
        batch = queue.take(worker)
        if batch is None:
            return
        _run(queue, batch, batch[0].job._scheduler._runners[worker])
        queue.done(worker)
        del batch  # an idle worker holds no pixels, and no scheduler


def _run(queue: _Queue, batch: Sequence[Pick], runner: Runner) -> None:
    began = time.perf_counter()
    try:
        scores = runner([pick.pair for pick in batch])
        if len(scores) != len(batch):
            raise RerankError(f"a batch of {len(batch)} pairs got {len(scores)} scores")
    # Whatever it is, it belongs to those who wait; this thread has nobody to tell.
    except BaseException as error:
        queue.fail([pick.job for pick in batch], error)
    else:
        # First: whoever waits for the scores finds them counted.
        observing.tell_batch(len(batch), time.perf_counter() - began)
        queue.settle(batch, scores)
    finally:
        del batch  # the error's traceback holds this frame, and the batch's jobs hold the error
