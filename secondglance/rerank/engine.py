"""Pairs in, answers out: batches that several calls share, on one device or several."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from secondglance.errors import RerankError
from secondglance.rerank import stopping
from secondglance.rerank.batching import Pair
from secondglance.rerank.replica import Beginning, Passes, Replica, Task
from secondglance.rerank.scheduler import Job, Scheduler

if TYPE_CHECKING:
    from secondglance.types import PairScore

LEAST_SAVED = 256
"""Tokens that sharing must save before it pays; fewer are better off in batches with others."""
LEAST_SAVED_ON_GPU = 2048
"""On an H200 (2B, texts of 100 tokens) 770 saved tokens cost a fifth of the speed, 2,500 nothing,
and 8,400 gain a sixth (`benchmarks/shared_batches.py`)."""


class Engine:
    """Scores the pairs of queries; those of several threads share batches.

    Args:
        forwards: One model, loaded on one device or more.
        name: Of the model, for messages.
        batch_tokens: Tokens of a batch, padding included. Lowered when a batch does not fit in
            memory.
    """

    def __init__(self, forwards: Sequence[Passes], *, name: str, batch_tokens: int) -> None:
        self._replicas = [
            Replica(forward, name=name, on_shrink=self._shrink) for forward in forwards
        ]
        # On a GPU one thread starts a batch while the other waits for the last one's answers.
        at_once = 2 if forwards[0].device.type == "cuda" else 1
        runners = [replica.run for replica in self._replicas] * at_once
        self._scheduler = Scheduler(runners, batch_tokens=batch_tokens, devices=len(forwards))

    @property
    def forward(self) -> Passes:
        """The model on the first device.

        Raises:
            RerankError: The engine is closed.
        """
        if not self._replicas:
            raise RerankError("the reranker is closed", remedy="load it again")
        return self._replicas[0].forward

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, padding included."""
        return self._scheduler.batch_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._scheduler.batch_tokens = tokens

    def close(self) -> None:
        """Waits for the batches that run, and lets go of the models. Jobs that wait raise."""
        self._scheduler.close()
        self._replicas.clear()

    def answers(
        self, windows: Iterable[Sequence[Pair]], *, timeout_s: float | None = None
    ) -> Iterator[tuple[int, PairScore]]:
        """Places and scores of the pairs of one query, in no particular order.

        Args:
            windows: The pairs, as they become ready.
            timeout_s: Longest wait for the scores of a window, in seconds.

        Raises:
            RerankError: The model failed, the time has passed, or the engine is closed.
            StoppedError: Whoever asked went away; see `stopping`.
        """
        beginning: Beginning | None = None
        key: object = None
        jobs: deque[tuple[Sequence[Pair], Job]] = deque()
        try:
            for pairs in windows:
                stopping.check()
                if not pairs:
                    continue
                if beginning is None or not beginning.begins(pairs, self.forward):
                    beginning = self._beginning(pairs)
                    # Pairs with a beginning of their own need batches of their own.
                    key = object() if beginning else None
                tasks = [Task(pair, beginning) for pair in pairs]
                jobs.append((pairs, self._scheduler.submit(tasks, key=key)))
                if len(jobs) > 1:
                    yield from _read(*jobs[0], timeout_s)
                    jobs.popleft()
            while jobs:
                yield from _read(*jobs[0], timeout_s)
                jobs.popleft()
        finally:
            for _, job in jobs:  # nobody waits for these any more
                job.cancel()

    def _beginning(self, pairs: Sequence[Pair]) -> Beginning | None:
        """What all pairs begin with; None where sharing it does not pay."""
        tokens = self.forward.common(pairs)
        on_gpu = self.forward.device.type == "cuda"
        least = LEAST_SAVED_ON_GPU if on_gpu else LEAST_SAVED
        pays = tokens * (len(pairs) - 1) >= least
        return Beginning(pairs[0], tokens) if pays else None

    def _shrink(self, tokens: int) -> None:
        self.batch_tokens = max(1, min(self.batch_tokens, tokens))


def _read(
    pairs: Sequence[Pair], job: Job, timeout_s: float | None
) -> Iterator[tuple[int, PairScore]]:
    for pair, score in zip(pairs, _result(job, timeout_s), strict=True):
        yield pair.place, score


def _result(job: Job, timeout_s: float | None) -> list[PairScore]:
    """Waits for the scores, or until nobody wants them."""
    if stopping.current() is None:
        return job.result(timeout_s)
    ends = None if timeout_s is None else time.monotonic() + timeout_s
    while not job.wait(stopping.LOOK_EVERY_S):
        stopping.check()
        if ends is not None and time.monotonic() >= ends:
            return job.result(0)
    return job.result()
