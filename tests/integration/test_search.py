"""Two passes over a small library: order, scores, degradation, and what each query form means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import InputError, MediaError, RerankError, SecondGlanceError
from secondglance.library import Library
from secondglance.pipelines.first_pass import embed_query
from secondglance.types import Content, PairScore, Query, SearchResult
from tests.libraries import Open
from tests.media import picture, write_clip, write_pictures

pytestmark = pytest.mark.usefixtures("one_embedder")


class Judge:
    """A reranker with known answers: the higher the number in the file's name, the better."""

    name = "judge"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.seen: list[tuple[Content, list[Content], str | None]] = []

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.seen.append((query, list(documents), instruction))
        if self.error is not None:
            raise self.error
        return [self._one(query, document) for document in documents]

    def _one(self, query: Content, document: Content) -> PairScore:
        if not document.images:
            return PairScore(score=0.1, log_odds=math.log(0.1 / 0.9))
        path = document.images[0]
        assert isinstance(path, Path)
        number = int(path.stem.split("-")[1])
        if query.texts == ("unreadable",) and number == 3:
            return PairScore(score=None, error="cannot be read")
        score = 1 - number / 10 if query.texts == ("unwanted",) else number / 10
        return PairScore(score=score, log_odds=0.0)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    write_pictures(folder, 8)
    write_clip(folder / "clip.mp4", [20, 21, 22])
    write_clip(folder / "other.mp4", [30])
    (folder / "notes.txt").write_text("A dog on a beach.")
    return folder


@pytest.fixture
def library(media: Path, open_library: Open) -> Library:
    library = open_library()
    library.index([media])
    return library


def judged(library: Library, error: Exception | None = None) -> Judge:
    judge = Judge(error)
    library._parts.__dict__["_reranker"] = judge
    return judge


def names(result: SearchResult) -> list[str]:
    return [Path(hit.path).name for hit in result.hits]


def test_a_picture_finds_itself_first(library: Library, media: Path, tmp_path: Path) -> None:
    smaller = tmp_path / "query.png"
    picture(5).resize((80, 60)).save(smaller)
    result = library.search(Query(image=smaller), rerank=False, k=3)
    assert names(result)[0] == "picture-0005.jpg"
    assert (
        [hit.rank for hit in result.hits] == [hit.recall_rank for hit in result.hits] == [1, 2, 3]
    )
    assert all(hit.rerank_score is None and hit.score == hit.recall_score for hit in result.hits)
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)


def test_a_clip_finds_itself_at_its_moment(library: Library, tmp_path: Path) -> None:
    query = write_clip(tmp_path / "query.mp4", [21], scene_s=2)
    best = library.search(Query(video=query), rerank=False, kind="video").hits[0]
    assert Path(best.path).name == "clip.mp4"
    assert (best.start_s, best.end_s) == (5, 10)
    assert best.keyframe_s is not None
    assert 5 <= best.keyframe_s < 10


def test_a_video_is_one_hit_with_its_moments_unless_asked(library: Library) -> None:
    grouped = library.search("x", rerank=False, kind="video")
    assert sorted(names(grouped)) == ["clip.mp4", "other.mp4"]
    [clip] = [hit for hit in grouped.hits if hit.path.endswith("clip.mp4")]
    assert [m.score for m in clip.moments] == sorted((m.score for m in clip.moments), reverse=True)
    assert sorted((m.start_s, m.end_s) for m in clip.moments) == [(0, 5), (5, 10), (10, 15)]
    assert clip.start_s == clip.moments[0].start_s
    single = library.search("x", rerank=False, kind="video", group=False)
    assert sorted(names(single)) == ["clip.mp4"] * 3 + ["other.mp4"]


def test_grouping_still_finds_as_many_files_as_asked(tmp_path: Path, open_library: Open) -> None:
    folder = tmp_path / "videos"
    write_clip(folder / "long.mp4", list(range(12)), scene_s=1)
    write_clip(folder / "short.mp4", [40], scene_s=1)
    write_pictures(folder, 2)
    library = open_library(ingest={"max_segment_s": 1})
    library.index([folder])
    result = library.search("x", k=4, recall=4, rerank=False)
    assert len(set(names(result))) == 4


def test_the_second_pass_reorders_and_keeps_the_recall_score(library: Library) -> None:
    judge = judged(library)
    first = library.search("x", rerank=False, kind="image", k=8)
    result = library.search("x", kind="image", k=8)
    by_name = dict(zip(names(first), first.hits, strict=True))
    recall = [hit.recall_score for hit in first.hits]
    for name, hit in zip(names(result), result.hits, strict=True):
        assert hit.recall_score == by_name[name].recall_score
        assert hit.recall_rank == by_name[name].rank
        assert hit.rerank_score == int(name[8:12]) / 10
        share = (hit.recall_score - min(recall)) / (max(recall) - min(recall))
        assert hit.score == pytest.approx(0.2 * share + 0.8 * hit.rerank_score)
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    assert names(result)[0] == "picture-0007.jpg"
    query, documents, _ = judge.seen[0]
    assert query == Content(texts=("x",))
    assert all(document.images and not document.texts for document in documents)


def test_the_weight_of_the_second_pass_is_a_setting(media: Path, open_library: Open) -> None:
    library = open_library(search={"rerank_weight": 1.0})
    library.index([media])
    judged(library)
    result = library.search("x", kind="image", k=8)
    assert names(result) == [f"picture-{n:04}.jpg" for n in range(7, -1, -1)]
    assert [hit.score for hit in result.hits] == [hit.rerank_score for hit in result.hits]


@pytest.mark.parametrize(("floor", "kept"), [(0.71, True), (0.7, False)])
def test_a_second_pass_that_says_no_to_all_leaves_recall_order(
    floor: float, kept: bool, media: Path, open_library: Open
) -> None:
    library = open_library(search={"rerank_floor": floor})
    library.index([media])
    judged(library)
    recalled = library.search("x", kind="image", k=8, rerank=False)
    result = library.search("x", kind="image", k=8)
    assert all(hit.rerank_score is not None for hit in result.hits)  # still shown; best is 0.7
    assert (names(result) == names(recalled)) == kept
    assert ["finds no match (best 0.70" in warning for warning in result.warnings] == [True] * kept


def test_only_the_recalled_candidates_reach_the_second_pass(library: Library) -> None:
    judge = judged(library)
    result = library.search("x", k=2, recall=3)
    assert len(judge.seen[0][1]) == 3
    assert len(result.hits) == 2


def test_videos_and_texts_go_to_the_second_pass_as_such(library: Library) -> None:
    judge = judged(library)
    library.search(Query(text="x", instruction="find moments"), kind="video")
    _, documents, instruction = judge.seen[0]
    assert instruction == "find moments"
    stretches = {
        (d.videos[0].path.name, d.videos[0].start_s) for d in documents if d.videos[0].path
    }
    assert ("other.mp4", 0.0) in stretches
    library.search("x", kind="text")
    assert judge.seen[-1][1] == [Content(texts=("A dog on a beach.",))]


def test_not_moves_both_passes_away(library: Library) -> None:
    judged(library)
    result = library.search(Query(text="x", not_text="unwanted"), kind="image", k=8)
    for name, hit in zip(names(result), result.hits, strict=True):
        number = int(name[8:12]) / 10
        assert hit.rerank_score == pytest.approx(number * number)  # p * (1 - (1 - p))
    parts = library._parts
    [away] = parts.embedder().embed_texts(["unwanted"])
    with_not = embed_query(parts, Query(text="x", not_text="unwanted"))
    assert float(with_not @ away) < float(embed_query(parts, Query(text="x")) @ away)


def test_words_and_picture_together_lie_between(library: Library, media: Path) -> None:
    parts, image = library._parts, media / "picture-0001.jpg"
    both = embed_query(parts, Query(text="x", image=image))
    text, alone = embed_query(parts, Query(text="x")), embed_query(parts, Query(image=image))
    assert float(both @ text) == pytest.approx(float(both @ alone), abs=1e-5)
    assert float(both @ text) > float(text @ alone)
    judge = judged(library)
    library.search(Query(text="x", image=image))
    assert judge.seen[0][0] == Content(texts=("x",), images=(image,))


def test_an_unreadable_candidate_is_reported_alone(library: Library) -> None:
    judged(library)
    result = library.search("unreadable", kind="image", k=8)
    [failed] = [hit for hit in result.hits if hit.error]
    assert failed.path.endswith("picture-0003.jpg")
    assert failed.error == "cannot be read"
    assert failed.rerank_score is None
    assert sum(hit.rerank_score is not None for hit in result.hits) == 7


@pytest.mark.parametrize("error", [RerankError("out of memory"), RuntimeError("broken")])
def test_a_failing_second_pass_leaves_recall_order_and_a_warning(
    library: Library, error: Exception
) -> None:
    expected = names(library.search("x", rerank=False))
    judged(library, error)
    result = library.search("x")
    assert names(result) == expected
    assert all(hit.rerank_score is None for hit in result.hits)
    [warning] = result.warnings
    assert "second pass failed" in warning
    assert str(error) in warning


def test_a_reranker_that_cannot_be_loaded_leaves_recall_order(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    library = open_library(rerank={"model": str(tmp_path / "nowhere")})
    library.index([media])
    result = library.search("x")
    assert len(result.hits) == 10
    assert "nowhere" in result.warnings[0]


def test_a_query_that_cannot_be_read_is_an_error_not_a_guess(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"query file .*broken\.jpg: not a picture"):
        library.search(Query(image=tmp_path / "broken.jpg"))
    with pytest.raises(InputError, match=r"no query file .*none\.jpg"):
        library.search(Query(image=tmp_path / "none.jpg"))


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (Query(), {}, "the query is empty.*--image"),
        (Query(text="  "), {}, "the query is empty"),
        (Query(not_text="x"), {}, "only what it is not"),
        (Query(text="x"), {"k": 0}, "k is 0"),
        (Query(text="x"), {"recall": 10**6}, "at most 16384"),
        (Query(text="x"), {"filter": "colour == 3"}, "colour"),
    ],
)
def test_unusable_queries_say_what_is_wrong(
    library: Library, query: Query, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SecondGlanceError, match=message):
        library.search(query, **options)  # type: ignore[arg-type]


def test_filters_and_kinds_narrow_the_first_pass(library: Library) -> None:
    assert names(library.search("x", rerank=False, filter='name == "notes.txt"')) == ["notes.txt"]
    found = library.search("x", rerank=False, kind="video", filter="duration_s > 10")
    assert names(found) == ["clip.mp4"]
    assert library.search("x", filter='path like "none/%"').hits == ()


def test_an_empty_library_finds_nothing(open_library: Open) -> None:
    result = open_library().search("x")
    assert result.hits == ()
    assert result.timings_ms["total"] > 0


def test_min_score_leaves_out_what_is_below(library: Library) -> None:
    judged(library)
    result = library.search("x", kind="image", k=8, min_score=0.5)
    assert 0 < len(result.hits) < 8
    assert all(hit.score >= 0.5 for hit in result.hits)


def test_a_time_budget_always_gives_an_order(library: Library) -> None:
    judge = judged(library)
    expected = names(library.search("x", rerank=False, k=10))
    result = library.search("x", k=10, budget_ms=0)
    assert not judge.seen
    assert names(result) == expected
    full = library.search("x", k=10, budget_ms=60_000)
    assert all(hit.rerank_score is not None for hit in full.hits)
    assert full.warnings == ()


def test_timings_cover_every_stage(library: Library) -> None:
    result = library.search("x", k=3)
    assert result.timings_ms.keys() == {"load", "embed", "recall", "rerank", "total"}
    parts = sum(ms for stage, ms in result.timings_ms.items() if stage != "total")
    assert 0 < parts <= result.timings_ms["total"]
    assert all(hit.rerank_score is not None for hit in result.hits)


def test_stores_answer_alike(media: Path, open_library: Open, library: Library) -> None:
    expected = library.search("x", rerank=False, k=10)
    for store in ("faiss", "milvus"):
        other = open_library(store, store=store)
        other.index([media])
        found = other.search("x", rerank=False, k=10)
        assert [hit.id for hit in found.hits] == [hit.id for hit in expected.hits]
        recalls = [hit.recall_score for hit in found.hits]
        assert np.allclose(recalls, [hit.recall_score for hit in expected.hits], atol=1e-4)


def test_a_result_whose_file_is_gone_is_still_shown(library: Library, media: Path) -> None:
    (media / "picture-0002.jpg").unlink()
    result = library.search("x", kind="image", k=8, recall=8)
    [gone] = [hit for hit in result.hits if hit.path.endswith("picture-0002.jpg")]
    assert gone.error is not None
    assert gone.rerank_score is None


def test_large_photos_can_be_queries(library: Library, tmp_path: Path) -> None:
    Image.new("RGB", (5000, 20), "red").save(tmp_path / "strip.png")
    assert library.search(Query(image=tmp_path / "strip.png"), k=1, rerank=False).hits
