"""Clips: which frames of a video the model sees, how large, and when they happen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import MediaError
from secondglance.media.pictures import one_line
from secondglance.media.video import Video
from secondglance.rerank.limits import (
    FRAME_MIN_PIXELS,
    MIN_FRAMES,
    PATCH_SIZE,
    TOKEN_SIZE,
    UNTIMED_FPS,
    Limits,
)
from secondglance.rerank.pictures import read_picture
from secondglance.types import VideoClip

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

    Times = npt.NDArray[np.float64]
    Indices = npt.NDArray[np.int64]


CLOCK_S = 1e-3
"""What times may be off by: decord rounds them to float32, segments to milliseconds."""


def load_clip(clip: VideoClip, limits: Limits) -> tuple[torch.Tensor, tuple[float, ...]]:
    """Reads and resizes a clip.

    Returns:
        uint8 of shape (frames, 3, height, width), an even number of frames, and the time of
        each pair of frames in seconds: the mean of its two.

    Raises:
        MediaError: It cannot be read.
    """
    pixels, times_s = read_frames(clip, limits)
    if len(pixels) % 2:
        # The model reads frames in pairs.
        pixels = pixels[[*range(len(pixels)), -1]]
        times_s = np.append(times_s, times_s[-1])
    return pixels, tuple(float(a + b) / 2 for a, b in zip(times_s[::2], times_s[1::2], strict=True))


def read_frames(clip: VideoClip, limits: Limits) -> tuple[torch.Tensor, Times]:
    """Reads the frames of a clip that the model sees, resized.

    Returns:
        uint8 of shape (frames, 3, height, width), and the time of each in seconds.

    Raises:
        MediaError: It cannot be read.
    """
    if clip.frames and clip.sampled:
        return _from_sampled(clip, limits)
    if clip.frames:
        return _from_frames(clip, limits)
    if clip.path is None:
        raise MediaError("a clip without a file and without frames")
    try:
        return _from_file(clip.path, clip, limits)
    except MediaError as error:
        raise MediaError(f"{clip.path}: {error.problem}", remedy=error.remedy) from None


def sample(
    times_s: Times,
    *,
    start_s: float | None,
    end_s: float | None,
    fps: float,
    max_frames: int,
    keyframe_s: float | None = None,
) -> Indices:
    """Picks frames of the stretch [start_s, end_s), evenly spread in time.

    The number of frames is that of `qwen_vl_utils.smart_nframes`: `fps` a second, at least 4 and
    at most `max_frames` where there are as many, and even; but a stretch of one frame is fine.
    A keyframe, by which the stretch was found, takes the place of the frame nearest to it: a long
    shot of few frames could otherwise be judged without what it was found for.

    Args:
        times_s: Start of every frame of the file, never decreasing, shape (frames,).
        start_s: None for the beginning.
        end_s: None for the end.
        fps: Frames a second.
        max_frames: At most so many.
        keyframe_s: Time of a frame that is picked if it lies in the stretch.

    Raises:
        MediaError: The stretch lies behind the end of the video.
    """
    spacing_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    start = 0.0 if start_s is None else start_s
    if start > times_s[-1] + spacing_s:
        raise MediaError(
            f"the clip begins at {start:g} s, the video ends at {times_s[-1] + spacing_s:g} s"
        )
    first = int(np.searchsorted(times_s, start - CLOCK_S, side="left"))
    stop = len(times_s)
    if end_s is not None:
        stop = int(np.searchsorted(times_s, end_s - CLOCK_S, side="left"))
    count = stop - first
    if count < 1:  # between two frames: the one on screen
        return np.array([_shown_at(times_s, start)])
    key = None if keyframe_s is None else _shown_at(times_s, keyframe_s)
    if key is not None and not first <= key < stop:
        key = None
    if count == 1 or max_frames < 2:
        return np.array([first + (count - 1) // 2 if key is None else key])
    duration_s = float(times_s[stop - 1] - times_s[first]) + spacing_s
    wanted = min(max(duration_s * fps, MIN_FRAMES), max_frames // 2 * 2, count)
    targets = np.linspace(times_s[first], times_s[stop - 1], int(wanted + CLOCK_S) // 2 * 2)
    after = np.clip(np.searchsorted(times_s, targets), first, stop - 1)
    before = np.clip(after - 1, first, stop - 1)
    nearer = np.abs(times_s[after] - targets) <= np.abs(targets - times_s[before])
    chosen = np.where(nearer, after, before).astype(np.int64)
    if key is not None:
        chosen[np.argmin(np.abs(times_s[chosen] - times_s[key]))] = key
    return chosen


def _shown_at(times_s: Times, time_s: float) -> int:
    """Index of the frame that is on screen."""
    return max(int(np.searchsorted(times_s, time_s + CLOCK_S, side="right")) - 1, 0)


def _from_frames(clip: VideoClip, limits: Limits) -> tuple[torch.Tensor, Times]:
    import torch
    from qwen_vl_utils import fetch_video

    count = len(clip.frames)
    if clip.times_s is not None and len(clip.times_s) != count:
        raise MediaError(f"a clip of {count} frames with {len(clip.times_s)} times")
    chosen = np.arange(count)
    if count > limits.max_listed_frames:
        chosen = np.linspace(0, count - 1, limits.max_listed_frames, dtype=int)
    pictures = [read_picture(clip.frames[int(index)]) for index in chosen]
    request: dict[str, Any] = {"video": pictures, "total_pixels": limits.total_pixels}
    fewest, _ = limits.frame_pixels(len(pictures) + len(pictures) % 2)
    if fewest < FRAME_MIN_PIXELS:
        request["min_pixels"] = fewest
    try:
        # The script's own path, which resizes twice; it also repeats the last of an odd number.
        video: torch.Tensor = fetch_video(request, image_patch_size=PATCH_SIZE)
    except Exception as error:
        raise MediaError(f"a clip of {count} frames: {one_line(error)}") from None
    if clip.times_s is None:
        # As the script: the frames that are left after sampling, two a second.
        times_s = np.arange(len(video)) / UNTIMED_FPS
    else:
        times_s = np.asarray(clip.times_s, dtype=np.float64)[chosen]
        times_s = np.append(times_s, times_s[-1:])[: len(video)]
    return video.to(torch.uint8), times_s


def _from_sampled(clip: VideoClip, limits: Limits) -> tuple[torch.Tensor, Times]:
    import torch

    count = len(clip.frames)
    if clip.times_s is None or len(clip.times_s) != count:
        raise MediaError(f"a clip of {count} frames of a file needs as many times")
    # One frame at a time, as from a file.
    frames = [
        _resize(np.array(read_picture(frame).convert("RGB")), count, limits)
        for frame in clip.frames
    ]
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(f"a clip of {count} frames of different sizes")
    return torch.stack(frames), np.asarray(clip.times_s, dtype=np.float64)


def _from_file(path: Path, clip: VideoClip, limits: Limits) -> tuple[torch.Tensor, Times]:
    import torch

    video = Video(path)
    times_s = video.times_between(clip.start_s, clip.end_s)
    chosen = sample(
        times_s,
        start_s=clip.start_s,
        end_s=clip.end_s,
        keyframe_s=clip.keyframe_s,
        fps=limits.fps,
        max_frames=limits.max_frames,
    )
    # One frame at a time: 64 frames of a large video at once would take gigabytes.
    frames = [
        _resize(video.frame_at(float(time_s), exact=True), len(chosen), limits)
        for time_s in times_s[chosen]
    ]
    return torch.stack(frames), times_s[chosen]


def _resize(frame: npt.NDArray[np.uint8], frames: int, limits: Limits) -> torch.Tensor:
    """Resizes one of `frames` frames, (height, width, 3), as `qwen_vl_utils.fetch_video` does."""
    import torch
    from qwen_vl_utils import smart_resize
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    fewest, most = limits.frame_pixels(frames + frames % 2)
    try:
        height, width = smart_resize(
            *frame.shape[:2], factor=TOKEN_SIZE, min_pixels=fewest, max_pixels=most
        )
        resized: torch.Tensor = resize(
            torch.from_numpy(frame).permute(2, 0, 1),
            [max(height, TOKEN_SIZE), max(width, TOKEN_SIZE)],
            interpolation=InterpolationMode.BICUBIC,
            antialias=True,
        )
    except Exception as error:
        raise MediaError(one_line(error)) from None
    return resized
