"""Systems by name, and the order that each gives to candidates."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import metrics
from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines.evaluate_cost import Tally, cut_ms, median_ms, sample, timing
from secondglance.pipelines.evaluate_order import signals_of
from secondglance.pipelines.evaluate_recall import Found
from secondglance.pipelines.evaluate_rerank import Looked
from secondglance.pipelines.second_pass import Candidate, SecondPass
from secondglance.pipelines.systems import (
    System,
    beyond,
    by_both,
    by_cosine,
    by_probability,
    by_words,
    parse_systems,
    ranked,
    replayed,
)
from secondglance.types import Kind, Match, Moment, PairScore, Query


def candidate(
    name: str,
    cosine: float,
    *,
    item: str = "",
    kind: Kind = "image",
    lexical: float | None = None,
    fused: float | None = None,
    moments: tuple[Moment, ...] = (),
) -> Candidate:
    return Candidate(
        match=Match(id=name, score=cosine, payload={"item": item or name, "kind": kind}),
        paths=(f"/media/{name}",),
        moments=moments,
        lexical_score=lexical,
        fused_score=fused,
    )


LISTED = [candidate("a", 0.9), candidate("b", 0.8), candidate("c", 0.7), candidate("d", 0.6)]


def order(places: object) -> list[str]:
    found = ranked(places, name=str.upper, grades={}, depth=100)  # type: ignore[arg-type]
    return [each.document for each in found]


def test_names_are_parsed(tmp_path: Path) -> None:
    run = tmp_path / "other.trec"
    run.write_text("q Q0 d 1 1.0 x\n")
    found = parse_systems(["clip", " rerank@gpu ", "fusion@org/model", f"replay:{run}"])
    assert [(s.name, s.base, s.model) for s in found] == [
        ("clip", "clip", ""),
        ("rerank@gpu", "rerank", "gpu"),
        ("fusion@org/model", "fusion", "org/model"),
        ("replay:other", None, ""),
    ]
    assert found[3].file == run
    assert [s.reranks for s in found] == [False, True, True, False]
    assert [s.reads_words for s in found] == [False, False, True, False]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no system"),
        (["clop"], "unknown system 'clop'"),
        (["bm25@gpu"], "'bm25@gpu' has no second pass"),
        (["rerank@"], "names no model"),
        (["clip", "clip"], "more than once: clip"),
        (["replay:nowhere.trec"], "no run file 'nowhere.trec'"),
    ],
)
def test_bad_names_are_refused(names: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_systems(names)


def test_lists_stay_as_they_are() -> None:
    assert order(by_cosine(LISTED)) == ["A", "B", "C", "D"]
    words = [candidate("c", 0.7, lexical=9.0), candidate("x", 0.1, lexical=3.0)]
    places = by_words(words, LISTED)
    assert order(places) == ["C", "X"]
    assert [(place.score, place.recall_rank) for place in places] == [(9.0, 3), (3.0, None)]
    both = [candidate("c", 0.7, fused=0.9), candidate("a", 0.9, fused=0.5)]
    assert [place.score for place in by_both(both)] == [0.9, 0.5]


def test_the_second_pass_orders_what_it_saw_and_the_rest_follows() -> None:
    scores = [PairScore(score=0.1), PairScore(score=None, error="broken"), PairScore(score=0.4)]
    places = by_probability(LISTED[:3], scores, LISTED[3:])
    assert order(places) == ["C", "A", "B", "D"]
    assert [place.recall_rank for place in places] == [3, 1, 2, 4]
    found = ranked(places, name=str.upper, grades={"C": 2}, depth=100)
    assert [each.rerank_score for each in found] == [0.4, 0.1, None, None]
    assert [each.grade for each in found] == [2, None, None, None]
    assert [each.rank for each in found] == [1, 2, 3, 4]


def test_scores_fall_so_that_trec_eval_keeps_the_order() -> None:
    # Equal probabilities, and a tail whose cosines are above them.
    places = by_probability(
        LISTED[:3], [PairScore(score=0.5), PairScore(score=0.5), PairScore(score=0.5)], LISTED[3:]
    )
    found = ranked(places, name=str, grades={}, depth=100)
    run = {"q": {each.document: each.score for each in found}}
    for place, name in enumerate("abcd", start=1):
        assert metrics.compute(["MRR"], {"q": {name: 1}}, run)["MRR"]["q"] == pytest.approx(
            1 / place
        )


def test_a_video_shows_the_moment_that_scored() -> None:
    moments = (
        Moment(start_s=0, end_s=1, keyframe_s=0.5, score=0.9, rerank_score=0.2, id="m1"),
        Moment(start_s=4, end_s=5, keyframe_s=4.5, score=0.8, rerank_score=0.7, id="m2"),
    )
    video = candidate("v", 0.9, kind="video", moments=moments)
    [place] = by_probability([video], [PairScore(score=0.7)], [])
    [shown] = ranked([place], name=str, grades={}, depth=1)
    assert (shown.start_s, shown.end_s, shown.keyframe_s) == (4, 5, 4.5)


def test_passages_of_one_text_are_one_document() -> None:
    passages = [
        candidate("p1", 0.9, item="text", kind="text"),
        candidate("x", 0.8),
        candidate("p2", 0.7, item="text", kind="text"),
    ]
    assert order(by_cosine(passages)) == ["TEXT", "X"]
    found = ranked(by_cosine(passages), name=str, grades={}, depth=1)
    assert [each.score for each in found] == [0.9]


def test_beyond_knows_a_video_by_any_moment() -> None:
    one = candidate("m1", 0.9, item="v", kind="video")
    other = candidate("m2", 0.8, item="v", kind="video")
    assert beyond([other, LISTED[0]], [one]) == [LISTED[0]]


def test_a_replayed_run_is_ordered_as_trec_eval_does() -> None:
    run = {"q": {"./b": 1.0, "a": 1.0, "c": 2.0, "copy": 3.0}, "unjudged": {"a": 1.0}}
    names = {"./b": "b", "copy": "a"}
    found = replayed(
        run, name=lambda name: names.get(name, name), qrels={"q": {"b": 1}, "r": {}}, depth=2
    )
    assert [each.document for each in found["q"]] == ["a", "c"]
    assert found["r"] == ()
    assert "unjudged" not in found
    tied = replayed({"q": {"a": 1.0, "b": 1.0}}, name=str, qrels={"q": {}}, depth=9)
    assert [each.document for each in tied["q"]] == ["b", "a"]


def test_signals_are_parallel_lists() -> None:
    query = EvaluationQuery(id="q", query=Query(text="x"), kind="text")
    fused = [candidate("b", 0.8, lexical=4.0, fused=0.9), candidate("a", 0.9, fused=0.5)]
    found = Found(
        query=query,
        by_vector=LISTED[:3],
        by_words=[candidate("b", 0.8, lexical=4.0), candidate("w", 0.1, lexical=4.0)],
        candidates=fused,
    )
    passed = SecondPass(candidates=fused, scores=[PairScore(score=0.3), None])
    signals = signals_of(found, [passed], name=str)
    assert signals.documents == ("b", "a", "c", "w")
    assert signals.cosine == (0.8, 0.9, 0.7, 0.1)
    assert signals.recall_rank == (2, 1, 3, None)
    assert signals.lexical_score == (4.0, None, None, 4.0)
    assert signals.fused == (0.9, 0.5, None, None)
    assert signals.fused_rank == (1, 2, None, None)
    assert signals.rerank_score == (0.3, None, None, None)


def looked(*spent_ms: float | None) -> Looked:
    nothing = SecondPass(candidates=[], scores=[])
    known = [ms for ms in spent_ms if ms is not None]
    return Looked(found=nothing, spent_ms=spent_ms, pairs=len(known), pairs_ms=sum(known))


def test_only_second_passes_without_known_scores_are_timed() -> None:
    query = EvaluationQuery(id="q", query=Query(text="x"), kind="text")
    found = Found(query=query, spent_ms={"embed": 1.0, "recall": 2.0, "words": 4.0, "bm25": 8.0})
    tally = Tally(System("fusion", "fusion"), lexical=True)
    tally.add(found, looked(10.0, 20.0))
    tally.add(found, looked(10.0, None))
    cost = tally.cost()
    assert {name: each.median_ms for name, each in cost.stages.items()} == {
        "embed": 1.0,
        "recall": 2.0,
        "words": 4.0,
        "rerank": 30.0,
        "total": 37.0,
    }
    assert cost.pairs == 3
    assert cost.pairs_per_s == pytest.approx(3 / 0.040)
    words = Tally(System("bm25", "bm25"), lexical=True)
    words.add(found)
    assert {name: each.median_ms for name, each in words.cost().stages.items()} == {
        "words": 8.0,
        "total": 8.0,
    }
    unread = Tally(System("fusion", "fusion"), lexical=False)
    unread.add(found, looked(10.0))
    assert "words" not in unread.cost().stages


def test_figures_of_times() -> None:
    assert cut_ms(looked(1.0, 2.0, None), 2) == 3.0
    assert cut_ms(looked(1.0, 2.0, None), 3) is None
    assert median_ms([None, 1.0, 3.0]) == 2.0
    assert median_ms([None]) is None
    assert timing([1.0] * 99 + [100.0]).p95_ms == 1.0


def test_a_sample_is_spread_over_all() -> None:
    ids = [str(number) for number in range(10)]
    assert sample(ids, 5) == ["0", "2", "4", "6", "8"]
    assert sample(ids, None) == sample(ids, 99) == ids
