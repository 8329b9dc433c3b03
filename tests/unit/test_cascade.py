"""What a time budget is spent on: fake rerankers whose looks take time on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from secondglance.errors import InputError
from secondglance.rerank import cascade as module
from secondglance.rerank.base import Reranker
from secondglance.rerank.cascade import Cascade, CascadeResult
from secondglance.rerank.coarse import coarse_limits, coarse_view
from secondglance.rerank.limits import TOKEN_PIXELS, Limits
from secondglance.rerank.passthrough import PassthroughReranker
from secondglance.rerank.score_cache import CachedReranker, ScoreCache, counting
from secondglance.types import Content, PairScore

QUERY = Content(texts=("a dog",))
COUNT = 50
FULL_MS = 100.0
COARSE_MS = 10.0


def full_score(place: int) -> float:
    """Best at place 37, and worse the farther from there."""
    return 1 - abs(place - 37) / 100


def coarse_score(place: int) -> float:
    """Like the full score, but finds place 49 better than it is."""
    return 0.995 if place == 49 else full_score(place) - 0.001


class Timed:
    """A reranker whose looks move a clock by what they cost; remembers them in `calls`."""

    name = "timed"

    def __init__(
        self,
        *,
        cost_ms: Callable[[int], float] = lambda place: FULL_MS,
        score: Callable[[int], float | None] = full_score,
        call_ms: float = 0.0,
    ) -> None:
        self.now_s = 0.0
        self.calls: list[tuple[str, list[int]]] = []
        self.instructions: set[str | None] = set()
        self._cost_ms, self._score, self._call_ms = cost_ms, score, call_ms

    def clock(self) -> float:
        return self.now_s

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.instructions.add(instruction)
        return self.look("full", documents, self._cost_ms, self._score)

    def look(
        self,
        stage: str,
        documents: Sequence[Content],
        cost_ms: Callable[[int], float],
        score: Callable[[int], float | None],
    ) -> list[PairScore]:
        places = [int(document.texts[0]) for document in documents]
        self.calls.append((stage, places))
        self.now_s += (self._call_ms + sum(map(cost_ms, places))) / 1e3
        values = [score(place) for place in places]
        return [PairScore(score=v, error=None if v is not None else "unreadable") for v in values]

    def places(self, stage: str) -> list[int]:
        return [place for called, places in self.calls if called == stage for place in places]


class TwoSizes(Timed):
    """One that has a coarse view too."""

    def __init__(
        self,
        *,
        coarse_ms: Callable[[int], float] = lambda place: COARSE_MS,
        coarse: Callable[[int], float | None] = coarse_score,
        cost_ms: Callable[[int], float] = lambda place: FULL_MS,
        score: Callable[[int], float | None] = full_score,
    ) -> None:
        super().__init__(cost_ms=cost_ms, score=score)
        self._coarse_ms, self._coarse_score = coarse_ms, coarse
        self.shares: list[float] = []

    def coarse(self, share: float) -> Reranker:
        self.shares.append(share)
        return View(self, self._coarse_ms, self._coarse_score)


class View:
    name = "timed, coarsely"

    def __init__(
        self,
        whole: Timed,
        cost_ms: Callable[[int], float],
        score: Callable[[int], float | None],
    ) -> None:
        self._whole, self._cost_ms, self._score = whole, cost_ms, score

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self._whole.instructions.add(instruction)
        return self._whole.look("coarse", documents, self._cost_ms, self._score)


def run(reranker: Timed, budget_ms: float, count: int = COUNT) -> CascadeResult:
    documents = [Content(texts=(str(place),)) for place in range(count)]
    return Cascade(reranker, clock=reranker.clock).score(QUERY, documents, budget_ms=budget_ms)


def values(result: CascadeResult) -> list[float | None]:
    return [score.score if score else None for score in result.scores]


def test_a_generous_budget_gives_all_a_full_look_and_none_a_quick_one() -> None:
    reranker = TwoSizes()
    result = run(reranker, 5_001)
    assert reranker.places("full") == list(range(COUNT))
    assert reranker.places("coarse") == []
    assert values(result) == [full_score(place) for place in range(COUNT)]
    assert (result.full, result.coarse, result.unreached) == (COUNT, 0, 0)
    assert not result.used_up
    assert result.spent_ms == pytest.approx(5_000)


def test_groups_grow() -> None:
    reranker = TwoSizes()
    run(reranker, 6_000)
    sizes = [len(places) for _, places in reranker.calls]
    assert sizes[0] == module.FIRST_GROUP
    for before, size in pairwise(sizes[:-1]):
        assert size == module.GROWTH * before
    assert len(sizes) <= 4


def test_all_get_a_quick_look_then_the_best_a_full_one() -> None:
    reranker = TwoSizes()
    result = run(reranker, 2_500)
    first = list(range(module.FIRST_GROUP))
    assert reranker.places("coarse") == [p for p in range(COUNT) if p not in first]
    assert result.unreached == 0
    assert result.used_up
    assert result.full + result.coarse == COUNT
    # 2,500 ms - 4 full looks - 46 quick ones leave time for 16.
    assert result.full == 20
    stages = [stage for stage, _ in reranker.calls]
    assert "coarse" not in stages[stages.index("full", 1) :]
    contenders = reranker.places("full")[len(first) :]
    best = sorted(range(4, COUNT), key=coarse_score, reverse=True)[:16]
    assert contenders == best
    assert result.spent_ms <= 2_500


def test_a_full_score_replaces_the_quick_one_of_the_same_candidate_only() -> None:
    result = run(TwoSizes(), 2_500)
    for place, (stage, value) in enumerate(zip(result.stages, values(result), strict=True)):
        assert value == (full_score if stage == "full" else coarse_score)(place)
    assert result.stages[49] == "full"  # whose full score is far below its quick one
    order = sorted(range(COUNT), key=lambda place: -(values(result)[place] or 0.0))
    assert order[0] == 37
    assert order.index(49) > order.index(28)


def test_where_not_all_can_have_a_quick_look_the_first_do_and_time_is_kept_for_full_ones() -> None:
    reranker = TwoSizes()
    result = run(reranker, 900)
    quick = reranker.places("coarse")
    assert 0 < len(quick) < COUNT - 4
    assert quick == list(range(4, 4 + len(quick)))
    contenders = reranker.places("full")[4:]
    assert contenders
    assert contenders == sorted(quick, key=coarse_score, reverse=True)[: len(contenders)]
    assert result.stages[-1] is None
    assert result.scores[-1] is None
    assert result.unreached == COUNT - 4 - len(quick)
    assert result.used_up
    assert result.spent_ms <= 900


@pytest.mark.parametrize("budget_ms", [0.0, -5.0])
def test_no_time_no_look(budget_ms: float) -> None:
    reranker = TwoSizes()
    result = run(reranker, budget_ms)
    assert reranker.calls == []
    assert result.scores == (None,) * COUNT
    assert result.used_up


def test_hardly_any_time_is_one_small_group() -> None:
    reranker = TwoSizes()
    result = run(reranker, 1)
    assert reranker.calls == [("full", list(range(module.FIRST_GROUP)))]
    assert (result.full, result.coarse) == (module.FIRST_GROUP, 0)
    assert result.used_up


@pytest.mark.parametrize("budget_ms", [450, 1_000, 2_000, 3_333, 4_999])
@pytest.mark.parametrize("kind", [Timed, TwoSizes])
def test_nothing_is_begun_that_is_predicted_to_end_too_late(
    kind: type[Timed], budget_ms: float
) -> None:
    result = run(kind(), budget_ms)
    assert result.spent_ms <= budget_ms + 1e-6
    assert result.spent_ms > budget_ms - 2 * FULL_MS
    assert result.used_up


def test_a_reranker_of_one_size_looks_in_the_order_given() -> None:
    reranker = Timed()
    result = run(reranker, 2_050)
    assert reranker.places("full") == list(range(20))
    assert result.stages == ("full",) * 20 + (None,) * 30
    assert not run(Timed(), 60_000).used_up


def test_quick_looks_that_are_not_quick_are_given_up() -> None:
    reranker = TwoSizes(coarse_ms=lambda place: 0.9 * FULL_MS)
    result = run(reranker, 2_500)
    assert len(reranker.places("coarse")) <= module.FIRST_GROUP
    assert result.full >= 20


def test_where_nearly_all_fit_no_time_goes_to_quick_looks() -> None:
    reranker = TwoSizes()
    result = run(reranker, 4_501)
    assert (result.full, result.coarse, result.unreached) == (45, 0, 5)
    assert reranker.places("full") == list(range(45))


def test_speed_is_measured_as_it_goes() -> None:
    """The first are in a cache: what seems to fit at first does not, and is not insisted on."""
    reranker = TwoSizes(cost_ms=lambda place: 0.0 if place < 4 else FULL_MS)
    result = run(reranker, 2_000)
    assert reranker.calls[1] == ("full", list(range(4, 4 + 4 * module.GROWTH)))
    assert reranker.places("coarse")
    assert result.spent_ms <= 2_000


def test_costlier_candidates_pass_the_budget_by_one_group_at_most() -> None:
    reranker = Timed(cost_ms=lambda place: 1.0 if place < 4 else 1_000.0)
    result = run(reranker, 500)
    assert [len(places) for _, places in reranker.calls] == [4, 4 * module.GROWTH]
    assert result.used_up


def test_a_constant_cost_of_each_call_is_no_reason_to_go_on_one_by_one() -> None:
    reranker = Timed(call_ms=200)
    result = run(reranker, 3_000)
    assert result.spent_ms <= 3_000
    assert len(reranker.calls) <= 5


def test_what_cannot_be_read_is_tried_once() -> None:
    reranker = TwoSizes(
        coarse=lambda place: None if place == 36 else coarse_score(place),
        score=lambda place: None if place == 1 else full_score(place),
    )
    result = run(reranker, 2_500)
    assert reranker.places("full").count(36) == 0
    assert reranker.places("coarse").count(1) == 0
    for place, stage in ((36, "coarse"), (1, "full")):
        score = result.scores[place]
        assert score is not None
        assert score.error == "unreadable"
        assert result.stages[place] == stage


def test_where_no_other_can_be_read_nothing_is_left_to_do() -> None:
    reranker = TwoSizes(coarse=lambda place: None)
    result = run(reranker, 2_500)
    assert len(reranker.places("full")) == module.FIRST_GROUP
    assert result.unreached == 0
    assert not result.used_up


def test_a_full_look_that_fails_leaves_the_quick_score() -> None:
    reranker = TwoSizes(score=lambda place: None if place == 37 else full_score(place))
    result = run(reranker, 2_500)
    assert reranker.places("full").count(37) == 1
    assert result.stages[37] == "coarse"
    assert values(result)[37] == coarse_score(37)


def test_the_same_timings_give_the_same_answer() -> None:
    first, second = TwoSizes(), TwoSizes()
    assert run(first, 1_234) == run(second, 1_234)
    assert first.calls == second.calls


def test_equal_quick_scores_leave_the_order_given() -> None:
    reranker = TwoSizes(coarse=lambda place: 0.5)
    run(reranker, 2_500)
    assert reranker.places("full") == list(range(20))


def test_the_instruction_reaches_both_looks_and_the_share_the_reranker() -> None:
    reranker = TwoSizes()
    documents = [Content(texts=(str(place),)) for place in range(COUNT)]
    Cascade(reranker, share=0.3, clock=reranker.clock).score(
        QUERY, documents, instruction="find dogs", budget_ms=2_500
    )
    assert reranker.shares == [0.3]
    assert reranker.instructions == {"find dogs"}
    assert {stage for stage, _ in reranker.calls} == {"full", "coarse"}


def test_no_candidates_need_no_time() -> None:
    result = run(TwoSizes(), 100, count=0)
    assert result.scores == ()
    assert not result.used_up


def test_coarse_limits_leave_a_share_and_respect_the_floors() -> None:
    half = coarse_limits(Limits(), 0.25)
    assert half.max_pixels == Limits().max_pixels // 4
    assert half.total_pixels == Limits().total_pixels // 4
    assert (half.max_frames, half.max_listed_frames) == (32, 64)
    assert (half.min_pixels, half.fps) == (Limits().min_pixels, Limits().fps)
    small = Limits(max_pixels=5_000, total_pixels=8_192, max_frames=8)
    least = coarse_limits(small, 0.01)
    assert least.max_pixels == small.min_pixels
    assert least.max_frames == 4
    assert least.total_pixels == 2 * TOKEN_PIXELS
    assert coarse_limits(Limits(max_frames=2), 0.1).max_frames == 2


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(InputError, match="above 0 and below 1"):
        coarse_limits(Limits(), share)


def test_the_cache_keeps_both_looks_apart(cache: ScoreCache) -> None:
    inner = TwoSizes()
    reranker = CachedReranker(inner, cache, fingerprint="f")
    half, third = reranker.coarse(0.5), reranker.coarse(0.3)
    assert half is not None
    assert third is not None
    document = [Content(texts=("7",))]
    for view, expected in (
        (reranker, full_score(7)),
        (half, coarse_score(7)),
        (third, coarse_score(7)),
    ):
        for known in (0, 1):
            with counting() as use:
                [found] = view.score(QUERY, document)
            assert found.score == expected
            assert (use.hits, use.misses) == (known, 1 - known)
    assert [stage for stage, _ in inner.calls] == ["full", "coarse", "coarse"]
    assert reranker.coarse(0.5) is not None
    other = CachedReranker(inner, cache, fingerprint="g").coarse(0.5)
    assert other is not None
    other.score(QUERY, document)
    assert len(inner.calls) == 4


def test_rerankers_without_a_coarse_view_have_none_behind_the_cache_either(
    cache: ScoreCache,
) -> None:
    assert coarse_view(Timed(), 0.5) is None
    assert coarse_view(PassthroughReranker(), 0.5) is None
    assert coarse_view(CachedReranker(Timed(), cache, fingerprint="f"), 0.5) is None
    assert coarse_view(TwoSizes(), 0.5) is not None


def test_scores_from_the_cache_tell_nothing_of_the_cost_of_others(cache: ScoreCache) -> None:
    inner = TwoSizes()
    reranker = CachedReranker(inner, cache, fingerprint="f")
    documents = [Content(texts=(str(place),)) for place in range(COUNT)]
    spend = Cascade(reranker, clock=inner.clock).score
    reranker.score(QUERY, documents[:6])
    inner.calls.clear()
    inner.now_s = 0.0
    with counting() as use:
        result = spend(QUERY, documents, budget_ms=1)
    # Six for nothing, and the first two that are not: no more is begun.
    assert inner.calls == [("full", [6, 7])]
    assert (result.full, result.unreached) == (8, COUNT - 8)
    assert (use.hits, use.misses) == (6, 2)
    inner.calls.clear()
    result = spend(QUERY, documents, budget_ms=2_000)
    assert result.unreached == 0
    assert result.spent_ms <= 2_000
    before = result.full
    again = spend(QUERY, documents, budget_ms=2_000)
    assert again.full > before
    assert again.spent_ms <= 2_000
