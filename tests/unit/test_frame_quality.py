"""What is measured of a frame, and which frames of a video could stand for it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from secondglance.errors import MediaError
from secondglance.ingest.frame_choice import (
    MOST,
    FrameChoice,
    candidates,
    distinct,
    frames_at,
    sharp_and_bright,
)
from secondglance.ingest.frame_quality import LONG_SIDE, luma, measure, sharpness
from tests.media import Frame, picture, write_clip, write_frames


def textured(width: int = 320, height: int = 240, seed: int = 0) -> Image.Image:
    """Shapes with fine detail on them."""
    grain = np.random.default_rng(seed).integers(-40, 40, (height, width, 1))
    pixels = np.asarray(picture(seed, width=width, height=height), dtype=int) + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def pixels(image: Image.Image) -> Frame:
    return np.asarray(image.convert("RGB"))


def test_sharpness_is_the_variance_of_the_laplacian_over_the_energy_of_the_gradient() -> None:
    grey = np.zeros((5, 5), dtype=np.float32)
    grey[2, 2] = 1
    laplacian = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    # Two of the 20 steps along each axis.
    expected = laplacian.var() / (2 * 2 / 20 + 4 * (3 / 255) ** 2)
    assert sharpness(grey) == pytest.approx(expected, rel=1e-5)
    assert sharpness(np.ones((2, 9), dtype=np.float32)) == 0


def test_sharpness_falls_with_every_blur_and_not_with_contrast() -> None:
    image = textured()
    blurred = [image.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 2, 4)]
    found = [measure(pixels(each)).sharpness for each in blurred]
    assert all(sharper > 1.5 * next_ for sharper, next_ in pairwise(found))
    faint = (pixels(image) // 2 + 60).astype(np.uint8)
    assert measure(faint).sharpness == pytest.approx(found[0], rel=0.1)
    assert measure(faint).contrast == pytest.approx(measure(pixels(image)).contrast / 2, rel=0.02)


def test_sharpness_does_not_follow_the_size_of_the_video() -> None:
    image = textured(480, 360)
    larger = image.resize((1920, 1440), Image.Resampling.NEAREST)
    assert max(luma(pixels(larger)).shape) == LONG_SIDE
    assert measure(pixels(larger)).sharpness == pytest.approx(
        measure(pixels(image)).sharpness, rel=0.02
    )


def test_sharpness_does_not_follow_how_much_of_a_frame_is_even() -> None:
    image = textured()
    framed = Image.new("RGB", (640, 480), "black")
    framed.paste(image.resize((320, 240)), (160, 120))
    same = Image.new("RGB", (640, 480))
    for place in ((0, 0), (320, 0), (0, 240), (320, 240)):
        same.paste(image, place)
    assert measure(pixels(framed)).sharpness == pytest.approx(
        measure(pixels(same)).sharpness, rel=0.1
    )


def test_grain_on_a_flat_frame_is_not_sharp() -> None:
    grain = np.random.default_rng(1).integers(100, 104, (240, 320, 3)).astype(np.uint8)
    assert measure(grain).sharpness < measure(pixels(textured())).sharpness / 4


@pytest.mark.parametrize(
    ("frame", "brightness", "exposed"),
    [
        (np.zeros((9, 9, 3), np.uint8), 0.0, False),
        (np.full((9, 9, 3), 255, np.uint8), 1.0, False),
        (np.full((9, 9, 3), 128, np.uint8), 128 / 255, False),  # a blank
        (pixels(textured()), None, True),
        ((pixels(textured()) * 0.05).astype(np.uint8), None, False),
        (np.repeat(np.array([[[0, 0, 0]], [[255, 255, 255]]], np.uint8), 9, axis=1), 0.5, False),
    ],
)
def test_what_shows_something(frame: Frame, brightness: float | None, exposed: bool) -> None:
    found = measure(frame)
    assert found.exposed == exposed
    if brightness is not None:
        assert found.brightness == pytest.approx(brightness, abs=0.01)


def test_grey_and_colour_frames_are_measured_alike() -> None:
    colour = pixels(textured())
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    assert measure(grey) == measure(colour)


# Candidates


def test_candidates_are_spread_and_each_is_the_sharpest_around(tmp_path: Path) -> None:
    sharp, soft = textured(96, 72), textured(96, 72).filter(ImageFilter.GaussianBlur(3))
    # Ten frames a second, every fifth is sharp.
    frames = [pixels(sharp if number % 5 == 0 else soft) for number in range(120)]
    path = write_frames(tmp_path / "clip.mp4", frames, fps=10)
    seen: list[tuple[int, int]] = []
    found = candidates(path, on_progress=lambda done, total: seen.append((done, total)))
    times_s = [choice.time_s for choice in found]
    assert times_s == sorted(times_s)
    assert max(np.diff([0, *times_s, 12])) < 2.0  # all over the video
    assert sum(round(time_s * 10) % 5 == 0 for time_s in times_s) >= 0.8 * len(times_s)
    assert seen == [(number, len(seen)) for number in range(1, len(seen) + 1)]
    assert len(found) == len(seen)
    assert all(choice.preview.size == (96, 72) for choice in found)


def test_every_shot_has_a_candidate(tmp_path: Path) -> None:
    # Two shots of half a second, which even steps of 1.5 s would pass over.
    path = tmp_path / "clip.mp4"
    shown = [*[1] * 40, *[2] * 5, *[3] * 40, *[4] * 5, *[5] * 30]
    write_frames(path, [pixels(textured(96, 72, seed=seed)) for seed in shown], fps=10)
    times_s = np.array([choice.time_s for choice in candidates(path)])
    for start_s, end_s in ((0, 4), (4, 4.5), (4.5, 8.5), (8.5, 9), (9, 12)):
        assert ((times_s >= start_s) & (times_s < end_s)).any(), (start_s, end_s)


def test_a_long_video_has_a_bounded_number_of_candidates(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "long.mp4", range(100), scene_s=4, fps=1)
    found = candidates(path)
    assert len(found) == MOST
    assert found[0].time_s < 4
    assert found[-1].time_s > 395


def test_one_frame_is_enough(tmp_path: Path) -> None:
    [choice] = candidates(write_clip(tmp_path / "clip.mp4", [1], scene_s=0.1, fps=10))
    assert choice.time_s == 0


def test_frames_are_read_in_full_size_at_their_times(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=2)
    found = [*frames_at(path, [0.5, 1.95, 2.0])]
    assert [time_s for time_s, _ in found] == [0.5, 1.95, 2.0]
    for (_, frame), seed in zip(found, [1, 1, 2], strict=True):
        assert frame.size == (96, 72)
        assert np.abs(np.asarray(frame, int) - np.asarray(picture(seed), int)).mean() < 10


def test_frames_over_the_limit_are_an_error(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1], scene_s=1)
    with pytest.raises(MediaError, match="96x72 are over the limit"):
        candidates(path, max_pixels=100)


def choice(time_s: float, image: Image.Image) -> FrameChoice:
    quality = measure(pixels(image))
    return FrameChoice(
        time_s=time_s,
        sharpness=quality.sharpness,
        brightness=quality.brightness,
        exposed=quality.exposed,
        preview=image,
    )


def test_the_blurred_and_the_black_are_left_out() -> None:
    sharp = [textured(seed=seed) for seed in range(4)]
    blurred = sharp[0].filter(ImageFilter.GaussianBlur(4))
    black, white = Image.new("RGB", (96, 72)), Image.new("RGB", (96, 72), "white")
    found = [choice(n, image) for n, image in enumerate([black, *sharp, white, blurred])]
    assert [frame.time_s for frame in sharp_and_bright(found)] == [1, 2, 3, 4]
    # Where all are soft, soft is what the video has.
    soft = [choice(n, each.filter(ImageFilter.GaussianBlur(4))) for n, each in enumerate(sharp)]
    assert len(sharp_and_bright(soft)) >= 3
    assert sharp_and_bright([choice(0, black)]) == []


def test_near_duplicates_of_earlier_ones_are_left_out() -> None:
    first, second = textured(seed=1), textured(seed=2)
    brighter = Image.fromarray(np.clip(pixels(first).astype(int) + 4, 0, 255).astype(np.uint8))
    found = [choice(n, image) for n, image in enumerate([first, brighter, second, first])]
    assert [frame.time_s for frame in distinct(found)] == [0, 2]
