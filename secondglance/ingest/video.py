"""Videos: which frames stand for which stretch, and reading those frames.

Decoding is decord's (the maintained `decord2`, same import name). A video is cut into stretches
of equal length, each represented by the frame at its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.media.pictures import MAX_PIXELS
from secondglance.media.video import Video
from secondglance.types import Segment

ROUNDING_S = 1e-3
"""decord rounds times to float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """Which frame to read for each segment.

    Attributes:
        segments: In order of time, without gaps.
        frames: Index of the keyframe of each segment.
        metadata: `width` and `height` in pixels (upright), `duration_s`.
    """

    segments: tuple[Segment, ...]
    frames: tuple[int, ...]
    metadata: dict[str, int | float]


def plan_video(path: Path, *, segment_s: float, max_segments: int, max_pixels: int) -> VideoPlan:
    """Cuts a video into stretches of `segment_s`, longer ones if it takes over `max_segments`.

    Raises:
        MediaError: The video cannot be opened, or its frames are over `max_pixels`.
    """
    video = Video(path)
    times, duration_s = video.times_s, video.duration_s
    height, width = video.frame(0, max_pixels=max_pixels).shape[:2]

    count = int(min(max(1, round(duration_s / segment_s)), max_segments))
    edges = np.linspace(0.0, duration_s, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    nearest = np.clip(
        np.searchsorted(times, middles + ROUNDING_S, side="right") - 1, 0, len(times) - 1
    )
    segments: list[Segment] = []
    frames: list[int] = []
    for start, end, frame in zip(edges[:-1], edges[1:], nearest, strict=True):
        if frames and frames[-1] == frame:
            # Frames further apart than stretches: one stretch reaches to the next frame.
            start = segments.pop().start_s
            frames.pop()
        segments.append(
            Segment(
                kind="video",
                start_s=round(float(start), 3),
                end_s=round(float(end), 3),
                keyframe_s=round(float(times[frame]), 3),
                position=len(segments),
            )
        )
        frames.append(int(frame))
    metadata = {"width": width, "height": height, "duration_s": round(duration_s, 3)}
    return VideoPlan(segments=tuple(segments), frames=tuple(frames), metadata=metadata)


def read_frames(path: Path, frames: Sequence[int], *, max_pixels: int) -> list[Image.Image | None]:
    """The frames asked for; None for each that is damaged.

    Raises:
        MediaError: The video cannot be opened.
    """
    video = Video(path)
    images: list[Image.Image | None] = []
    for index in frames:
        try:
            images.append(Image.fromarray(video.frame(index, max_pixels=max_pixels)))
        except MediaError:
            images.append(None)
    return images


def read_frame_at(path: Path, time_s: float, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The frame that is shown at `time_s`.

    Raises:
        MediaError: The video cannot be read there.
    """
    video = Video(path)
    index = int(np.searchsorted(video.times_s, time_s + ROUNDING_S, side="right")) - 1
    return Image.fromarray(video.frame(max(index, 0), max_pixels=max_pixels))
