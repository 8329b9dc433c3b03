"""When a second server is asked, and how often that is allowed."""

from __future__ import annotations

from secondglance.rerank.hedging import BURST, LEAST_ANSWERS, Hedging


def test_the_delay_is_what_95_of_100_answers_take() -> None:
    hedging = Hedging(share=0.1)
    for place in range(100):
        hedging.note("a", 4, place / 100)
    assert hedging.delay_s("b", 4) == 0.95
    assert hedging.delay_s("b", 7) == 0.95  # of about that size
    assert hedging.delay_s("b", 8) is None  # of another


def test_a_slow_server_is_not_its_own_measure() -> None:
    hedging = Hedging(share=0.1)
    for _ in range(LEAST_ANSWERS):
        hedging.note("quick", 1, 0.1)
        hedging.note("slow", 1, 5.0)
    assert hedging.delay_s("slow", 1) == 0.1
    assert hedging.delay_s("quick", 1) == 5.0


def test_too_few_answers_tell_nothing() -> None:
    hedging = Hedging(share=0.1)
    for place in range(LEAST_ANSWERS):
        assert hedging.delay_s("b", 1) is None
        hedging.note("a", 1, place)
    assert hedging.delay_s("b", 1) is not None


def test_second_questions_are_a_bounded_share() -> None:
    hedging = Hedging(share=0.1)
    for _ in range(1000):
        hedging.ask()
        hedging.take()
    assert hedging.asked == 1000
    assert 99 <= hedging.hedged <= 101


def test_what_was_saved_up_is_bounded_too() -> None:
    hedging = Hedging(share=0.5)
    for _ in range(1000):
        hedging.ask()
    assert [hedging.take() for _ in range(10)].count(True) == BURST


def test_a_share_of_nothing_never_hedges() -> None:
    hedging = Hedging(share=0.0)
    for _ in range(100):
        hedging.ask()
        hedging.note("a", 1, 0.1)
    assert hedging.delay_s("b", 1) is None
