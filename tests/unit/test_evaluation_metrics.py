from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import judgments, metrics
from secondglance.evaluation.tables import TERMINAL_MEASURES

SHARED = Path(os.environ.get("SECONDGLANCE_SHARED", Path(__file__).parents[3] / "shared"))
OFFICIAL = SHARED / "data" / "qrels" / "trec_eval_official"
EDGES = SHARED / "data" / "qrels" / "edge_cases"
official = pytest.mark.skipif(
    not OFFICIAL.is_dir(), reason=f"no files of trec_eval at {OFFICIAL}; set SECONDGLANCE_SHARED"
)
edges = pytest.mark.skipif(
    not EDGES.is_dir(), reason=f"no edge cases at {EDGES}; set SECONDGLANCE_SHARED"
)

PREFIXES = {
    "ndcg_cut": "nDCG",
    "success": "Hit",
    "recall": "Recall",
    "P": "Precision",
    "map_cut": "MAP",
}
WHOLE = {"ndcg": "nDCG", "recip_rank": "MRR", "map": "MAP", "Rprec": "Rprec", "bpref": "Bpref"}


def expected(path: Path) -> Iterator[tuple[str, str, str]]:
    """Measure as the tables show it, query and value as trec_eval printed it."""
    for line in path.read_text("utf-8").splitlines():
        name, query, value = line.split()
        family, _, cutoff = name.rpartition("_")
        if name in WHOLE:
            yield WHOLE[name], query, value
        elif family in PREFIXES and cutoff.isdigit():
            yield f"{PREFIXES[family]}@{cutoff}", query, value


def assert_equal_to(reference: Path, qrels_file: Path, run_file: Path, *, complete: bool) -> int:
    """Every value of every measure that both have, to four decimals; how many."""
    qrels, _ = judgments.read_qrels(qrels_file)
    run, _ = judgments.read_run(run_file)
    rows = list(expected(reference))
    values = metrics.compute(list(dict.fromkeys(name for name, _, _ in rows)), qrels, run)
    counted = [query for query in qrels if complete or query in run]
    for name, query, value in rows:
        if query == "all":
            mine = sum(values[name][id] for id in counted) / len(counted)
        else:
            mine = values[name][query]
        assert f"{mine:.4f}" == value, (name, query)
    return len(rows)


@official
@pytest.mark.parametrize(
    ("reference", "run", "complete"),
    [
        ("out.test", "results.test", False),
        ("out.test.a", "results.test", False),
        ("out.test.aq", "results.test", False),
        ("out.test.aqc", "results.trunc", True),
        ("out.test.meas_params", "results.test", False),
    ],
)
def test_values_are_those_of_trec_eval(reference: str, run: str, complete: bool) -> None:
    files = OFFICIAL / reference, OFFICIAL / "qrels.test", OFFICIAL / run
    assert assert_equal_to(*files, complete=complete) >= 12


@official
def test_every_default_measure_is_compared_with_trec_eval() -> None:
    names = {name for name, _, _ in expected(OFFICIAL / "out.test.aq")}
    # These two are not printed there, but they are printed for the edge cases, or as success_1.
    assert set(metrics.DEFAULT_MEASURES) - names == {"Recall@1", "Recall@50"}


@edges
@pytest.mark.parametrize(("name", "complete"), [("reference", False), ("reference_c", True)])
def test_edge_cases_are_those_of_trec_eval(name: str, complete: bool) -> None:
    files = EDGES / f"{name}.txt", EDGES / "qrels.txt", EDGES / "run.txt"
    assert assert_equal_to(*files, complete=complete) >= 60


def test_values_by_the_formulas() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 0, "d": -1}}
    run = {"q": {"c": 4.0, "b": 3.0, "d": 2.0, "a": 1.0}}
    names = ["nDCG@3", "nDCG", "Hit@1", "Hit@2", "Recall@2", "Recall@50", "MRR", "MAP"]
    values = {name: found["q"] for name, found in metrics.compute(names, qrels, run).items()}
    ideal = 2 + 1 / math.log2(3)
    assert values == pytest.approx(
        {
            "nDCG@3": 1 / math.log2(3) / ideal,
            "nDCG": (1 / math.log2(3) + 2 / math.log2(5)) / ideal,
            "Hit@1": 0,
            "Hit@2": 1,
            "Recall@2": 0.5,
            "Recall@50": 1,
            "MRR": 0.5,
            "MAP": (1 / 2 + 2 / 4) / 2,
        }
    )


def test_judged_queries_without_results_or_relevant_documents_are_zero() -> None:
    qrels = {"answered": {"a": 1}, "silent": {"a": 1}, "empty": {"a": 1}, "hopeless": {"a": 0}}
    run = {"answered": {"a": 1.0}, "empty": {}, "hopeless": {"a": 1.0}, "unjudged": {"a": 1.0}}
    values = metrics.compute(["MRR", "Recall@5"], qrels, run)
    zero = {"answered": 1.0, "silent": 0.0, "empty": 0.0, "hopeless": 0.0}
    assert values == {"MRR": zero, "Recall@5": zero}
    assert metrics.means(values) == {"MRR": 0.25, "Recall@5": 0.25}


def test_without_judgments_there_are_no_values() -> None:
    assert metrics.compute(["MRR"], {}, {"q": {"a": 1.0}}) == {"MRR": {}}
    assert metrics.means({"MRR": {}}) == {"MRR": 0.0}


def test_ties_go_by_id_last_first_also_where_single_precision_makes_them() -> None:
    qrels = {"q": {"a": 1}}
    assert metrics.compute(["MRR"], qrels, {"q": {"a": 1.0, "b": 1.0}})["MRR"]["q"] == 0.5
    near = {"q": {"a": 1 + 1e-9, "b": 1.0}}
    assert metrics.compute(["MRR"], qrels, near)["MRR"]["q"] == 0.5


def test_falling_scores_keep_a_systems_own_order() -> None:
    ranking = [f"{number:05}" for number in range(20_000)]
    scores = metrics.falling([*ranking, ranking[0]])
    assert list(scores) == ranking
    qrels = {"q": {ranking[-1]: 1}, "first": {ranking[0]: 1}}
    values = metrics.compute(["MRR"], qrels, {"q": scores, "first": scores})["MRR"]
    assert values == {"q": pytest.approx(1 / 20_000), "first": 1.0}


def test_mrr_with_a_cut_off_is_as_the_formula_and_keeps_ties() -> None:
    ranking = [f"{number:05}" for number in range(10_000)]
    ranks = (1, 3, 9, 10, 11, 49, 9_999, 10_000)
    qrels = {str(rank): {ranking[rank - 1]: 1} for rank in ranks} | {"none": {"other": 1}}
    run = {query: metrics.falling(ranking) for query in qrels}
    values = metrics.compute(["MRR@10", "MRR", "rr@9999", "MRR@10000"], qrels, run)
    for name, cutoff in (("MRR@10", 10), ("MRR", 10_000), ("MRR@9999", 9_999)):
        expected = {str(rank): 1 / rank if rank <= cutoff else 0.0 for rank in ranks}
        assert values[name] == pytest.approx(expected | {"none": 0.0})
    assert values["MRR@10000"] == values["MRR"]
    tied = metrics.compute(["MRR@1", "MRR@2"], {"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}})
    assert tied == {"MRR@1": {"q": 0.0}, "MRR@2": {"q": 0.5}}


def test_ceiling_is_recall_at_each_depth() -> None:
    qrels = {"q": {"a": 1, "c": 2, "z": 1, "b": 0}, "none": {"a": 1}}
    run = {"q": metrics.falling(["a", "b", "c"])}
    found = metrics.ceiling(qrels, run, (3, 1, 3))
    assert found == {
        1: {"q": pytest.approx(1 / 3), "none": 0.0},
        3: {"q": pytest.approx(2 / 3), "none": 0.0},
    }
    with pytest.raises(InputError, match="cut-off must be in"):
        metrics.ceiling(qrels, run, [0])


def test_ids_that_are_no_utf8_do_no_harm() -> None:
    odd = "bad\udcff.jpg"
    values = metrics.compute(["MRR"], {odd: {odd: 1, "é": 0}}, {odd: {"é": 2.0, odd: 1.0}})
    assert values == {"MRR": {odd: 0.5}}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("ndcg@5", "nDCG@5"),
        ("Success@1", "Hit@1"),
        ("HIT@1", "Hit@1"),
        ("R@10", "Recall@10"),
        ("recall@10", "Recall@10"),
        ("RR", "MRR"),
        ("mrr", "MRR"),
        ("ap", "MAP"),
        ("MAP@10", "MAP@10"),
        (" p@05 ", "Precision@5"),
    ],
)
def test_names_of_measures(written: str, shown: str) -> None:
    assert metrics.known_measure(written) == shown
    assert [*metrics.compute([written, shown], {"q": {"a": 1}}, {})] == [shown]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("nDGC@5", r"no measure 'nDGC@5' \(did you mean nDCG\?"),
        ("recal@5", "did you mean Recall@10"),
        ("quality", "there are nDCG, Hit@10"),
        ("", "there is no measure ''"),
        ("Hit", "Hit needs a cut-off"),
        ("Rprec@10", "Rprec has no cut-off"),
        ("RR@0", r"must be in 1\.\.10000"),
        ("nDCG@0", r"must be in 1\.\.10000"),
        ("nDCG@99999", r"must be in 1\.\.10000"),
        ("nDCG@x", "no measure 'nDCG@x'"),
    ],
)
def test_names_that_are_no_measure(written: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.compute([written], {"q": {"a": 1}}, {})


def test_default_measures_are_known_by_these_names() -> None:
    assert metrics.known_measures(metrics.DEFAULT_MEASURES * 2) == metrics.DEFAULT_MEASURES


def test_the_terminal_shows_measures_that_are_computed() -> None:
    assert set(TERMINAL_MEASURES) <= set(metrics.DEFAULT_MEASURES)
