"""The circuit breaker, by a clock that the tests turn."""

from __future__ import annotations

from secondglance.rerank.breaker import Breaker


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def call(breaker: Breaker, *, healthy: bool | None) -> bool:
    """Whether the call was let through."""
    permit = breaker.enter()
    if permit is None:
        return False
    breaker.leave(permit, healthy=healthy)
    return True


def test_failures_in_a_row_open_it_and_one_trial_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(failures=3, pause_s=10, clock=clock)
    for healthy in (False, False, True, False, False):  # a success between starts the count anew
        assert call(breaker, healthy=healthy)
    assert breaker.failed == 2
    assert breaker.left_s == 0
    assert call(breaker, healthy=False)
    assert not call(breaker, healthy=True)
    assert breaker.left_s == 10
    clock.now_s += 9.9
    assert not call(breaker, healthy=True)
    clock.now_s += 0.1
    trial = breaker.enter()
    assert trial is not None
    assert breaker.enter() is None  # only one trial at a time
    breaker.leave(trial, healthy=False)
    assert breaker.left_s == 10
    clock.now_s += 10
    assert call(breaker, healthy=True)
    assert breaker.failed == 0
    assert call(breaker, healthy=False)  # closed again: a single failure does not matter
    assert breaker.left_s == 0


def test_a_call_that_says_nothing_neither_opens_nor_closes() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, pause_s=10, clock=clock)
    assert call(breaker, healthy=None)
    assert call(breaker, healthy=False)
    clock.now_s += 10
    assert call(breaker, healthy=None)  # a trial that was broken off leaves room for another
    assert call(breaker, healthy=True)
    assert breaker.failed == 0


def test_calls_from_before_the_pause_do_not_decide() -> None:
    clock = Clock()
    breaker = Breaker(failures=1, pause_s=10, clock=clock)
    early, late = breaker.enter(), breaker.enter()
    assert early is not None
    assert late is not None
    breaker.leave(early, healthy=False)
    breaker.leave(late, healthy=True)
    assert breaker.left_s == 10
