"""Frames of a video that could stand for it: of every shot, each the sharpest around."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.ingest.frame_quality import FrameQuality, measure
from secondglance.ingest.video import VideoPlan, plan_shots
from secondglance.media.pictures import MAX_PIXELS
from secondglance.media.video import Video
from secondglance.types import Segment

if TYPE_CHECKING:
    import numpy.typing as npt

EVERY_S = 1.5
"""Seconds between candidates, until there are `MOST`."""
FEWEST, MOST = 8, 160
NEIGHBOURS = 5
"""Frames among which the sharpest is taken."""
NEIGHBOURS_S = 0.12
"""Between two of these: motion blur comes and goes within a few frames."""
PREVIEW = 512
"""Long side in pixels: more than any common embedder reads."""
BLURRED = 0.5
"""A frame is blurred with less than this share of the sharpness that a quarter of the frames of
its video have."""
SURELY_SHARP = 0.7
"""No frame is called blurred from here on: in a video full of lettering photographs would be."""
LOOK_SIDE = 24
ALIKE = 0.06
"""Mean difference of colours, in 0..1, below which two frames are one picture to a person. Seen on
real clips: 0.05 within a still shot, 0.09 where something moved, 0.1 to 0.4 between shots."""
CLOCK_S = 1e-3
"""What times may be off by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChoice:
    """One frame that could stand for its video.

    Attributes:
        time_s: When it is shown, in seconds.
        sharpness: See `FrameQuality`.
        brightness: Mean, 0 (black) to 1 (white).
        exposed: Whether it is neither black, nor blown out, nor blank.
        preview: The frame, its long side reduced to `PREVIEW` pixels.
    """

    time_s: float
    sharpness: float
    brightness: float
    exposed: bool
    preview: Image.Image


def candidates(
    path: Path,
    *,
    max_pixels: int = MAX_PIXELS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FrameChoice]:
    """Looks at every shot of a video, and takes the sharpest frame of a few in each stretch of it.

    Args:
        path: The video.
        max_pixels: Of a frame.
        on_progress: Called with how many stretches were looked at, and of how many.

    Returns:
        In order of time; at most `MOST`, and fewer where frames are damaged or few.

    Raises:
        MediaError: It cannot be opened, or not one frame of it can be decoded.
    """
    video = Video(path)
    plan = plan_shots(
        path,
        max_segment_s=min(EVERY_S, video.duration_s / FEWEST),
        max_segments=MOST,
        max_pixels=max_pixels,
    )
    assert isinstance(plan, VideoPlan)  # without a time budget it is never half done
    groups = _groups(video.times_s, plan.segments)
    found: list[FrameChoice] = []
    problem: MediaError | None = None
    for done, group in enumerate(groups, start=1):
        try:
            found.append(_sharpest(video, group, max_pixels))
        except MediaError as error:
            problem = error
        on_progress(done, len(groups))
    if not found:
        raise problem or MediaError("no frame of it can be decoded")
    return found


def _groups(times_s: npt.NDArray[np.float64], segments: Sequence[Segment]) -> list[list[int]]:
    """Indices of frames to look at: a few around the keyframe of each segment, none twice."""
    offsets = (np.arange(NEIGHBOURS) - NEIGHBOURS // 2) * NEIGHBOURS_S
    groups: list[list[int]] = []
    last = -1
    for segment in segments:
        start_s, end_s = segment.start_s or 0.0, segment.end_s or 0.0
        wanted = np.clip((segment.keyframe_s or 0.0) + offsets, start_s, end_s - 2 * CLOCK_S)
        shown = np.searchsorted(times_s, wanted + CLOCK_S, side="right") - 1
        group = [int(index) for index in np.unique(shown) if index > last]
        if group:
            groups.append(group)
            last = group[-1]
    return groups


def _sharpest(video: Video, group: Sequence[int], max_pixels: int) -> FrameChoice:
    """The best frame of a group; one that shows something before one that does not."""
    best: tuple[tuple[bool, float], int, FrameQuality, Image.Image] | None = None
    problem: MediaError | None = None
    for index in group:
        try:
            pixels = video.frame(index, max_pixels=max_pixels)
        except MediaError as error:
            problem = error
            continue
        quality = measure(pixels)
        merit = (quality.exposed, quality.sharpness)
        if best is None or merit > best[0]:
            preview = Image.fromarray(pixels)
            preview.thumbnail((PREVIEW, PREVIEW))
            best = merit, index, quality, preview
    if best is None:
        raise problem or MediaError("no frame of it can be decoded")
    _, index, quality, preview = best
    return FrameChoice(
        time_s=float(video.times_s[index]),
        sharpness=quality.sharpness,
        brightness=quality.brightness,
        exposed=quality.exposed,
        preview=preview,
    )


def sharp_and_bright(found: Sequence[FrameChoice]) -> list[FrameChoice]:
    """Those that are exposed and not blurred, measured by the others of the video; in order.

    Where all are black or blank, none.
    """
    exposed = [frame for frame in found if frame.exposed]
    if not exposed:
        return []
    usual = float(np.quantile([frame.sharpness for frame in exposed], 0.75))
    least = min(BLURRED * usual, SURELY_SHARP)
    return [frame for frame in exposed if frame.sharpness >= least]


def distinct(found: Sequence[FrameChoice]) -> list[FrameChoice]:
    """Leaves out near-duplicates of earlier ones."""
    kept: list[FrameChoice] = []
    seen: list[npt.NDArray[np.float32]] = []
    for frame in found:
        looks = _look(frame.preview)
        if all(float(np.abs(looks - other).mean()) >= ALIKE for other in seen):
            kept.append(frame)
            seen.append(looks)
    return kept


def frames_at(
    path: Path, times_s: Sequence[float], *, max_pixels: int = MAX_PIXELS
) -> Iterator[tuple[float, Image.Image]]:
    """Frames in full size, one by one, each with its time; damaged ones are left out.

    Args:
        path: The video.
        times_s: In rising order.
        max_pixels: Of a frame.

    Raises:
        MediaError: The video cannot be opened.
    """
    video = Video(path)
    for time_s in times_s:
        try:
            yield time_s, Image.fromarray(video.frame_at(time_s, max_pixels=max_pixels))
        except MediaError:
            continue


def _look(picture: Image.Image) -> npt.NDArray[np.float32]:
    """What a picture is compared by: its colours, coarsely, in 0..1."""
    small = picture.resize((LOOK_SIDE, LOOK_SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)
