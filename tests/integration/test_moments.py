"""Moments of videos: judged by their own frames, the best one shown, and played in the page."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch

from secondglance.library import Library
from secondglance.pipelines import second_pass
from secondglance.pipelines.render import plain_table, render
from secondglance.rerank import Qwen3VLReranker
from secondglance.rerank.cascade import Cascade
from secondglance.rerank.clips import load_clip, sample
from secondglance.rerank.limits import Limits
from secondglance.types import Content, Hit, Moment, PairScore, Query, SearchResult, VideoClip
from tests.libraries import Open
from tests.media import picture, write_clip, write_pictures

QUERY = Content(texts=("a dog",))


# What the second pass reads of a stretch


def test_a_stretch_is_judged_by_its_own_frames(tmp_path: Path, untrained_reranker: Path) -> None:
    video = write_clip(tmp_path / "both.mp4", [1, 2], scene_s=5)
    other = write_clip(tmp_path / "other.mp4", [1, 3], scene_s=5)  # differs in its second half
    first, second = ((0.0, 5.0, 2.5), (5.0, 10.0, 7.5))

    def clip(path: Path, stretch: tuple[float, float, float]) -> VideoClip:
        start_s, end_s, keyframe_s = stretch
        return VideoClip(path=path, start_s=start_s, end_s=end_s, keyframe_s=keyframe_s)

    for path, stretch, seed in ((video, first, 1), (video, second, 2), (other, second, 3)):
        pixels, times_s = load_clip(clip(path, stretch), Limits())
        assert len(pixels) == 4
        assert all(stretch[0] <= time_s < stretch[1] for time_s in times_s)
        alone, _ = load_clip(VideoClip(frames=[picture(seed)] * 4), Limits())
        assert (pixels.float() - alone.float()).abs().mean() < 8
    reranker = Qwen3VLReranker(untrained_reranker, device="cpu")
    clips = [clip(path, stretch) for path in (video, other) for stretch in (first, second)]
    scores = [
        answer.log_odds or 0.0
        for answer in reranker.score(QUERY, [Content(videos=(each,)) for each in clips])
    ]
    assert abs(scores[0] - scores[1]) > 1e-3
    assert abs(scores[1] - scores[3]) > 1e-3
    assert scores[0] == pytest.approx(scores[2], abs=abs(scores[1] - scores[3]) / 2)


@pytest.mark.parametrize(
    ("stretch", "keyframe_s", "limits", "expected"),
    [
        ((0, 5), 2.5, (1.0, 64), [0, 16, 25, 49]),  # in place of 33
        ((0, 5), None, (1.0, 64), [0, 16, 33, 49]),
        ((0, 5), 3.3, (1.0, 64), [0, 16, 33, 49]),  # is there anyhow
        ((0, 5), 7.0, (1.0, 64), [0, 16, 33, 49]),  # of another stretch
        ((0, 20), 3.0, (1.0, 2), [30, 199]),
        ((0, 20), 3.0, (1.0, 1), [30]),
        ((0.2, 0.5), 0.3, (1.0, 64), [3, 4]),
        ((0.2, 0.6), 0.3, (1.0, 64), [2, 3, 4, 5]),
    ],
)
def test_the_keyframe_is_among_the_frames(
    stretch: tuple[float, float],
    keyframe_s: float | None,
    limits: tuple[float, int],
    expected: list[int],
) -> None:
    chosen = sample(
        np.arange(200) / 10,
        start_s=stretch[0],
        end_s=stretch[1],
        fps=limits[0],
        max_frames=limits[1],
        keyframe_s=keyframe_s,
    )
    assert chosen.tolist() == expected


def test_the_keyframe_is_read_and_its_time_is_told(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", [1], scene_s=5)
    plain, plain_s = load_clip(VideoClip(path=video, start_s=0, end_s=5), Limits())
    pixels, times_s = load_clip(VideoClip(path=video, start_s=0, end_s=5, keyframe_s=2.5), Limits())
    assert plain_s == pytest.approx((0.8, 4.1))
    assert times_s == pytest.approx((0.8, 3.7))
    assert torch.equal(pixels[0], plain[0])


# Which moment is shown


class Judge:
    """Finds one stretch relevant, and others as little as it is told."""

    name = "judge"

    def __init__(self, relevant: Callable[[VideoClip], float]) -> None:
        self._relevant = relevant
        self.looks: list[list[float]] = []

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        clips = [document.videos[0] for document in documents]
        self.looks.append([clip.start_s or 0.0 for clip in clips])
        return [PairScore(score=self._relevant(clip), log_odds=0.0) for clip in clips]


@pytest.fixture
def library(tmp_path: Path, open_library: Open) -> Library:
    write_clip(tmp_path / "media" / "clip.mp4", [20, 21, 22, 23], scene_s=5)
    write_clip(tmp_path / "media" / "other.mp4", [30], scene_s=5)
    library = open_library()
    library.index([tmp_path / "media"])
    return library


def recalled(library: Library) -> tuple[Moment, ...]:
    hits = library.search("x", kind="video", rerank=False).hits
    return next(hit.moments for hit in hits if hit.path.endswith("clip.mp4"))


def test_the_best_of_the_first_moments_is_shown(library: Library) -> None:
    before = recalled(library)
    assert len(before) == 4
    wanted = before[2]
    judge = Judge(lambda clip: 0.9 if clip.start_s == wanted.start_s else 0.2)
    library._parts.__dict__["_reranker"] = judge
    [clip] = [h for h in library.search("x", kind="video").hits if h.path.endswith("clip.mp4")]
    assert (clip.start_s, clip.end_s, clip.keyframe_s) == (
        wanted.start_s, wanted.end_s, wanted.keyframe_s,
    )  # fmt: skip
    assert (clip.id, clip.rerank_score) == (wanted.id, 0.9)
    assert clip.recall_score == before[0].score
    # Those that were looked at by the second pass first, then the others in recall order.
    assert [m.start_s for m in clip.moments] == [before[n].start_s for n in (2, 0, 1, 3)]
    assert [m.rerank_score for m in clip.moments] == [0.9, 0.2, 0.2, None]
    # One look at each video, then further ones, second moments before third.
    first, further = judge.looks
    assert len(first) == 2
    assert further == [before[1].start_s, before[2].start_s]
    stretches = library.search("x", kind="video", group=False).hits
    assert stretches[0].id == clip.id
    assert len(judge.looks) == 3  # a stretch has no further moments


def test_a_second_pass_that_says_no_leaves_the_moments_as_they_were(
    tmp_path: Path, open_library: Open
) -> None:
    write_clip(tmp_path / "media" / "clip.mp4", [20, 21, 22], scene_s=5)
    library = open_library(search={"rerank_floor": 0.5})
    library.index([tmp_path / "media"])
    before = recalled(library)
    judge = Judge(lambda clip: 0.4 if clip.start_s == before[1].start_s else 0.1)
    library._parts.__dict__["_reranker"] = judge
    [clip] = library.search("x", kind="video").hits
    assert [m.id for m in clip.moments] == [m.id for m in before]
    assert clip.start_s == before[0].start_s


@pytest.mark.parametrize(("moments", "looks"), [(1, 1), (2, 2), (4, 4)])
def test_how_many_moments_are_looked_at_is_a_setting(
    tmp_path: Path, open_library: Open, moments: int, looks: int
) -> None:
    write_clip(tmp_path / "media" / "clip.mp4", [20, 21, 22, 23, 24], scene_s=5)
    library = open_library(search={"moments": moments})
    library.index([tmp_path / "media"])
    judge = Judge(lambda clip: 0.5)
    library._parts.__dict__["_reranker"] = judge
    library.search("x")
    assert sum(map(len, judge.looks)) == looks


def test_only_videos_that_come_first_are_looked_at_again(
    tmp_path: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_pass, "CLOSER", 1)
    for number in range(3):
        write_clip(tmp_path / "media" / f"clip-{number}.mp4", [number, number + 10], scene_s=5)
    library = open_library(search={"rerank_weight": 1.0})
    library.index([tmp_path / "media"])
    read: list[str] = []

    def relevant(clip: VideoClip) -> float:
        assert clip.path is not None
        read.append(clip.path.name)
        return 0.8 if clip.path.name == "clip-1.mp4" else 0.3

    library._parts.__dict__["_reranker"] = Judge(relevant)
    library.search("x")
    assert sorted(read[:3]) == ["clip-0.mp4", "clip-1.mp4", "clip-2.mp4"]
    assert read[3:] == ["clip-1.mp4"]


def test_a_budget_covers_further_moments_too(library: Library) -> None:
    judge = Judge(lambda clip: 0.5)
    library._parts.__dict__["_reranker"] = judge
    result = library.search("x", kind="video", budget_ms=60_000)
    assert result.warnings == ()
    assert sum(map(len, judge.looks)) == 4
    result = library.search("x", kind="video", budget_ms=0)
    assert sum(map(len, judge.looks)) == 4
    assert all(moment.rerank_score is None for hit in result.hits for moment in hit.moments)


def test_further_moments_are_not_begun_where_the_budget_is_too_small(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0

    def relevant(clip: VideoClip) -> float:
        nonlocal now_s
        now_s += 1
        return 0.5

    judge = Judge(relevant)
    library._parts.__dict__["_reranker"] = judge
    monkeypatch.setattr(second_pass, "Cascade", partial(Cascade, clock=lambda: now_s))
    # Two videos take two seconds, a first group of further moments up to four.
    result = library.search("x", kind="video", budget_ms=5_900)
    assert list(map(len, judge.looks)) == [2]
    assert result.warnings == (
        "the time budget of 5900 ms allowed a look at 0 of 2 further moments of videos",
    )
    assert library.search("x", kind="video", budget_ms=6_100).warnings == ()
    assert list(map(len, judge.looks)) == [2, 2, 2]


def test_moments_are_in_the_table_and_in_csv(library: Library) -> None:
    result = library.search("x", kind="video", rerank=False)
    rows = {Path(r["path"]).name: r for r in csv.DictReader(io.StringIO(render(result, "csv")))}
    [hit] = [hit for hit in result.hits if hit.path.endswith("clip.mp4")]
    row = rows["clip.mp4"]
    assert float(row["keyframe_s"]) == hit.keyframe_s
    assert row["moments"] == "; ".join(f"{m.start_s:g}-{m.end_s:g}" for m in hit.moments)
    assert rows["other.mp4"]["moments"] == "0-5"
    also = [f"0:{int(m.start_s):02}-0:{int(m.end_s):02}" for m in hit.moments[1:]]
    assert f"also {', '.join(also)}" in " ".join(plain_table(result).split())


# The page


class Page(HTMLParser):
    """Start tags with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def hit_of(path: Path, *stretches: tuple[float, float], rank: int = 1) -> Hit:
    moments = tuple(
        Moment(start_s=start_s, end_s=end_s, keyframe_s=start_s, score=0.5)
        for start_s, end_s in stretches
    )
    first = moments[0]
    return Hit(
        rank=rank, id=str(rank), path=str(path), kind="video", score=1, recall_score=0.5,
        recall_rank=rank, start_s=first.start_s, end_s=first.end_s, keyframe_s=first.keyframe_s,
        moments=moments,
    )  # fmt: skip


def page_of(*hits: Hit, query: Query | None = None) -> tuple[Page, str]:
    result = SearchResult(query=query or Query(text="<b>x</b>"), hits=hits, timings_ms={"total": 1})
    text = render(result, "html")
    return Page(text), text


NAME = """a b #1 & 50% "it's"? é 图.mp4"""


def test_a_video_shows_its_keyframe_and_plays_from_its_moment(tmp_path: Path) -> None:
    path = write_clip(tmp_path / NAME, [1, 2], scene_s=2)
    page, text = page_of(hit_of(path, (2.0, 4.0), (0.0, 2.0)))
    [video] = page.all("video")
    assert video["preload"] == "none"
    assert (video["poster"] or "").startswith("data:image/jpeg;base64,")
    places = [video["src"]] + [a["href"] for a in page.all("a")]
    parsed = [urlsplit(place or "") for place in places]
    assert {place.scheme for place in parsed} == {"file"}
    assert {unquote(place.path) for place in parsed} == {str(path)}
    assert {place.query for place in parsed} == {""}
    # The player, the name, then every moment.
    best, other = "t=2.000,4.000", "t=0.000,2.000"
    assert [place.fragment for place in parsed] == [best, best, best, other]
    small = [image["src"] or "" for image in page.all("img")]
    assert len(small) == 2
    assert small[0] == video["poster"] != small[1]  # both as large as the video
    assert html.escape(NAME, quote=False) in text.replace("&#34;", '"').replace("&#39;", "'")
    assert "<b>x</b>" not in text
    assert not re.search(r"https?:(?!//www.w3.org)|@import|url[(]", text)


def test_what_no_browser_plays_is_a_picture_with_a_link(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", [1, 2], scene_s=2)
    page, _ = page_of(hit_of(path, (2.0, 4.0)))
    assert page.all("video") == []
    [image] = page.all("img")
    assert (image["src"] or "").startswith("data:image/jpeg;base64,")
    assert [a["href"] for a in page.all("a")] == [f"{path.as_uri()}#t=2.000,4.000"] * 2


def test_a_video_that_is_gone_keeps_its_place_and_the_reason(tmp_path: Path) -> None:
    page, text = page_of(hit_of(tmp_path / "gone.mp4", (0.0, 2.0), (2.0, 4.0)))
    assert page.all("video") == []
    assert '<p class="problem">no such file</p>' in text


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1], scene_s=1)
    strange = path.with_name("\udcff.mp4")
    path.rename(strange)
    page, text = page_of(hit_of(strange, (0.0, 1.0)))
    text.encode("utf-8")
    assert (page.all("a")[0]["href"] or "").endswith("/%FF.mp4#t=0.000,1.000")


def test_a_query_clip_is_shown(tmp_path: Path) -> None:
    page, _ = page_of(query=Query(video=write_clip(tmp_path / "clip.mp4", [1], scene_s=1)))
    [query] = page.all("img")
    assert query["alt"] == "what was looked for"
    assert (query["src"] or "").startswith("data:image/jpeg;base64,")
    page, _ = page_of(query=Query(video=tmp_path / "gone.mp4"))
    assert page.all("img") == []


def test_pictures_and_videos_stand_in_one_page(tmp_path: Path) -> None:
    [photo] = write_pictures(tmp_path, 1)
    clip = write_clip(tmp_path / "clip.mp4", [1], scene_s=1)
    image = Hit(
        rank=2, id="2", path=str(photo), kind="image", score=0, recall_score=0, recall_rank=2
    )
    page, _ = page_of(hit_of(clip, (0.0, 1.0)), image)
    assert [video["src"] for video in page.all("video")] == [f"{clip.as_uri()}#t=0.000,1.000"]
    assert [i["alt"] for i in page.all("img")] == [photo.name]
