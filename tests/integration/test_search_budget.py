"""Searches within a time budget: always an answer, and the usual one where time allows it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from secondglance.library import Library
from secondglance.pipelines import second_pass
from secondglance.rerank import Qwen3VLReranker, checkpoint
from secondglance.rerank.cascade import FIRST_GROUP, Cascade
from secondglance.rerank.limits import Limits
from secondglance.types import Content, PairScore, Query, SearchResult, VideoClip
from tests.media import write_clip, write_pictures

COUNT = 22


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_pictures(folder, COUNT - 2)
    write_clip(folder / "clip.mp4", [20, 21], scene_s=2)
    (folder / "notes.txt").write_text("A dog on a beach.")
    return folder


@pytest.fixture(scope="module")
def library(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    settings = {
        "store": {"backend": "exact"},
        "rerank": {"score_cache_mb": 0},
        "search": {"rerank_floor": 0.0},
    }
    folder = tmp_path_factory.mktemp("library")
    with Library.open(folder, preset="starter", settings=settings) as library:
        library.index([media])
        yield library


@pytest.fixture
def reranker(library: Library) -> Qwen3VLReranker:
    found = library._parts.reranker()
    assert isinstance(found, Qwen3VLReranker)
    return found


def paths(result: SearchResult) -> list[str]:
    return [hit.path for hit in result.hits]


def scored(result: SearchResult) -> int:
    return sum(hit.rerank_score is not None for hit in result.hits)


@pytest.mark.parametrize(
    "query", [Query(text="a dog"), Query(text="a dog", not_text="a red square")]
)
def test_a_generous_budget_gives_what_no_budget_gives(library: Library, query: Query) -> None:
    plain = library.search(query, k=COUNT)
    within = library.search(query, k=COUNT, budget_ms=600_000)
    assert within.warnings == plain.warnings == ()
    expected = {hit.path: hit.rerank_score for hit in plain.hits}
    assert {hit.path: hit.rerank_score for hit in within.hits} == pytest.approx(expected, abs=1e-4)
    assert [h.score for h in within.hits] == pytest.approx([h.score for h in plain.hits], abs=1e-4)


@pytest.mark.parametrize(
    "query", [Query(text="a dog"), Query(text="a dog", not_text="a red square")]
)
def test_a_millisecond_is_enough_for_an_answer(library: Library, query: Query) -> None:
    result = library.search(query, k=COUNT, budget_ms=1)
    assert len(set(paths(result))) == COUNT
    assert [hit.rank for hit in result.hits] == list(range(1, COUNT + 1))
    assert scored(result) == FIRST_GROUP
    assert {hit.recall_rank for hit in result.hits[:FIRST_GROUP]} == set(range(1, FIRST_GROUP + 1))
    assert [h.recall_rank for h in result.hits[FIRST_GROUP:]] == list(
        range(FIRST_GROUP + 1, COUNT + 1)
    )
    assert result.warnings == (
        f"the time budget of 1 ms allowed a full look at {FIRST_GROUP} of {COUNT} candidates; "
        f"the other {COUNT - FIRST_GROUP} follow in recall order",
    )


def test_no_time_leaves_recall_order_and_says_so(library: Library) -> None:
    result = library.search("a dog", k=COUNT, budget_ms=0)
    assert paths(result) == paths(library.search("a dog", k=COUNT, rerank=False))
    assert scored(result) == 0
    assert result.warnings == (
        "the time budget of 0 ms allowed no second pass: results are in recall order",
    )


@pytest.mark.parametrize("budget_ms", [60, 200, 400])
def test_any_budget_gives_an_order_and_true_counts(library: Library, budget_ms: float) -> None:
    result = library.search("a dog", k=COUNT, budget_ms=budget_ms)
    assert len(set(paths(result))) == COUNT
    reached = scored(result)
    assert reached >= FIRST_GROUP
    by_rank = [hit.rerank_score is not None for hit in result.hits]
    assert by_rank == sorted(by_rank, reverse=True)
    assert (reached < COUNT) <= bool(result.warnings)


class Ticking:
    """A clock by which looks take seconds: a full one 1, a quick one 0.05 a candidate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.looks: list[tuple[int, int]] = []
        plain = Qwen3VLReranker._score

        def timed(
            reranker: Qwen3VLReranker, query: Content, documents: list[Content], *rest: object,
            **named: object,
        ) -> list[PairScore]:  # fmt: skip
            given = (*rest, *named.values())
            pixels = next(part for part in given if isinstance(part, Limits)).max_pixels
            self.looks.append((pixels, len(documents)))
            self.now_s += len(documents) * (1 if pixels == reranker.max_pixels else 0.05)
            return plain(reranker, query, documents, *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Qwen3VLReranker, "_score", timed)
        monkeypatch.setattr(second_pass, "Cascade", partial(Cascade, clock=lambda: self.now_s))


def test_quick_looks_come_first_where_they_pay_and_the_warning_counts_both(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Ticking(monkeypatch)
    result = library.search("a dog", k=COUNT, budget_ms=12_000)
    assert scored(result) == COUNT
    assert clock.now_s <= 12
    full = sum(count for pixels, count in clock.looks if pixels == max(clock.looks)[0])
    assert FIRST_GROUP < full < COUNT
    assert result.warnings == (
        f"the time budget of 12000 ms allowed a full look at {full} of {COUNT} candidates, "
        f"a quick one at {COUNT - full}",
    )


def test_words_to_avoid_count_in_both_looks(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query(text="a dog", not_text="a red square")
    clock = Ticking(monkeypatch)
    result = library.search(query, k=COUNT, budget_ms=24_000)
    assert clock.now_s <= 24
    assert scored(result) == COUNT
    coarse = [count for pixels, count in clock.looks if pixels < max(clock.looks)[0]]
    assert coarse
    assert coarse[::2] == coarse[1::2]  # each group once for either words
    exact = {hit.path: hit.rerank_score for hit in library.search(query, k=COUNT).hits}
    same = sum(hit.rerank_score == pytest.approx(exact[hit.path], abs=1e-4) for hit in result.hits)
    assert same >= FIRST_GROUP


def test_the_coarse_view_scores_as_a_reranker_with_smaller_limits(
    untrained_reranker: Path, media: Path
) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, max_pixels=40_000, total_pixels=80_000)
    view = reranker.coarse(0.25)
    smaller = Qwen3VLReranker(
        untrained_reranker, max_pixels=10_000, total_pixels=20_000, max_frames=32
    )
    query = Content(texts=("a dog",))
    large = media.parent / "large.png"
    with Image.open(media / "picture-0003.jpg") as picture:
        picture.resize((384, 256)).save(large)
    documents = [
        Content(images=(large,)),
        Content(videos=(VideoClip(path=media / "clip.mp4"),)),
        Content(texts=("a dog",)),
        Content(images=(media / "none.jpg",)),
    ]
    found = view.score(query, documents, instruction="find it")
    expected = smaller.score(query, documents, instruction="find it")
    for one, other in zip(found[:3], expected[:3], strict=True):
        assert one.log_odds == pytest.approx(other.log_odds, abs=1e-4)
    assert found[3].error == expected[3].error
    full = reranker.score(query, documents, instruction="find it")
    assert full[2].log_odds == pytest.approx(found[2].log_odds, abs=1e-4)
    assert full[0].log_odds != pytest.approx(found[0].log_odds, abs=1e-4)
    assert view.name == f"{reranker.name} (25% of the pixels)"


def test_a_coarse_view_loads_nothing(
    untrained_reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reranker = Qwen3VLReranker(untrained_reranker)

    def load(*arguments: object, **options: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(checkpoint, "load", load)
    assert reranker.coarse(0.5).score(Content(texts=("a",)), [Content(texts=("b",))])[0].score
