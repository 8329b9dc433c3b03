"""Videos: which frames stand for which stretch, and reading those frames.

Decoding is decord's (the maintained `decord2`, same import name). A video is cut into stretches
of equal length, each represented by the frame at its middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.types import Segment

if TYPE_CHECKING:
    import numpy.typing as npt


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


def open_video(path: Path) -> Any:
    """A decord reader that yields NumPy frames.

    Raises:
        MediaError: There is no video stream that can be decoded.
    """
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    try:
        # One thread a reader: several files are decoded side by side.
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        count = len(reader)
    except MemoryError:
        raise MediaError("video needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"not a video that can be read: {_reason(error)}") from None
    if count == 0:
        raise MediaError("the video has no frames")
    return reader


def frame_times(reader: Any) -> npt.NDArray[np.float64]:
    """Start of each frame in seconds from the first, shape (frames,), never decreasing."""
    count = len(reader)
    fps = float(reader.get_avg_fps())
    even = np.arange(count) / (fps if np.isfinite(fps) and fps > 0 else 25.0)
    try:
        times = np.asarray(reader.get_frame_timestamp(range(count)), dtype=np.float64)[:, 0]
    except Exception:
        return even
    # AVI carries no timestamps; decord then answers with huge negative numbers.
    if not np.isfinite(times).all() or (np.diff(times) < 0).any() or abs(times[0]) > 1e9:
        return even
    times = times - times[0]
    return times if count == 1 or times[-1] > 0 else even


def plan_video(path: Path, *, segment_s: float, max_segments: int, max_pixels: int) -> VideoPlan:
    """Cuts a video into stretches of `segment_s`, longer ones if it takes over `max_segments`.

    Raises:
        MediaError: The video cannot be opened, or its frames are over `max_pixels`.
    """
    reader = open_video(path)
    times = frame_times(reader)
    last_frame_s = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    duration_s = float(times[-1]) + last_frame_s
    height, width = read_frame(reader, 0, max_pixels=max_pixels).shape[:2]

    count = int(min(max(1, round(duration_s / segment_s)), max_segments))
    edges = np.linspace(0.0, duration_s, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    # The frame on screen; decord rounds times to float32.
    nearest = np.clip(np.searchsorted(times, middles + 1e-3, side="right") - 1, 0, len(times) - 1)
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


def read_frame(reader: Any, index: int, *, max_pixels: int) -> npt.NDArray[np.uint8]:
    """One frame, uint8 of shape (height, width, 3).

    Raises:
        MediaError: The frame is damaged or larger than `max_pixels`.
    """
    try:
        frame: npt.NDArray[np.uint8] = reader[index].asnumpy()
    except MemoryError:
        raise MediaError("a frame needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"damaged video: {_reason(error)}") from None
    height, width, channels = frame.shape
    if channels > 3:
        # decord2 takes the padding at the end of narrow rows for a fourth channel.
        frame = frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
    if height * width > max_pixels:
        raise MediaError(
            f"frames of {width}x{height} are over the limit of {max_pixels}",
            remedy="raise ingest.max_pixels to read them",
        )
    return frame


def read_frames(path: Path, frames: Sequence[int], *, max_pixels: int) -> list[Image.Image | None]:
    """The frames asked for; None for each that is damaged.

    Raises:
        MediaError: The video cannot be opened.
    """
    reader = open_video(path)
    images: list[Image.Image | None] = []
    for index in frames:
        try:
            images.append(Image.fromarray(read_frame(reader, index, max_pixels=max_pixels)))
        except MediaError:
            images.append(None)
            reader = open_video(path)  # decord's decoder does not recover from an error
    return images


def read_frame_at(path: Path, time_s: float, *, max_pixels: int) -> Image.Image:
    """The frame that is shown at `time_s`.

    Raises:
        MediaError: The video cannot be read there.
    """
    reader = open_video(path)
    index = int(np.searchsorted(frame_times(reader), time_s + 1e-3, side="right")) - 1
    return Image.fromarray(read_frame(reader, max(index, 0), max_pixels=max_pixels))


def _reason(error: Exception) -> str:
    """What decord's assertion means; it names source lines and appends a stack trace."""
    text = str(error)
    if "cannot find video stream" in text:
        return "it has no video stream"
    if "corrupted frame" in text or "Error sending packet" in text:
        return "its frames are corrupted"
    return "unknown or damaged format"
