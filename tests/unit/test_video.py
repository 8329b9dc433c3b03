"""Videos become segments with true times, cut at their shots, each with a frame that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from secondglance.errors import MediaError
from secondglance.ingest.shots import Scan
from secondglance.ingest.video import (
    FrameAt,
    VideoPlan,
    plan_even,
    plan_shots,
    read_frame_at,
    read_frames,
)
from secondglance.media.video import Decoder, Video
from secondglance.media.video_av import OpenFile
from tests.media import Frame, picture, write_clip

LIMIT = 178_956_970


def plan(path: Path, *, max_segment_s: float = 5.0, max_segments: int = 100) -> VideoPlan:
    found = plan_shots(
        path, max_segment_s=max_segment_s, max_segments=max_segments, max_pixels=LIMIT
    )
    assert isinstance(found, VideoPlan)
    return found


def stretches(found: VideoPlan) -> list[tuple[float | None, float | None]]:
    return [(s.start_s, s.end_s) for s in found.segments]


def distance(frame: Image.Image | None, seed: int) -> float:
    assert frame is not None
    return float(np.abs(np.asarray(frame, int) - np.asarray(picture(seed), int)).mean())


def write_frames(
    path: Path,
    frames: Sequence[tuple[float, Frame]],
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    ticks: int = 1000,
    container_format: str | None = None,
) -> Path:
    """A video of RGB frames with their times in seconds."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        height, width = frames[0][1].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, ticks)
        if rotation:
            stream.set_display_rotation(rotation)
        for time_s, pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time_s * ticks), Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def moving(seed: int, seconds: float, *, start_s: float = 0.0) -> Iterator[tuple[float, Frame]]:
    """A camera that pans over a picture, 25 frames a second."""
    wide = np.asarray(picture(seed, width=400, height=72), int)
    grain = np.random.default_rng(seed).integers(-30, 30, (9, 50)).repeat(8, 0).repeat(8, 1)
    wide = np.clip(wide + grain[..., None], 0, 255).astype(np.uint8)
    for count in range(round(seconds * 25)):
        yield start_s + count / 25, np.ascontiguousarray(wide[:, count : count + 96])


# Shots


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts"])
def test_shots_are_found_where_the_picture_changes(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, [1, 2, 3], scene_s=3.4)
    found = plan(path)
    assert stretches(found) == [(0, 3.4), (3.4, 6.8), (6.8, 10.2)]
    assert found.metadata == {"width": 96, "height": 72, "duration_s": 10.2}
    frames = read_frames(path, found.frames, max_pixels=LIMIT)
    for frame, seed in zip(frames, [1, 2, 3], strict=True):
        others = {1, 2, 3} - {seed}
        assert distance(frame, seed) < min(distance(frame, other) for other in others) / 3


@pytest.mark.parametrize("group", [12, 30, 250])
def test_cuts_within_a_group_of_frames_are_found_by_its_bytes(tmp_path: Path, group: int) -> None:
    fixed = f"keyint={group}:min-keyint={group}:scenecut=0"
    frames = [
        frame
        for place, seed in enumerate([5, 6, 7, 8])
        for frame in moving(seed, 2.2, start_s=2.2 * place)
    ]
    path = write_frames(tmp_path / "fixed.mp4", frames, options={"x264-params": fixed})
    assert stretches(plan(path)) == [(0, 2.2), (2.2, 4.4), (4.4, 6.6), (6.6, 8.8)]


def test_a_pan_is_one_shot(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "pan.mp4", list(moving(5, 4.0)))
    assert stretches(plan(path)) == [(0, 4)]


def test_long_shots_are_split_and_many_are_joined(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=6)
    assert stretches(plan(path)) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert stretches(plan(path, max_segment_s=6)) == [(0, 6), (6, 12)]
    few = plan(path, max_segment_s=0.5, max_segments=4)
    assert len(few.segments) == 4
    edges = [s.start_s for s in few.segments[1:]]
    assert edges == [s.end_s for s in few.segments[:-1]]
    assert few.segments[-1].end_s == 12


def test_frames_far_apart_give_one_segment_each(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "slow.mp4", [1, 2], scene_s=4, fps=1)
    assert stretches(plan(path, max_segment_s=0.25)) == [(i, i + 1) for i in range(8)]


def test_a_plan_is_the_same_however_often_it_was_interrupted(tmp_path: Path) -> None:
    frames = [frame for place in range(5) for frame in moving(place, 3.0, start_s=3.0 * place)]
    path = write_frames(tmp_path / "clip.mp4", frames, options={"x264-params": "keyint=25"})
    calls, found = 0, None
    while not isinstance(found, VideoPlan):
        found = plan_shots(
            path, found, max_segment_s=5, max_segments=99, max_pixels=LIMIT, budget_s=0.0
        )
        assert isinstance(found, Scan | VideoPlan)
        calls += 1
    assert calls > 5
    assert found == plan(path)
    assert len(found.shots) == 5


def test_keyframes_are_neither_black_nor_blurred(tmp_path: Path) -> None:
    sharp = picture(5, width=192, height=144)
    blurred = sharp.filter(ImageFilter.GaussianBlur(6))
    shown = [Image.new("RGB", sharp.size)] * 25 + [blurred] * 50 + [sharp] * 25 + [blurred] * 25
    frames = [(place / 25, np.asarray(image)) for place, image in enumerate(shown)]
    dense = {"x264-params": "keyint=10:min-keyint=10:scenecut=0"}
    path = write_frames(tmp_path / "clip.mp4", frames, options=dense)
    found = plan_shots(path, max_segment_s=60, max_segments=9, max_pixels=LIMIT)
    assert isinstance(found, VideoPlan)
    looks = [look for shot in found.shots for look in shot.looks]
    assert min(look.brightness for look in looks) < 2 < 30 < max(look.brightness for look in looks)
    [black, shown_then] = found.segments
    assert (black.end_s, shown_then.end_s) == (1, 5)
    assert shown_then.keyframe_s is not None
    assert 3 <= shown_then.keyframe_s < 4


# Stretches of equal length


def test_frames_a_second_instead_of_shots(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2, 3], scene_s=1.5)
    found = plan_even(path, step_s=0.5, max_segments=100, max_pixels=LIMIT)
    assert stretches(found) == [(i / 2, i / 2 + 0.5) for i in range(9)]
    assert [s.keyframe_s for s in found.segments][:3] == [0.2, 0.7, 1.2]
    assert len(plan_even(path, step_s=0.1, max_segments=4, max_pixels=LIMIT).segments) == 4


# Unusual files


def test_an_animated_gif_is_a_video(tmp_path: Path) -> None:
    frames = [picture(seed) for seed in (1, 2)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=1000)
    found = plan(tmp_path / "a.gif")
    assert found.metadata["duration_s"] == pytest.approx(2, abs=0.1)
    assert stretches(found) == [(0, 1), (1, 2)]


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    times = [0, 0.04, 0.08, 1.0, 1.04, 3.5, 3.52, 3.6, 4.0, 5.5]
    seeds = [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]
    shown = [(t, np.asarray(picture(seed))) for t, seed in zip(times, seeds, strict=True)]
    path = write_frames(tmp_path / "uneven.mkv", shown)
    assert Video(path).times_s == pytest.approx(times)
    found = plan(path)
    assert stretches(found)[0] == (0, 3.5)
    assert distance(read_frame_at(path, 3.4), 1) < 10
    assert distance(read_frame_at(path, 3.51), 2) < 10


def test_sideways_videos_are_turned_upright(tmp_path: Path) -> None:
    upright = picture(4, width=144, height=96)
    sideways = np.asarray(upright.transpose(Image.Transpose.ROTATE_90))
    shown = [(count / 25, sideways) for count in range(50)]
    path = write_frames(tmp_path / "phone.mp4", shown, rotation=-90)
    found = plan(path)
    assert (found.metadata["width"], found.metadata["height"]) == (144, 96)
    [frame] = read_frames(path, found.frames, max_pixels=LIMIT)
    assert frame is not None
    assert np.abs(np.asarray(frame, int) - np.asarray(upright, int)).mean() < 10


@pytest.mark.parametrize("kind", ["h264", "live.mkv"])
def test_files_without_duration_or_times(tmp_path: Path, kind: str) -> None:
    whole = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=2)
    path = tmp_path / f"stream.{kind}"
    frames = [(i / 25, np.asarray(picture(1 + i // 50))) for i in range(100)]
    if kind == "h264":
        write_frames(path, frames, container_format="h264")
    else:
        with (
            path.open("wb") as file,
            av.open(_Pipe(file), "w", format="matroska") as live,
            av.open(str(whole)) as source,
        ):
            copied = live.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.size:
                    packet.stream = copied
                    live.mux(packet)
    found = plan(path)
    assert stretches(found) == [(0, 2), (2, 4)]
    frames_read = read_frames(path, found.frames, max_pixels=LIMIT)
    assert [distance(frame, seed) < 10 for frame, seed in zip(frames_read, (1, 2), strict=True)]


class _Pipe:
    """A file that cannot be sought in, so that a writer cannot go back to note the duration."""

    def __init__(self, file: object) -> None:
        self.write = file.write  # type: ignore[attr-defined]


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "one.mp4", [3], scene_s=0.1)
    found = plan(path)
    assert stretches(found) == [(0, 0.1)]
    [frame] = read_frames(path, found.frames, max_pixels=LIMIT)
    assert distance(frame, 3) < 10


def test_sound_alone_is_refused_as_such(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        tone.rate = 8000
        container.mux(stream.encode(tone))
        container.mux(stream.encode())
    with pytest.raises(MediaError, match="it has no video stream but sound"):
        plan(tmp_path / "sound.mp4")


def test_refuses_what_is_no_video_or_too_large(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(MediaError, match="not a video that can be read"):
        plan(tmp_path / "text.mp4")
    path = write_clip(tmp_path / "clip.mp4", [1])
    with pytest.raises(MediaError, match=r"96x72 are over the limit of 100.*max_pixels"):
        plan_shots(path, max_segment_s=5, max_segments=9, max_pixels=100)
    with pytest.raises(MediaError, match=r"96x72 are over the limit of 100.*max_pixels"):
        plan_even(path, step_s=5, max_segments=9, max_pixels=100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError):
        plan(cut)


# Reading frames


def test_reads_the_frame_shown_at_a_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2])
    assert distance(read_frame_at(path, 4.9, max_pixels=LIMIT), 1) < 10
    assert distance(read_frame_at(path, 5.1, max_pixels=LIMIT), 2) < 10
    assert distance(read_frame_at(path, 99.0, max_pixels=LIMIT), 2) < 10


@pytest.mark.parametrize(
    ("name", "decoder"),
    [*((f"a.{name}", "pyav") for name in ("mp4", "avi", "ts", "mpg")), ("a.mp4", "decord")],
)
def test_frames_in_any_order_are_those_of_decoding_in_order(
    tmp_path: Path, name: str, decoder: Decoder
) -> None:
    codec = "mpeg1video" if name == "a.mpg" else "libx264"
    path = write_frames(
        tmp_path / name,
        list(moving(5, 4.0)),
        codec=codec,
        options={"g": "30", "bf": "2"},
        ticks=25,
    )
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    video = Video(path, decoder=decoder)
    assert len(video) == len(expected) == 100
    for index in (50, 7, 99, 8, 51, 30, 29, 0):
        wrong = np.abs(video.frame(index).astype(int) - expected[index]).mean()
        assert wrong < 0.5, (index, wrong)


def test_few_frames_of_a_long_video_are_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "long.mp4", list(range(60)), scene_s=5)
    decoded = 0
    decode = OpenFile.decode

    def counting(self: OpenFile, packet: object) -> list[object]:
        nonlocal decoded
        decoded += 1
        return decode(self, packet)

    monkeypatch.setattr(OpenFile, "decode", counting)
    times = [102.5, 202.5, 297.5]
    frames = read_frames(path, [FrameAt(time_s) for time_s in times], max_pixels=LIMIT)
    assert all(distance(frame, int(t // 5)) < 10 for frame, t in zip(frames, times, strict=True))
    assert decoded < 300  # of 3000


def test_a_frame_that_stays_is_found_though_others_need_it_not(tmp_path: Path) -> None:
    """Two seconds before the next: further back than frames that no other needs are read."""
    gap = {n: n / 25 if n <= 61 else 2 + n / 25 for n in range(100)}
    path = tmp_path / "gap.mkv"
    pan = [pixels for _, pixels in moving(5, 4.0)]
    for bf in range(4):
        options = {"g": "250", "bf": str(bf), "x264-params": "b-adapt=0:scenecut=0"}
        write_frames(path, [(gap[n], pan[n]) for n in range(100)], options=options)
        with av.open(str(path)) as container:
            expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for last in (61, 62, 99):
            [frame] = read_frames(path, [FrameAt(gap[last] + 0.03)], max_pixels=LIMIT)
            assert np.abs(np.asarray(frame, int) - expected[last]).mean() < 0.5, (bf, last)
        late = np.asarray(read_frame_at(path, gap[61] + 1.9), int)
        assert np.abs(late - expected[61]).mean() < 0.5, bf


def test_the_encoders_key_frame_stands_for_a_segment_if_it_is_as_good(tmp_path: Path) -> None:
    frames = [(count / 25, pixels) for count, (_, pixels) in enumerate(moving(5, 8.0))]
    frames += [(8 + count / 25, pixels) for count, (_, pixels) in enumerate(moving(9, 8.0))]
    options = {"x264-params": "keyint=100:min-keyint=100:scenecut=0"}
    path = write_frames(tmp_path / "a.mp4", frames, options=options)
    found = plan(path)
    assert len(found.shots) == 2
    chosen = [segment.keyframe_s for segment in found.segments]
    assert chosen == [0, 4, 8, 12]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_times_of_a_stretch_are_those_of_the_whole(tmp_path: Path, name: str) -> None:
    options = {"g": "30", "bf": "2"}
    path = write_frames(tmp_path / name, list(moving(5, 12.0)), options=options, ticks=25)
    video = Video(path)
    whole = video.times_s
    part = video.times_between(5.5, 6.5)
    assert part[0] <= 5.5
    assert part[-1] > 6.5
    assert len(part) < len(whole) / 2
    assert set(part) == {time for time in whole if part[0] <= time <= part[-1]}
    assert np.array_equal(video.times_between(None, None), whole)
    assert np.array_equal(video.times_between(60.0, 70.0), whole)
