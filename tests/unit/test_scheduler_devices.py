"""Which of several devices gets a batch, and how large it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from secondglance.rerank.batching import Pair
from secondglance.rerank.lanes import SMALLEST_TOKENS
from secondglance.rerank.prompt import Encoded
from secondglance.rerank.scheduler import Job, Scheduler
from secondglance.types import PairScore


def pair(tokens: int) -> Pair:
    encoded = Encoded(np.zeros(tokens, np.int64), np.zeros((3, tokens), np.int64))
    return Pair(place=0, encoded=encoded)


def test_an_idle_device_goes_before_one_at_work() -> None:
    """Two threads a device, so that batches queue there; two batches must not queue on one."""

    def run(batch: Sequence[Any]) -> list[PairScore]:
        return []

    scheduler = Scheduler([run] * 4, batch_tokens=4, wait_ms=0, devices=2)
    queue = scheduler._queue
    with queue.lock:  # without the scheduler's own threads
        queue.add(Job(scheduler, [pair(4) for _ in range(3)], None))
    assert queue.take(0)
    got: list[Any] = []
    also_first = threading.Thread(target=lambda: got.append(queue.take(2)), daemon=True)
    also_first.start()
    time.sleep(0.1)
    assert not got  # the second device has nothing to do
    assert queue.take(1)
    also_first.join(20)
    assert got
    assert got[0]


def test_devices_share_what_waits() -> None:
    """One device would take all of it in one batch; two take about half each."""
    sizes: list[int] = []
    both = threading.Barrier(2, timeout=20)

    def run(batch: Sequence[Any]) -> list[PairScore]:
        sizes.append(len(batch))
        if len(sizes) <= 2:
            both.wait()
        return [PairScore(score=0.5) for _ in batch]

    long = SMALLEST_TOKENS // 4
    with Scheduler([run, run], batch_tokens=100 * long, wait_ms=0) as scheduler:
        scheduler.submit([pair(long) for _ in range(40)]).result(20)
    assert sizes[0] == 20
    assert sizes[1] == 10
    assert sum(sizes) == 40
    assert min(sizes[:-1]) >= 4
