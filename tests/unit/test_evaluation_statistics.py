from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from secondglance.errors import InputError
from secondglance.evaluation import statistics
from secondglance.evaluation.judgments import described
from secondglance.evaluation.types import Interval
from secondglance.types import Query


def test_an_interval_is_the_percentile_bootstraps() -> None:
    values = np.random.default_rng(1).random(80)
    found = statistics.interval(values)
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(5), n_resamples=20_000
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(reference), abs=0.005)
    assert found == statistics.interval(list(values))


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert statistics.interval([0.1] * 7) == Interval(mean=0.1, low=0.1, high=0.1)
    assert statistics.interval([True]) == Interval(mean=1, low=1, high=1)


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    spans = [statistics.interval(rng.random(60) < 0.3) for _ in range(100)]
    covered = sum(span.low <= 0.3 <= span.high for span in spans)
    assert 88 <= covered <= 99


def test_without_values_there_is_no_interval() -> None:
    with pytest.raises(InputError, match="no queries"):
        statistics.interval([])
    with pytest.raises(InputError, match="3 and 2 values are no pairs"):
        statistics.paired([1, 2, 3], [1, 2])


def test_few_pairs_are_tested_exactly() -> None:
    a = np.array([0.9, 0.4, 0.8, 0.7, 0.5, 0.6, 0.2])
    b = np.array([0.5, 0.5, 0.3, 0.1, 0.5, 0.2, 0.1])
    found = statistics.paired(a, b)
    reference = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert found.p_value == pytest.approx(reference.pvalue)
    assert (found.wins, found.losses) == (5, 1)
    assert found.value.mean == pytest.approx((a - b).mean())
    assert found.value == statistics.interval(a - b)


def test_the_smallest_p_value_of_five_pairs() -> None:
    assert statistics.paired([1] * 5, [0] * 5).p_value == 2 / 2**5
    # Pairs without a difference say nothing either way.
    assert statistics.paired([1] * 5 + [0] * 40, [0] * 45).p_value == 2 / 2**5


def test_many_pairs_are_tested_by_draws() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(60) + 0.06, rng.random(60)
    found = statistics.paired(a, b)
    reference = stats.permutation_test(
        (a - b,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        rng=np.random.default_rng(4),
    )
    assert 0.05 < found.p_value < 0.95
    assert found.p_value == pytest.approx(reference.pvalue, abs=0.02)
    assert found == statistics.paired(a, b)
    assert statistics.paired(b, a).p_value == found.p_value


def test_a_plain_difference_has_the_smallest_p_value_that_draws_can_give() -> None:
    assert statistics.paired(np.ones(40), np.zeros(40)).p_value == 1e-4


def test_equal_values_differ_in_nothing() -> None:
    found = statistics.paired([0.1 + 0.2, 0.5], [0.3, 0.5])
    assert (found.p_value, found.wins, found.losses) == (1.0, 0, 0)


def test_holm() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


QUERIES = {
    query.id: query
    for query in (
        described("1", Query(text="a red bus"), language="en"),
        described("2", Query(text="a bus on a long road"), language="en"),
        described("3", Query(text="红色的车"), language="zh"),
        described("4", Query(image="bus.jpg")),
    )
}


def values(*found: float) -> dict[str, float]:
    return dict(zip(QUERIES, found, strict=True))


VALUES = {
    "clip": {"MRR": values(0.5, 0.25, 1, 1), "Hit@1": values(0, 0, 1, 1)},
    "bm25": {"MRR": values(1, 0.25, 0.5, 0), "Hit@1": values(1, 0, 0, 0)},
    "rerank": {"MRR": values(1, 0.5, 1, 1), "Hit@1": values(1, 0, 1, 1)},
}


def test_groups() -> None:
    assert statistics.groups(QUERIES) == {
        "all": ("1", "2", "3", "4"),
        "language=en": ("1", "2"),
        "language=zh": ("3",),
        "kind=image": ("4",),
        "kind=text": ("1", "2", "3"),
        "length=1-3": ("1", "3"),
        "length=4-8": ("2",),
    }


def test_summaries_are_of_every_group_system_and_measure() -> None:
    found = statistics.summaries(VALUES, QUERIES)
    assert len(found) == 7 * 3 * 2
    by_place = {(row.group, row.system, row.measure): row for row in found}
    row = by_place["language=en", "rerank", "MRR"]
    assert row.queries == 2
    assert row.value == statistics.interval([1, 0.5])
    assert by_place["all", "clip", "Hit@1"].value.mean == 0.5
    assert [row.system for row in found[:6:2]] == ["clip", "bm25", "rerank"]


def test_differences_are_to_the_baseline_over_the_same_queries() -> None:
    found = statistics.differences(VALUES, QUERIES, baseline="clip")
    by_place = {(row.group, row.system, row.measure): row for row in found}
    assert {row.group for row in found} == {"all", "language=en", "kind=text", "length=1-3"}
    assert {row.system for row in found} == {"bm25", "rerank"}
    row = by_place["all", "bm25", "MRR"]
    pair = statistics.paired([1, 0.25, 0.5, 0], [0.5, 0.25, 1, 1])
    assert (row.value, row.p_value, row.wins, row.losses) == (pair.value, pair.p_value, 1, 2)
    assert (row.baseline, row.queries) == ("clip", 4)
    both = [by_place["all", name, "MRR"] for name in ("bm25", "rerank")]
    assert [row.p_adjusted for row in both] == statistics.holm([row.p_value for row in both])


def test_one_system_differs_from_nothing() -> None:
    assert statistics.differences({"clip": VALUES["clip"]}, QUERIES, baseline="clip") == ()


def test_the_baseline_must_be_a_system() -> None:
    with pytest.raises(InputError, match="'fusion' is none of the systems"):
        statistics.differences(VALUES, QUERIES, baseline="fusion")


def test_many_queries_are_drawn_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.random(50), rng.random(50)
    whole = statistics.paired(a, b)
    monkeypatch.setattr(statistics, "CHUNK_ELEMENTS", 50 * 300)
    parts = statistics.paired(a, b)
    assert parts.p_value == whole.p_value
    assert parts.value.low == pytest.approx(whole.value.low)
