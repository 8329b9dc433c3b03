"""Batches that several calls share: who gets what, in which company, and what failure touches."""

from __future__ import annotations

import gc
import math
import random
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest

from secondglance.errors import InputError, RerankError
from secondglance.rerank.batching import Pair
from secondglance.rerank.prompt import Encoded
from secondglance.rerank.scheduler import Job, Runner, Scheduler
from secondglance.types import PairScore

pytestmark = pytest.mark.timeout(20)
LONG_S = 15.0
"""Longer than anything here takes: only a hang gets there."""
TOKENS = 10
"""Of a pair where the length does not matter."""


def pair(number: int, tokens: int = TOKENS) -> Pair:
    encoded = Encoded(np.zeros(tokens, np.int64), np.zeros((3, tokens), np.int64))
    return Pair(place=number, encoded=encoded, images=(), videos=())


def answers(batch: Sequence[Pair]) -> list[PairScore]:
    """Says of each pair which one it was."""
    return [PairScore(score=0.5, log_odds=float(made.place)) for made in batch]


def numbers(scores: Sequence[PairScore]) -> list[float | None]:
    return [score.log_odds for score in scores]


class Device:
    """A runner that records its batches, and holds the first until `go` is set."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[Pair]] = []
        self.started = threading.Event()
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, batch: Sequence[Pair]) -> list[PairScore]:
        self.batches.append(list(batch))
        self.started.set()
        assert self.go.wait(LONG_S)
        return answers(batch)

    @property
    def places(self) -> list[list[int]]:
        return [[made.place for made in batch] for batch in self.batches]


Open = Callable[..., Scheduler]


@pytest.fixture
def start() -> Iterator[Open]:
    """Makes schedulers that are closed after the test, once its devices have let go."""
    with ExitStack() as opened:

        def scheduler(*runners: Runner, batch_tokens: int = 80, wait_ms: float = 2.0) -> Scheduler:
            made = Scheduler(runners, batch_tokens=batch_tokens, wait_ms=wait_ms)
            opened.callback(made.close, timeout_s=LONG_S)
            return made

        yield scheduler


@pytest.fixture
def device() -> Iterator[Device]:
    """A device whose first batch waits for `go`."""
    made = Device(held=True)
    yield made
    made.go.set()


def occupy(scheduler: Scheduler, device: Device, **options: Any) -> Job:
    """Has the device busy with one pair, number -1."""
    job = scheduler.submit([pair(-1)], **options)
    assert device.started.wait(LONG_S)
    return job


# Who gets what


def test_scores_come_in_the_order_submitted(start: Open) -> None:
    lengths = random.Random(1).choices(range(1, 60), k=200)
    pairs = [pair(number, tokens) for number, tokens in enumerate(lengths)]
    scheduler = start(Device())
    job = scheduler.submit(pairs)
    assert numbers(job.result(LONG_S)) == list(range(200))
    assert job.done
    assert not job.cancel()  # too late
    assert numbers(job.result(0)) == list(range(200))
    assert scheduler.submit([]).result(0) == []


def test_threads_share_batches_and_each_gets_its_own_scores(start: Open, device: Device) -> None:
    scheduler = start(device)
    occupy(scheduler, device)
    submitted = threading.Barrier(9)

    def call(thread: int) -> list[float | None]:
        job = scheduler.submit([pair(2 * thread), pair(2 * thread + 1)])
        submitted.wait(LONG_S)
        return numbers(job.result(LONG_S))

    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(call, thread) for thread in range(8)]
        submitted.wait(LONG_S)
        device.go.set()
        found = [done.result(LONG_S) for done in calls]
    assert found == [[2 * thread, 2 * thread + 1] for thread in range(8)]
    assert [len(batch) for batch in device.batches] == [1, 8, 8]


def test_an_idle_device_waits_for_company_until_the_batch_is_full(start: Open) -> None:
    device = Device()
    # Were the wait not cut short by the full batch, the jobs would time out.
    scheduler = start(device, batch_tokens=3 * TOKENS, wait_ms=10_000 * LONG_S)
    jobs = [scheduler.submit([pair(number)]) for number in range(2)]
    assert not device.started.wait(0.1)
    jobs.append(scheduler.submit([pair(2)]))
    assert [numbers(job.result(LONG_S)) for job in jobs] == [[0], [1], [2]]
    assert device.places == [[0, 1, 2]]


def batches(pairs: Sequence[Pair], batch_tokens: int) -> Iterator[list[Pair]]:
    """Pairs of like length, longest first, within the budget of padded tokens."""
    batch: list[Pair] = []
    for made in sorted(pairs, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(made)
    if batch:
        yield batch


@pytest.mark.parametrize("seed", range(5))
def test_one_job_is_packed_as_batches_are(seed: int, start: Open) -> None:
    chance = random.Random(seed)
    # Longer than the budget, equal, and empty ones too.
    pairs = [pair(number, chance.choice([0, 1, 7, 30, 90, 250])) for number in range(60)]
    device = Device()
    start(device, batch_tokens=200).submit(pairs).result(LONG_S)
    expected = [[made.place for made in batch] for batch in batches(pairs, 200)]
    assert len(expected) > 5
    assert device.places == expected


def test_company_is_of_like_length_where_there_is_some(start: Open, device: Device) -> None:
    scheduler = start(device, batch_tokens=300)
    occupy(scheduler, device)
    long = scheduler.submit([pair(number, 100 - number) for number in range(4)])
    short = scheduler.submit([pair(10 + number, 5) for number in range(60)])
    device.go.set()
    long.result(LONG_S)
    short.result(LONG_S)
    assert device.places[1] == [0, 1, 2]
    assert {len(made) for made in device.batches[2]} == {5}


# Fairness


def test_a_long_job_does_not_starve_a_short_one(start: Open, device: Device) -> None:
    scheduler = start(device)
    occupy(scheduler, device)
    long = scheduler.submit([pair(number, 10) for number in range(1000)])
    short = scheduler.submit([pair(5000, 9), pair(5001, 3)])
    device.go.set()
    assert numbers(short.result(LONG_S)) == [5000, 5001]
    assert numbers(long.result(LONG_S)) == list(range(1000))
    company = [at for at, places in enumerate(device.places) if {5000, 5001} & set(places)]
    assert max(company) <= 2  # the busy one, the long job's turn, the short job's turn


def test_a_job_of_middling_length_gets_its_share(start: Open, device: Device) -> None:
    """Turns alone would give it one pair in two batches."""
    scheduler = start(device, batch_tokens=80)
    occupy(scheduler, device)
    scheduler.submit([pair(number, 10) for number in range(400)])
    middling = scheduler.submit([pair(1000 + number, 10) for number in range(40)])
    device.go.set()
    middling.result(LONG_S)
    shares = [sum(place >= 1000 for place in places) for places in device.places[1:]]
    assert shares[:10] == [4] * 10


def test_keys_never_share_a_batch_and_alternate(start: Open, device: Device) -> None:
    scheduler = start(device, wait_ms=0)
    occupy(scheduler, device, key="busy")
    one = scheduler.submit([pair(number) for number in range(24)], key="one")
    two = scheduler.submit([pair(100 + number) for number in range(12)], key="two")
    rest = scheduler.submit([pair(200), pair(201)])
    again = scheduler.submit([pair(110 + 2), pair(110 + 3)], key="two")
    device.go.set()
    assert numbers(one.result(LONG_S)) == list(range(24))
    assert numbers(two.result(LONG_S)) == list(range(100, 112))
    assert numbers(rest.result(LONG_S)) == [200, 201]
    assert numbers(again.result(LONG_S)) == [112, 113]
    hundreds = [sorted({place // 100 for place in places}) for places in device.places[1:]]
    # Equal keys do share: 12 + 2 pairs are two batches of at most 8.
    assert hundreds == [[0], [1], [2], [0], [1], [0]]


# Several devices


def test_two_devices_work_at_the_same_time(start: Open) -> None:
    together = threading.Barrier(2)
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)

    def runner(number: int) -> Runner:
        def run(batch: Sequence[Pair]) -> list[PairScore]:
            places = seen[number, batch[0].place // 100]
            if not places:
                together.wait(LONG_S)  # breaks if the other device has no batch of this job
            places.extend(made.place for made in batch)
            return answers(batch)

        return run

    scheduler = start(runner(0), runner(1))
    for hundreds in (0, 100, 200):  # the second time they come from their wait
        wanted = list(range(hundreds, hundreds + 40))
        job = scheduler.submit([pair(number) for number in wanted])
        assert numbers(job.result(LONG_S)) == wanted
        parts = [seen[number, hundreds // 100] for number in range(2)]
        assert sorted(parts[0] + parts[1]) == wanted
        time.sleep(0.02)


def test_a_free_device_takes_what_a_busy_one_cannot(start: Open, device: Device) -> None:
    other = Device(held=True)
    scheduler = start(device, other)
    busy = [scheduler.submit([pair(-1)], key=key) for key in "ab"]
    assert device.started.wait(LONG_S)
    assert other.started.wait(LONG_S)
    job = scheduler.submit([pair(number) for number in range(32)])
    other.go.set()
    assert numbers(job.result(LONG_S)) == list(range(32))
    assert device.places == [[-1]]
    assert len(other.places) == 1 + 4
    assert sorted(made.done for made in busy) == [False, True]


# Failure, timeout, cancellation


def test_a_failing_batch_fails_its_jobs_only(start: Open, device: Device) -> None:
    trouble = ValueError("number 13")

    def run(batch: Sequence[Pair]) -> list[PairScore]:
        device(batch)
        if any(made.place == 13 for made in batch):
            raise trouble
        return answers(batch)

    scheduler = start(run)
    occupy(scheduler, device, key="busy")
    bad = scheduler.submit([pair(number, 10) for number in range(12, 32)], key="shared")
    company = scheduler.submit([pair(100, 10)], key="shared")
    other = scheduler.submit([pair(200)], key="other")
    device.go.set()
    for job in (bad, company):
        with pytest.raises(ValueError, match="number 13") as caught:
            job.result(LONG_S)
        assert caught.value is trouble
    assert numbers(other.result(LONG_S)) == [200]
    assert numbers(scheduler.submit([pair(300)], key="shared").result(LONG_S)) == [300]
    ran = [place for places in device.places for place in places]
    assert 31 not in ran  # no device works for a job that has failed


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_a_worker_outlives_any_error(error: type[BaseException], start: Open) -> None:
    raised: list[BaseException] = []

    def run(batch: Sequence[Pair]) -> list[PairScore]:
        if not raised:
            raised.append(error())
            raise raised[0]
        return answers(batch)

    scheduler = start(run)
    with pytest.raises(error):
        scheduler.submit([pair(0)]).result(LONG_S)
    assert numbers(scheduler.submit([pair(1)]).result(LONG_S)) == [1]


def test_a_wrong_number_of_scores_is_an_error(start: Open) -> None:
    scheduler = start(lambda batch: answers(batch)[1:])
    with pytest.raises(RerankError, match="2 pairs got 1 scores"):
        scheduler.submit([pair(0), pair(1)]).result(LONG_S)


def test_a_timeout_says_how_far_it_came_and_the_job_goes_on(start: Open, device: Device) -> None:
    scheduler = start(device)
    job = scheduler.submit([pair(0), pair(1)])
    with pytest.raises(RerankError, match=r"2 of 2 pairs have no score after 0\.05 s"):
        job.result(0.05)
    assert not job.done
    device.go.set()
    assert numbers(job.result(LONG_S)) == [0, 1]


def test_a_cancelled_job_never_reaches_a_device(start: Open, device: Device) -> None:
    scheduler = start(device)
    occupy(scheduler, device)
    job = scheduler.submit([pair(number) for number in range(20)])
    other = scheduler.submit([pair(100)])
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(job.result, LONG_S) for _ in range(2)]
        assert job.cancel()
        for call in waiting:
            with pytest.raises(RerankError, match="cancelled"):
                call.result(LONG_S)
    assert not job.cancel()
    device.go.set()
    assert numbers(other.result(LONG_S)) == [100]
    assert device.places == [[-1], [100]]


def test_a_job_cancelled_on_the_device_loses_its_scores_and_harms_nobody(
    start: Open, device: Device
) -> None:
    scheduler = start(device, batch_tokens=2 * TOKENS, wait_ms=1000 * LONG_S)
    cancelled, company = scheduler.submit([pair(0)]), scheduler.submit([pair(1)])
    assert device.started.wait(LONG_S)
    assert cancelled.cancel()
    device.go.set()
    assert numbers(company.result(LONG_S)) == [1]
    with pytest.raises(RerankError, match="cancelled"):
        cancelled.result(0)


# The end


def test_close_fails_what_waits_and_finishes_what_runs(start: Open, device: Device) -> None:
    scheduler = start(device)
    running = occupy(scheduler, device)
    waiting = scheduler.submit([pair(number) for number in range(3)])
    with ThreadPoolExecutor(2) as threads:
        call = threads.submit(waiting.result, LONG_S)
        closing = threads.submit(scheduler.close)
        with pytest.raises(RerankError, match="closed before 3 of 3 pairs had started"):
            call.result(LONG_S)
        assert not closing.done()  # there is a batch on the device
        device.go.set()
        closing.result(LONG_S)
    assert numbers(running.result(0)) == [-1]
    assert device.places == [[-1]]
    with pytest.raises(RerankError, match="the scheduler is closed"):
        scheduler.submit([pair(0)])
    scheduler.close()


def test_close_waits_no_longer_than_told(start: Open, device: Device) -> None:
    scheduler = start(device)
    job = occupy(scheduler, device)
    scheduler.close(timeout_s=0.05)
    assert not job.done
    device.go.set()
    assert numbers(job.result(LONG_S)) == [-1]


def new_threads(before: set[threading.Thread]) -> set[threading.Thread]:
    return set(threading.enumerate()) - before


def test_threads_start_with_the_first_job_and_end_with_close() -> None:
    before = set(threading.enumerate())
    with Scheduler([Device(), Device()], batch_tokens=100) as scheduler:
        assert not new_threads(before)
        scheduler.submit([pair(0)]).result(LONG_S)
        assert len(new_threads(before)) == 2
        assert all(thread.daemon for thread in new_threads(before))
    assert not new_threads(before)


class Owner:
    """As an engine: its scheduler refers to it, and it to the scheduler."""

    def __init__(self) -> None:
        self.scheduler = Scheduler([self.run], batch_tokens=100)

    def run(self, batch: Sequence[Pair]) -> list[PairScore]:
        if any(made.place < 0 for made in batch):
            raise ValueError("below zero")
        return answers(batch)


def test_an_owner_that_nobody_needs_is_collected_with_its_thread() -> None:
    before = set(threading.enumerate())
    owner = Owner()
    assert numbers(owner.scheduler.submit([pair(0)]).result(LONG_S)) == [0]
    gone = weakref.ref(owner)
    threads = new_threads(before)
    assert len(threads) == 1
    del owner
    for thread in threads:
        # The worker may still be on its way from the last batch to its wait.
        for _ in range(int(LONG_S / 0.05)):
            gc.collect()
            thread.join(0.05)
            if not thread.is_alive():
                break
    assert gone() is None
    assert not new_threads(before)


def test_a_job_keeps_its_scheduler_until_it_is_done() -> None:
    device = Device(held=True)
    job = Scheduler([device], batch_tokens=100).submit([pair(5)])
    assert device.started.wait(LONG_S)
    gc.collect()
    device.go.set()
    assert numbers(job.result(LONG_S)) == [5]


def test_a_failed_job_is_freed_without_the_garbage_collector() -> None:
    """Its error's traceback must not refer back to it: pixels would stay on the device."""
    owner = Owner()
    job = owner.scheduler.submit([pair(-5)])
    for _ in range(2):
        with suppress(ValueError):
            job.result(LONG_S)
    assert job.done
    owner.scheduler.close()
    gone = weakref.ref(job)
    gc.disable()
    try:
        del job
        assert gone() is None
    finally:
        gc.enable()


def test_unusable_settings_are_refused() -> None:
    for number in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=f"wait_ms is {number}"):
            Scheduler([answers], batch_tokens=1, wait_ms=number)
    with pytest.raises(InputError, match="batch_tokens is 0"):
        Scheduler([answers], batch_tokens=0)
    with pytest.raises(InputError, match="no runners"):
        Scheduler([], batch_tokens=1)


def test_many_threads_and_devices_lose_and_mix_up_nothing(start: Open) -> None:
    devices = [Device(), Device(), Device()]
    scheduler = start(*devices, batch_tokens=120, wait_ms=0.1)

    def call(thread: int) -> None:
        chance = random.Random(thread)
        for turn in range(15):
            wanted = [1000 * thread + 50 * turn + number for number in range(chance.randint(1, 30))]
            pairs = [pair(number, chance.randint(1, 60)) for number in wanted]
            job = scheduler.submit(pairs, key=chance.choice([None, "a", "b", thread]))
            if chance.random() < 0.2 and job.cancel():
                with pytest.raises(RerankError, match="cancelled"):
                    job.result(LONG_S)
            else:
                assert numbers(job.result(LONG_S)) == wanted

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(call, thread) for thread in range(8)]:
            done.result(LONG_S)
    shared = [batch for device in devices for batch in device.batches]
    assert any(len({made.place // 1000 for made in batch}) > 1 for batch in shared)
    for batch in shared:
        lengths = [len(made) for made in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] * len(lengths) <= 120
