"""Videos: which frames stand for which stretch, and reading those frames.

A video is cut at its shots (`shots`), long shots are split, and each part is represented by its
best frame (`keyframes`); or it is cut into stretches of equal length, each represented by the
frame at its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.ingest.keyframes import Shot, segments_of, shots_between
from secondglance.ingest.shots import Scan, scan
from secondglance.media.pictures import MAX_PIXELS
from secondglance.media.video import Decoder, Video
from secondglance.types import Segment

ROUNDING_S = 1e-3
"""Segments are told in milliseconds."""


@dataclass(frozen=True, slots=True)
class FrameAt:
    """A frame to read.

    Attributes:
        time_s: When it is shown.
        exact: Whether a frame is known to begin then; such are read quicker.
    """

    time_s: float
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoPlan:
    """Which frame to read for each segment.

    Attributes:
        segments: In order of time, without gaps.
        frames: The keyframe of each segment.
        metadata: `width` and `height` in pixels (upright), `duration_s`.
        shots: What the segments were made of, with all frames that were looked at; empty where
            the stretches are of equal length.
    """

    segments: tuple[Segment, ...]
    frames: tuple[FrameAt, ...]
    metadata: dict[str, int | float]
    shots: tuple[Shot, ...] = ()


def plan_shots(
    path: Path,
    so_far: Scan | None = None,
    *,
    max_segment_s: float,
    max_segments: int,
    max_pixels: int,
    budget_s: float = float("inf"),
) -> VideoPlan | Scan:
    """Cuts a video at its shots, and long shots into parts of at most `max_segment_s`.

    Args:
        path: The file.
        so_far: What an earlier call returned that ran out of time.
        max_segment_s: Longest segment in seconds.
        max_segments: At most so many; longer ones then.
        max_pixels: Of a frame.
        budget_s: After about that many seconds, what was found so far is returned instead of a
            plan, for another call to go on from. The plan is the same however often that happens.

    Raises:
        MediaError: The video cannot be opened, or its frames are over `max_pixels`.
    """
    found = scan(path, so_far, max_pixels=max_pixels, budget_s=budget_s)
    if not found.finished:
        return found
    shots = shots_between(found.cuts, found.looks, found.duration_s)
    parts = segments_of(
        shots, max_segment_s=max(max_segment_s, found.spacing_s), max_segments=max_segments
    )
    return VideoPlan(
        segments=tuple(segment for segment, _ in parts),
        frames=tuple(FrameAt(segment.keyframe_s or 0.0, seen) for segment, seen in parts),
        metadata={
            "width": found.width,
            "height": found.height,
            "duration_s": round(found.duration_s, 3),
        },
        shots=tuple(shots),
    )


def plan_even(
    path: Path, *, step_s: float, max_segments: int, max_pixels: int, decoder: Decoder = "pyav"
) -> VideoPlan:
    """Cuts a video into stretches of `step_s`, longer ones if it takes over `max_segments`.

    Raises:
        MediaError: The video cannot be opened, or its frames are over `max_pixels`.
    """
    video = Video(path, decoder=decoder)
    height, width = video.frame_at(0.0, max_pixels=max_pixels).shape[:2]
    times, duration_s = video.times_s, video.duration_s
    step_s = max(step_s, duration_s / max_segments)
    count = max(1, int(np.ceil(duration_s / step_s - 0.5)))
    edges = np.append(np.arange(count) * step_s, duration_s)
    middles = (edges[:-1] + edges[1:]) / 2
    nearest = np.clip(
        np.searchsorted(times, middles + ROUNDING_S, side="right") - 1, 0, len(times) - 1
    )
    segments: list[Segment] = []
    for start, end, frame in zip(edges[:-1], edges[1:], nearest, strict=True):
        keyframe_s = round(float(times[frame]), 3)
        if segments and segments[-1].keyframe_s == keyframe_s:
            # Frames further apart than stretches: one stretch reaches to the next frame.
            start = segments.pop().start_s
        segments.append(
            Segment(
                kind="video",
                start_s=round(float(start), 3),
                end_s=round(float(end), 3),
                keyframe_s=keyframe_s,
                position=len(segments),
            )
        )
    return VideoPlan(
        segments=tuple(segments),
        frames=tuple(FrameAt(segment.keyframe_s or 0.0, exact=True) for segment in segments),
        metadata={"width": width, "height": height, "duration_s": round(duration_s, 3)},
    )


def read_frames(
    path: Path, frames: Sequence[FrameAt], *, max_pixels: int, decoder: Decoder = "pyav"
) -> list[Image.Image | None]:
    """The frames asked for; None for each that is damaged. Rising times are quickest.

    Raises:
        MediaError: The video cannot be opened.
    """
    video = Video(path, decoder=decoder)
    images: list[Image.Image | None] = []
    for frame in frames:
        try:
            pixels = video.frame_at(frame.time_s, exact=frame.exact, max_pixels=max_pixels)
            images.append(Image.fromarray(pixels))
        except MediaError:
            images.append(None)
    return images


def read_frame_at(path: Path, time_s: float, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The frame that is shown at `time_s`.

    Raises:
        MediaError: The video cannot be read there.
    """
    return Image.fromarray(Video(path).frame_at(time_s, max_pixels=max_pixels))
