"""An evaluation of a small generated library: every system, what it costs, and fits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from secondglance.evaluation import metrics
from secondglance.evaluation.types import EvaluationQuery
from secondglance.library import Library
from secondglance.pipelines.evaluate_run import Progress
from tests.second_passes import Asked, Quick, documents, probability

SYSTEMS = ("bm25", "clip", "clip+bm25", "rerank", "fusion")


def test_every_system_is_the_search_that_it_says(
    library: Library, asked: Asked, quick: Quick, scenes: Path
) -> None:
    found = library.evaluate(*asked, systems=SYSTEMS, curves=False)
    assert [run.name for run in found.systems] == list(SYSTEMS)
    assert found.baseline == "clip"
    assert set(found.queries) == {query.id for query in asked[0]}
    root = scenes / "media"
    for query in asked[0]:
        for system, rerank, words in (
            ("clip", False, False),
            ("clip+bm25", False, True),
            ("fusion", True, True),
        ):
            hits = library.search(
                query.query, k=50, group_duplicates=False, rerank=rerank, words=words
            ).hits
            shown = [Path(hit.path).relative_to(root).as_posix() for hit in hits]
            assert documents(found, system, query.id) == shown, (system, query.id)
        by_cosine = documents(found, "clip", query.id)
        wanted = sorted(by_cosine, key=lambda name: (-_score(root, name), by_cosine.index(name)))
        assert documents(found, "rerank", query.id) == wanted
        if query.kind == "text":
            told = library._parts.words().index.search(query.query.text, limit=100)
            assert len(documents(found, "bm25", query.id)) == len(told)
    assert "bm25 answers none of the 1 queries without words" in " ".join(found.warnings)


def _score(root: Path, name: str) -> float:
    is_text = name.startswith("texts/")
    return probability((root / name).read_text("utf-8").strip() if is_text else Path(name).name)


def test_values_are_those_of_the_rankings(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(*asked, systems=["clip", "rerank"], curves=False, measures=["MRR"])
    for run in found.systems:
        for query, ranking in run.rankings.items():
            [answer] = asked[1][query]
            rank = [ranked.document for ranked in ranking].index(answer) + 1
            assert found.values[run.name]["MRR"][query] == pytest.approx(1 / rank)
            graded = [ranked.grade for ranked in ranking]
            assert graded[rank - 1] == 1
            assert graded.count(None) == len(graded) - 1
        again = metrics.compute(["MRR"], asked[1], run.run())["MRR"]
        assert again == pytest.approx(dict(found.values[run.name]["MRR"]))
    assert {each.system for each in found.differences} == {"rerank"}
    summary = next(s for s in found.summaries if s.system == "clip" and s.group == "all")
    assert summary.value.mean == pytest.approx(
        sum(found.values["clip"]["MRR"].values()) / len(asked[0])
    )
    assert found.ceiling[100].mean == 1.0
    assert found.ceiling[5].mean <= 1.0


def test_each_pair_is_scored_once_and_never_again(
    library: Library, asked: Asked, quick: Quick
) -> None:
    first = library.evaluate(*asked, systems=["rerank", "fusion"], curves=False)
    pairs = len(asked[0]) * 12
    assert len(quick.asked) == pairs
    assert {cost.system: cost.pairs for cost in first.costs} == {"rerank": pairs, "fusion": pairs}
    for cost in first.costs:
        assert cost.pairs_per_s is not None
        assert math.isfinite(cost.pairs_per_s)
        assert {"embed", "recall", "rerank", "total"} <= set(cost.stages)
        assert cost.stages["total"].median_ms >= cost.stages["rerank"].median_ms
        assert cost.peak_memory_mb is None or cost.peak_memory_mb > 10
    again = library.evaluate(*asked, systems=["rerank", "fusion"], curves=False)
    assert len(quick.asked) == pairs
    assert again.values == first.values
    assert [cost.pairs for cost in again.costs] == [0, 0]
    assert all("rerank" not in cost.stages for cost in again.costs)


def test_an_interrupted_evaluation_goes_on(library: Library, asked: Asked, quick: Quick) -> None:
    pairs = len(asked[0]) * 12
    quick.stop_after = pairs // 2
    with pytest.raises(KeyboardInterrupt):
        library.evaluate(*asked, systems=["rerank"], curves=False)
    before = len(quick.asked)
    assert pairs // 2 <= before < pairs
    quick.stop_after = None
    found = library.evaluate(*asked, systems=["rerank"], curves=False)
    assert len(quick.asked) == pairs
    assert len(set(quick.asked)) == pairs
    assert len(found.values["rerank"]["nDCG@10"]) == len(asked[0])


def test_curves_run_over_depth_and_time(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(
        *asked,
        systems=["clip", "rerank"],
        depths=(1, 4),
        recall=8,
        budgets_ms=(0.0, 60_000.0),
        budget_queries=3,
        measures=["nDCG@10", "Hit@1"],
    )
    by_depth, by_time = found.curves
    assert (by_depth.over, [point.x for point in by_depth.points]) == ("candidates", [1, 4, 8])
    assert (by_time.over, [point.x for point in by_time.points]) == ("budget_ms", [0.0, 60_000.0])
    means = {s.system: s.value.mean for s in found.summaries
             if s.group == "all" and s.measure == "nDCG@10"}  # fmt: skip
    # One candidate has no other place to go to; all of them are the system itself.
    assert by_depth.points[0].values["nDCG@10"].mean == pytest.approx(means["clip"])
    assert by_depth.points[2].values["nDCG@10"].mean == pytest.approx(means["rerank"])
    times = [point.latency_ms for point in by_depth.points]
    assert None not in times
    assert times == sorted(times, key=lambda ms: ms or 0.0)
    # Without time nothing is scored; with plenty all is, though the cache knows it. Before the
    # first run one pair makes the model ready.
    assert len(quick.asked) == len(asked[0]) * 8 + 1 + 3 * 8
    three = [query.id for query in asked[0]]
    three = [three[place * len(three) // 3] for place in range(3)]
    for point, system in zip(by_time.points, ("clip", "rerank"), strict=True):
        values = [found.values[system]["Hit@1"][name] for name in three]
        assert point.values["Hit@1"].mean == pytest.approx(sum(values) / 3)
        assert point.latency_ms is not None


def test_another_reranker_and_a_replayed_run(
    library: Library, asked: Asked, quick: Quick, untrained_reranker: Path, tmp_path: Path
) -> None:
    name, answers = next(iter(asked[1].items()))
    run = tmp_path / "golden.trec"
    run.write_text(
        f"{name} Q0 {next(iter(answers))} 1 0.5 golden\n{name} Q0 nowhere 2 0.1 golden\n"
    )
    other = f"rerank@{untrained_reranker}"
    stages: list[Progress] = []
    found = library.evaluate(
        *asked,
        systems=["clip", other, f"replay:{run}"],
        limit=2,
        recall=2,
        curves=False,
        baseline="replay:golden",
        on_progress=stages.append,
    )
    assert [run.name for run in found.systems] == ["clip", other, "replay:golden"]
    assert str(untrained_reranker) in found.systems[1].description
    assert not quick.asked
    assert {cost.system: cost.pairs for cost in found.costs} == {"clip": 0, other: 4}
    assert found.values["replay:golden"]["Hit@1"][name] == 1.0
    assert {each.baseline for each in found.differences} == {"replay:golden"}
    warnings = " ".join(found.warnings)
    assert "golden.trec has no results for 1 queries" in warnings
    assert "1 documents that the library does not know: nowhere" in warnings
    assert "2 of the" in warnings
    assert {"load", "recall", "rerank", "measure"} == {each.stage for each in stages}
    assert [p.done for p in stages if p.stage == "rerank"] == [0, 1]


def test_too_few_judgments_for_a_fit_are_said(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(*asked, systems=["clip", "fusion"], curves=False, fit=True)
    assert found.fit is None
    assert any(line.startswith("nothing was fitted: too few") for line in found.warnings)
    assert json.loads(json.dumps(dict(found.settings)))["fitted"] is False


def test_a_fit_is_kept_and_used_and_said(library: Library, asked: Asked, quick: Quick) -> None:
    texts = [query for query in asked[0] if query.kind == "text"]
    queries = [
        EvaluationQuery(id=f"{query.id}-{number}", query=query.query, kind="text")
        for number in range(24 // len(texts) + 1)
        for query in texts
    ]
    qrels = {query.id: asked[1][query.id.rpartition("-")[0]] for query in queries}
    first = library.evaluate(queries, qrels, systems=["fusion"], curves=False, fit=True)
    assert first.fit is not None
    assert first.fit["lines"]
    assert first.fit["queries"] == len(queries)
    assert Path(str(first.fit["path"])) == library.folder / "fusion.json"
    assert first.settings["fitted"] is False
    second = library.evaluate(queries, qrels, systems=["fusion"], curves=False)
    assert second.settings["fitted"] is True
    [line] = [line for line in second.warnings if "uses the fit" in line]
    assert f"from {len(queries)} queries" in line
    hits = library.search(queries[0].query, k=50, group_duplicates=False).hits
    ranking = second.systems[0].rankings[queries[0].id]
    # Each of the same score is lower by a hair, so that trec_eval keeps their order.
    assert [each.score for each in ranking] == pytest.approx([h.score for h in hits], abs=1e-4)
