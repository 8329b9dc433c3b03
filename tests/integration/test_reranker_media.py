"""What the reranker sees of pictures and clips: frames, true times, budgets, orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from secondglance.rerank import Qwen3VLReranker, prompt
from secondglance.rerank.clips import load_clip, sample
from secondglance.rerank.limits import Limits
from secondglance.rerank.pictures import load_image
from secondglance.rerank.preprocess import prepare
from secondglance.types import Content, VideoClip
from tests.media import picture, write_clip

QUERY = Content(texts=["two dogs on a beach"])


@pytest.fixture(scope="module")
def reranker(untrained_reranker: Path) -> Qwen3VLReranker:
    return Qwen3VLReranker(untrained_reranker, device="cpu")


def document_text(content: Content, limits: Limits | None = None) -> str:
    return prompt.as_text(prepare(content, limits or Limits()).pieces)


# Clips


def test_irregular_times_are_told_as_they_are() -> None:
    frames = [picture(seed) for seed in range(5)]
    text = document_text(Content(videos=[VideoClip(frames=frames, times_s=[0, 1, 10, 30.4, 61])]))
    # Frames go in pairs, the last one twice; a pair's time is the mean of its two.
    times = [part.split(" seconds>")[0].rpartition("<")[2] for part in text.split("<|vision_start")]
    assert times[:3] == ["0.5", "20.2", "61.0"]


def test_frames_without_times_count_two_a_second() -> None:
    frames = [picture(seed) for seed in range(4)]
    text = document_text(Content(videos=[VideoClip(frames=frames)]))
    assert text.startswith("<0.2 seconds><|vision_start|>")
    assert "<1.2 seconds><|vision_start|>" in text


def test_a_long_list_of_frames_keeps_its_times() -> None:
    frames = [picture(0)] * 10
    clip = VideoClip(frames=frames, times_s=[3.0 * place for place in range(10)])
    _, times_s = load_clip(clip, Limits(max_listed_frames=4))
    assert times_s == (4.5, 22.5)  # frames 0, 3, 6, 9


def test_times_in_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", [1, 2, 3, 4], scene_s=5, fps=10)
    pixels, times_s = load_clip(VideoClip(path=video), Limits())
    assert len(pixels) == 20
    assert times_s[0] == pytest.approx((0 + 19.9 / 19) / 2, abs=0.1)
    assert times_s[-1] == pytest.approx((19.9 + 19.9 * 18 / 19) / 2, abs=0.1)

    text = document_text(Content(videos=[VideoClip(path=video, start_s=10, end_s=14)]))
    pixels, times_s = load_clip(VideoClip(path=video, start_s=10, end_s=14), Limits())
    assert len(pixels) == 4
    assert times_s == pytest.approx((10.65, 13.25), abs=0.11)
    assert text.startswith(f"<{times_s[0]:.1f} seconds>")


def test_sampling_follows_true_times() -> None:
    times_s = np.array([0.0, 0.1, 0.2, 0.3, 10.0, 20.0, 20.1])
    chosen = sample(times_s, start_s=None, end_s=None, fps=1, max_frames=4)
    assert chosen.tolist() == [0, 4, 4, 6]
    chosen = sample(times_s, start_s=0.1, end_s=0.3, fps=1, max_frames=64)
    assert chosen.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [(0.34, 0.36, [3]), (0.3, 0.35, [3]), (0.95, None, [9]), (0.2, 0.5, [2, 4])],
)
def test_short_stretches(start_s: float, end_s: float | None, expected: list[int]) -> None:
    times_s = np.arange(10) / 10
    chosen = sample(times_s, start_s=start_s, end_s=end_s, fps=1, max_frames=64)
    assert chosen.tolist() == expected


def test_a_clip_of_one_frame_is_shown_twice(reranker: Qwen3VLReranker, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", [1], scene_s=1, fps=10)
    for clip in (
        VideoClip(path=video, start_s=0.35, end_s=0.36),
        VideoClip(frames=[picture(1)], times_s=[0.3]),
    ):
        pixels, times_s = load_clip(clip, Limits())
        assert len(pixels) == 2
        assert torch.equal(pixels[0], pixels[1])
        assert times_s == pytest.approx((0.3,))
        assert reranker.score(QUERY, [Content(videos=[clip])])[0].error is None


def test_a_stretch_behind_the_end_is_an_error(reranker: Qwen3VLReranker, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "clip.mp4", [1], scene_s=2)
    clip = VideoClip(path=video, start_s=60.0, end_s=70.0)
    [answer] = reranker.score(QUERY, [Content(videos=[clip])])
    assert answer.error is not None
    assert "clip.mp4: the clip begins at 60 s, the video ends at 2 s" in answer.error


# Budgets


@pytest.mark.parametrize("size", [(20, 20), (300, 200), (5000, 4000), (6000, 90)])
def test_images_stay_within_their_pixels(size: tuple[int, int]) -> None:
    limits = Limits(min_pixels=16 * 1024, max_pixels=200 * 1024)
    pixels = load_image(Image.new("RGB", size), limits)
    assert pixels.shape[1] % 32 == pixels.shape[2] % 32 == 0
    assert 16 * 1024 <= pixels.shape[1] * pixels.shape[2] <= 200 * 1024


def test_max_pixels_bounds_the_tokens(untrained_reranker: Path) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, device="cpu", max_pixels=50 * 1024)
    encoded = reranker.encode(QUERY, Content(images=[picture(1, width=900, height=700)]))
    pad = reranker.processor.tokenizer.get_vocab()["<|image_pad|>"]
    assert 40 <= int((encoded.ids == pad).sum()) <= 50


@pytest.mark.parametrize("total_tokens", [64, 300, 2000, 7680])
@pytest.mark.parametrize("as_file", [True, False])
def test_videos_stay_within_their_pixels(total_tokens: int, as_file: bool, tmp_path: Path) -> None:
    limits = Limits(total_pixels=total_tokens * 1024, max_frames=32)
    if as_file:
        clip = VideoClip(path=write_clip(tmp_path / "clip.mp4", range(20), scene_s=1, fps=5))
    else:
        clip = VideoClip(frames=[picture(seed, width=1280, height=960) for seed in range(20)])
    pixels, _ = load_clip(clip, limits)
    assert len(pixels) == 20
    tokens = len(pixels) // 2 * (pixels.shape[2] // 32) * (pixels.shape[3] // 32)
    assert tokens <= total_tokens


def test_fps_and_max_frames(tmp_path: Path) -> None:
    clip = VideoClip(path=write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=5, fps=10))
    counts = [
        len(load_clip(clip, Limits(fps=fps, max_frames=most))[0])
        for fps, most in [(1.0, 64), (2.0, 64), (2.0, 8), (0.1, 64), (1.0, 7), (1.0, 1)]
    ]
    assert counts == [10, 20, 8, 4, 6, 2]


def test_media_that_would_push_out_the_query_fail_alone(untrained_reranker: Path) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, device="cpu", max_length=600)
    large = Content(images=[picture(1, width=1000, height=800)])
    answers = reranker.score(QUERY, [large, Content(images=[picture(2)])])
    assert answers[0].score is None
    assert "leave no room for the query's text" in str(answers[0].error)
    assert answers[1].error is None


# Pictures


def test_sideways_photos_are_turned_upright(reranker: Qwen3VLReranker, tmp_path: Path) -> None:
    upright = picture(4, width=320, height=128)
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(tmp_path / "sideways.png", exif=exif)
    turned = load_image(tmp_path / "sideways.png", Limits())
    assert torch.equal(turned, load_image(upright, Limits()))


def test_transparency_is_white() -> None:
    pixels = load_image(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), Limits())
    assert bool((pixels == 255).all())


def test_every_common_mode_is_read(reranker: Qwen3VLReranker) -> None:
    modes = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"]
    documents = [Content(images=[Image.new(mode, (40, 30))]) for mode in modes]
    assert [answer.error for answer in reranker.score(QUERY, documents)] == [None] * len(modes)
