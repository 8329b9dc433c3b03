"""Covers of films whose scenes are known: which frames are taken, and what is written."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import secondglance
from secondglance.errors import InputError, MediaError, RerankError
from secondglance.ingest.frame_choice import frames_at
from secondglance.pipelines import cover as pipeline
from secondglance.pipelines.cover import CoverResult, Progress
from secondglance.scenes.collection import write_collection
from tests.media import Frame, picture, write_clip, write_frames

SIDE = 384
FPS = 5
SCENE_S = 2.0
NO_MODEL = {"recall": {"model": "/nowhere"}, "rerank": {"model": "/nowhere"}}


@dataclass(frozen=True)
class Film:
    """A film of four scenes, each blurred in its first half, after a second of black."""

    path: Path
    titles: tuple[str, ...]

    def scene_at(self, time_s: float) -> int:
        return int((time_s - 1) // SCENE_S)

    def is_sharp(self, time_s: float) -> bool:
        return time_s >= 1 and (time_s - 1) % SCENE_S >= SCENE_S / 2


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    folder = tmp_path_factory.mktemp("film")
    made = write_collection(
        folder / "scenes", pictures=4, clips=0, texts=0, family=1, image_queries=0, seed=5
    )

    def frames() -> Iterator[Frame]:
        for _ in range(FPS):
            yield np.zeros((SIDE, SIDE, 3), np.uint8)
        for entry in made.entries:
            with Image.open(folder / "scenes" / entry.path) as opened:
                shown = opened.resize((SIDE, SIDE))
            blurred = shown.filter(ImageFilter.GaussianBlur(6))
            for number in range(int(SCENE_S * FPS)):
                yield np.asarray(shown if number >= SCENE_S * FPS / 2 else blurred)

    path = write_frames(folder / "A film #1 & 'more'.mp4", frames(), fps=FPS)
    titles = {r.relevant[0]: r.text for r in made.requests if r.language == "en"}
    return Film(path, tuple(titles[entry.path] for entry in made.entries))


def make(film: Film | Path, out: Path, **options: object) -> CoverResult:
    path = film.path if isinstance(film, Film) else film
    return secondglance.cover(path, out=out, preset="starter", **options)  # type: ignore[arg-type]


def same_picture(path: str, seed: int) -> bool:
    with Image.open(path) as opened:
        return float(np.abs(np.asarray(opened, int) - np.asarray(picture(seed), int)).mean()) < 12


def test_the_title_picks_the_scene_and_the_frame_is_sharp(film: Film, tmp_path: Path) -> None:
    stages: list[Progress] = []
    for number in (0, 3):
        title = film.titles[number]
        out = tmp_path / f"covers {number}"
        result = make(film, out, title=title, on_progress=stages.append)
        assert result.warnings == ()
        [found] = result.covers
        assert film.scene_at(found.time_s) == number
        assert film.is_sharp(found.time_s)
        assert found.rerank_score is not None
        assert found.rerank_score > 0.9
        assert found.recall_score is not None
        assert (found.rank, result.title, result.video) == (1, title, str(film.path))
        assert [Path(found.path)] == [*out.iterdir()]
        assert Path(found.path).name == f"{film.path.stem}-cover-01-00m{found.time_s:06.3f}s.jpg"
        with Image.open(found.path) as opened:
            assert (opened.format, opened.size) == ("JPEG", (SIDE, SIDE))
    assert [p.stage for p in stages][:2] == ["load", "look"]
    assert {p.stage for p in stages} == {"look", "load", "recall", "rerank", "write"}


def test_more_covers_are_of_different_scenes_best_first(film: Film, tmp_path: Path) -> None:
    result = make(film, tmp_path, title=film.titles[2], n=4)
    assert [found.rank for found in result.covers] == [1, 2, 3, 4]
    scores = [found.score for found in result.covers]
    assert scores == sorted(scores, reverse=True)
    scenes = [film.scene_at(found.time_s) for found in result.covers]
    assert scenes[0] == 2
    assert sorted(scenes) == [0, 1, 2, 3]
    assert all(film.is_sharp(found.time_s) for found in result.covers)
    assert len([*tmp_path.iterdir()]) == 4


def test_without_a_title_the_sharpest_are_taken_and_no_model(film: Film, tmp_path: Path) -> None:
    result = make(film, tmp_path, n=3, settings=NO_MODEL)
    assert len(result.covers) == 3
    assert all(film.is_sharp(found.time_s) for found in result.covers)
    assert all(found.rerank_score is found.recall_score is None for found in result.covers)
    sharpness = [found.sharpness for found in result.covers]
    assert sharpness == sorted(sharpness, reverse=True)
    assert result.covers[0].score == 1  # none is sharper


def test_without_a_second_pass_clip_chooses(film: Film, tmp_path: Path) -> None:
    settings = {"rerank": {"model": "/nowhere"}}
    found = make(film, tmp_path, title=film.titles[1], rerank=False, settings=settings)
    assert found.warnings == ()
    assert found.covers[0].rerank_score is None
    assert found.covers[0].recall_score is not None
    failed = make(film, tmp_path, title=film.titles[1], settings=settings)
    [warning] = failed.warnings
    assert "second pass failed, covers are by CLIP alone" in warning
    assert "/nowhere" in warning
    assert [c.time_s for c in failed.covers] == [c.time_s for c in found.covers]


def test_a_second_pass_that_says_no_leaves_the_choice_to_clip(film: Film, tmp_path: Path) -> None:
    title = "the minutes of a meeting about taxes"
    result = make(film, tmp_path, title=title)
    assert "second pass finds no match" in result.warnings[0]
    assert result.covers[0].rerank_score is not None
    without = make(film, tmp_path, title=title, rerank=False)
    assert [c.time_s for c in result.covers] == [c.time_s for c in without.covers]
    assert result.covers[0].score == pytest.approx(without.covers[0].score)


def test_only_the_best_of_the_first_pass_reach_the_second(
    film: Film, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    class Judge:
        def score(self, query: object, documents: list[object]) -> list[object]:
            looks.append(len(documents))
            raise RerankError("enough")

    monkeypatch.setattr(pipeline, "open_reranker", lambda settings: Judge())
    make(film, tmp_path, title=film.titles[0], settings={"search": {"recall": 2}})
    assert looks == [2]


def test_a_black_film_has_a_cover_and_a_warning(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "black.mp4", [np.zeros((48, 64, 3), np.uint8)] * 20)
    result = make(path, tmp_path / "out")
    [warning] = result.warnings
    assert warning.startswith("only 0 of 8 frames looked at are sharp, bright and different")
    assert len(result.covers) == 1
    assert result.covers[0].brightness < 0.1


def test_near_duplicates_are_taken_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2, 1, 2], scene_s=2)
    two = make(path, tmp_path / "two", n=2)
    assert two.warnings == ()
    assert {same_picture(found.path, 1) for found in two.covers} == {True, False}
    three = make(path, tmp_path / "three", n=3)
    assert len(three.covers) == 3
    assert "only 2 of 8 frames" in three.warnings[0]


def test_fewer_frames_than_covers(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=0.1)
    result = make(path, tmp_path / "out", n=5)
    assert len(result.covers) == 2
    assert result.warnings[-1] == "5 covers were asked for, the video has 2 frames to take"


def test_png_is_the_frame_itself(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=2)
    [found] = make(path, tmp_path / "out", image_format="png").covers
    [(_, frame)] = frames_at(path, [found.time_s])
    with Image.open(found.path) as opened:
        assert opened.format == "PNG"
        assert np.array_equal(np.asarray(opened), np.asarray(frame))


def test_a_sideways_video_gives_an_upright_cover(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [7], scene_s=2)
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of a version 0 box
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 72 << 16, 0, 1 << 30)  # a quarter clockwise
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turned)
    path.write_bytes(data)
    [found] = make(path, tmp_path / "out").covers
    with Image.open(found.path) as opened:
        assert opened.size == (72, 96)
        expected = picture(7).transpose(Image.Transpose.ROTATE_270)
        assert np.abs(np.asarray(opened, int) - np.asarray(expected, int)).mean() < 12


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [1], scene_s=1)
    with pytest.raises(InputError, match=r"there is no video '.*none\.mp4'"):
        make(tmp_path / "none.mp4", tmp_path / "out")
    with pytest.raises(InputError, match="n is 0"):
        make(clip, tmp_path / "out", n=0)
    with pytest.raises(InputError, match="image format 'gif' is unknown"):
        make(clip, tmp_path / "out", image_format="gif")
    with pytest.raises(InputError, match="cannot make the folder"):
        make(clip, clip / "out")
    with pytest.raises(MediaError, match="over the limit"):
        make(clip, tmp_path / "out", settings={"ingest": {"max_pixels": 100}})
    random.seed(0)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(random.randbytes(5000))
    with pytest.raises(MediaError, match=r"cannot use the video .*broken\.mp4: not a video"):
        make(broken, tmp_path / "out")


def test_a_video_may_be_opened_before_torch_is_loaded(tmp_path: Path) -> None:
    # decord opens NVIDIA's libraries for the whole process, and torch would then crash.
    clip = write_clip(tmp_path / "clip.mp4", [1], scene_s=1)
    code = (
        f"from pathlib import Path; from secondglance.media.video import Video\n"
        f"Video(Path({str(clip)!r}))\n"
        "import torch; a = torch.ones(64, 64); print(int((a @ a).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(64**3), done.stderr
