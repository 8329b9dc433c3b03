"""Videos become stretches with true times, each with the frame at its middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import MediaError
from secondglance.ingest.video import plan_video, read_frame_at, read_frames
from tests.media import picture, write_clip

LIMIT = 178_956_970


def distance(frame: Image.Image | None, seed: int) -> float:
    assert frame is not None
    return float(np.abs(np.asarray(frame, int) - np.asarray(picture(seed), int)).mean())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_cuts_into_stretches_that_cover_the_video(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, [1, 2, 3])
    plan = plan_video(path, segment_s=5, max_segments=100, max_pixels=LIMIT)
    assert [(s.start_s, s.end_s) for s in plan.segments] == [(0, 5), (5, 10), (10, 15)]
    assert plan.metadata == {"width": 96, "height": 72, "duration_s": 15.0}
    frames = read_frames(path, plan.frames, max_pixels=LIMIT)
    for frame, seed in zip(frames, [1, 2, 3], strict=True):
        others = {1, 2, 3} - {seed}
        assert distance(frame, seed) < min(distance(frame, other) for other in others) / 3


def test_a_long_video_gets_longer_stretches(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2, 3])
    plan = plan_video(path, segment_s=0.5, max_segments=4, max_pixels=LIMIT)
    assert len(plan.segments) == 4
    assert plan.segments[0].start_s == 0
    assert plan.segments[-1].end_s == 15


def test_frames_far_apart_give_one_stretch_each(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "slow.mp4", [1, 2], scene_s=4, fps=1)
    plan = plan_video(path, segment_s=0.25, max_segments=100, max_pixels=LIMIT)
    assert len(set(plan.frames)) == len(plan.frames) == 8
    edges = [s.start_s or 0.0 for s in plan.segments] + [plan.segments[-1].end_s or 0.0]
    assert edges == sorted(edges)
    assert edges[0] == 0
    assert edges[-1] == 8


def test_an_animated_gif_is_a_video(tmp_path: Path) -> None:
    frames = [picture(seed) for seed in (1, 2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=1000)
    plan = plan_video(tmp_path / "a.gif", segment_s=1, max_segments=10, max_pixels=LIMIT)
    assert plan.metadata["duration_s"] == pytest.approx(2, abs=0.1)
    assert len(plan.segments) == 2


def test_reads_the_frame_shown_at_a_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2])
    assert distance(read_frame_at(path, 4.9, max_pixels=LIMIT), 1) < 10
    assert distance(read_frame_at(path, 5.1, max_pixels=LIMIT), 2) < 10
    assert distance(read_frame_at(path, 99.0, max_pixels=LIMIT), 2) < 10


def test_refuses_what_is_no_video_or_too_large(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="not a video that can be read"):
        plan_video(tmp_path / "text.mp4", segment_s=5, max_segments=9, max_pixels=LIMIT)
    path = write_clip(tmp_path / "clip.mp4", [1])
    with pytest.raises(MediaError, match=r"96x72 are over the limit of 100.*max_pixels"):
        plan_video(path, segment_s=5, max_segments=9, max_pixels=100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError):
        plan_video(cut, segment_s=5, max_segments=9, max_pixels=LIMIT)
