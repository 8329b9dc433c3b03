"""What a decode worker makes of media that a request brings. Imports no torch.

Nothing else opens such bytes: a picture leaves the worker as an upright PNG, a clip as PNG frames
with their times. Both are lossless, so scores are those of the file itself.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from secondglance.errors import MediaError
from secondglance.ingest import images
from secondglance.ingest.video import plan_even
from secondglance.media.pictures import open_picture, quiet, register_heif, upright
from secondglance.media.video import Video
from secondglance.media.video_av import OpenFile
from secondglance.rerank.clips import sample

if TYPE_CHECKING:
    import numpy.typing as npt

PICTURE_FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000",
)  # fmt: skip
"""Of Pillow. Others are rare, and some run programs: EPS starts Ghostscript."""
EXACT_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Modes that a PNG holds as they are."""
SLACK_S = 0.1
"""What a clip may be over the limit: durations of containers are rounded."""
PREVIEW = 512
QUALITY = 82
THUMBNAIL = "thumbnail.jpg"

Stretch = tuple[float | None, float | None, float | None]
"""Start, end and keyframe in seconds; None where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """What one picture or clip may cost.

    Attributes:
        max_pixels: Of a picture or a frame.
        max_video_s: Of a clip.
        max_frames: Of a clip, as they are stored.
        max_bytes: Of all files that are written.
        fps: Frames a second that the reranker reads of a clip.
        sampled_frames: Frames that the reranker reads, at most.
    """

    max_pixels: int
    max_video_s: float
    max_frames: int
    max_bytes: int
    fps: float
    sampled_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a file turned out to be, and the files that were written of it.

    Attributes:
        kind: By its content.
        width: Upright, in pixels.
        height: Upright, in pixels.
        duration_s: Of a clip.
        frames: Of a clip, as they are stored.
        picture: Of a picture.
        glances: Frames of a clip for the first pass.
        sampled: Frames of a clip for the second pass.
        times_s: Of each of `sampled`.
    """

    kind: Literal["image", "video"]
    width: int
    height: int
    duration_s: float | None = None
    frames: int | None = None
    picture: Path | None = None
    glances: tuple[Path, ...] = ()
    sampled: tuple[Path, ...] = ()
    times_s: tuple[float, ...] = ()


def take(
    path: Path,
    folder: Path,
    limits: IntakeLimits,
    *,
    wanted: Literal["image", "video"] | None = None,
    stretch: Stretch = (None, None, None),
    glances: int = 0,
    thumbnail: bool = False,
) -> Taken:
    """Decodes a file within limits, and writes what is read of it later.

    Args:
        path: The file; its name says nothing.
        folder: Where to write.
        limits: What it may cost.
        wanted: What it must be; None takes either. An animated GIF is both.
        stretch: Of a clip.
        glances: Frames for the first pass, at most.
        thumbnail: Whether to write `THUMBNAIL`.

    Raises:
        MediaError: It cannot be read, is over a limit, or not what was wanted.
    """
    if path.stat().st_size == 0:
        raise MediaError("the file is empty (0 bytes)")
    kind, moves = _kind(path)
    if kind == "video" and wanted == "image":
        raise MediaError("it is no picture that can be read; a clip is given as `video`")
    if kind == "image" and wanted == "video" and not moves:
        raise MediaError("it is a picture, not a clip; give it as `image`")
    files = _Files(folder, limits)
    if kind == "image" and not (moves and wanted != "image"):
        return _take_picture(path, files, limits, thumbnail=thumbnail)
    return _take_clip(path, files, limits, stretch, glances=glances, thumbnail=thumbnail)


def glimpse(
    path: Path, folder: Path, limits: IntakeLimits, *, times_s: Sequence[float]
) -> tuple[Path, ...]:
    """Writes the frames that a film of the library shows at some times.

    Raises:
        MediaError: None of them can be read.
    """
    video, files = Video(path), _Files(folder, limits)
    found: list[Path] = []
    problem: MediaError | None = None
    for time_s in times_s:
        try:
            found.append(files.frame(video.frame_at(time_s, max_pixels=limits.max_pixels)))
        except MediaError as error:
            problem = error
    if problem is not None and not found:
        raise problem
    return tuple(found)


def thumbnail(path: Path, at_s: float | None, side: int, max_pixels: int) -> bytes:
    """A small JPEG of a picture, or of the frame that a film shows at a time.

    Args:
        path: The file.
        at_s: None for a picture.
        side: Of the longer side, in pixels at most.
        max_pixels: Of the picture or frame.

    Raises:
        MediaError: It cannot be read.
    """
    if at_s is not None:
        return _jpeg(Image.fromarray(Video(path).frame_at(at_s, max_pixels=max_pixels)), side)
    with open_picture(path, max_pixels=max_pixels, formats=PICTURE_FORMATS) as opened:
        return _jpeg(images.load_rgb(opened, draft_size=(2 * side, 2 * side)), side)


def _kind(path: Path) -> tuple[Literal["image", "video"], bool]:
    """What a file is by its content, and whether it is an animation."""
    register_heif()
    Image.init()
    try:
        with quiet():
            opened = Image.open(path, formats=[n for n in PICTURE_FORMATS if n in Image.OPEN])
    except UnidentifiedImageError:
        return "video", False
    except Exception:  # a damaged picture, or one too large; reading it says more
        return "image", False
    with opened, quiet():
        try:
            return "image", opened.format == "GIF" and bool(getattr(opened, "is_animated", False))
        except Exception:
            return "image", False


class _Files:
    """Writes pictures until there are too many bytes."""

    def __init__(self, folder: Path, limits: IntakeLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._left = limits.max_bytes
        self._count = 0
        self._size: tuple[int, int] | None = None

    def picture(self, picture: Image.Image) -> Path:
        """Without what else was in the file: profiles, comments, EXIF."""
        clean = picture.copy()
        clean.info = {key: clean.info[key] for key in ("transparency",) if key in clean.info}
        self._count += 1
        path = self._folder / f"{self._count}.png"
        clean.save(path, "PNG", compress_level=1)
        self._left -= path.stat().st_size
        if self._left < 0:
            path.unlink()
            raise MediaError(
                f"decoded, it takes more than {self._limits.max_bytes / 1e6:.0f} MB",
                remedy="give a smaller picture or a shorter clip",
            )
        return path

    def frame(self, pixels: npt.NDArray[np.uint8]) -> Path:
        """One of the frames of a clip, which all have one size."""
        height, width = pixels.shape[:2]
        if height * width > self._limits.max_pixels:  # the container said less
            raise MediaError(
                f"frames of {width}x{height} are over the limit of {self._limits.max_pixels} pixels"
            )
        if self._size not in (None, (height, width)):
            raise MediaError("the frames of the clip differ in size")
        self._size = (height, width)
        return self.picture(Image.fromarray(pixels))

    def thumbnail(self, picture: Image.Image) -> None:
        (self._folder / THUMBNAIL).write_bytes(_jpeg(picture, PREVIEW))


def _take_picture(path: Path, files: _Files, limits: IntakeLimits, *, thumbnail: bool) -> Taken:
    with open_picture(path, max_pixels=limits.max_pixels, formats=PICTURE_FORMATS) as opened:
        shown = upright(opened)
        rgb = images.load_rgb(shown) if thumbnail or shown.mode not in EXACT_MODES else None
        exact = shown if rgb is None or shown.mode in EXACT_MODES else rgb
        written = files.picture(exact)
        if thumbnail and rgb is not None:
            files.thumbnail(rgb)
        return Taken(kind="image", width=exact.width, height=exact.height, picture=written)


def _take_clip(
    path: Path,
    files: _Files,
    limits: IntakeLimits,
    stretch: Stretch,
    *,
    glances: int,
    thumbnail: bool,
) -> Taken:
    count = _count(path, limits)
    video = Video(path)
    if video.duration_s > limits.max_video_s + SLACK_S:
        raise MediaError(
            f"a clip of {video.duration_s:.1f} s is over the limit of {limits.max_video_s:g} s",
            remedy="cut it",
        )
    start_s, end_s, keyframe_s = stretch
    times = video.times_between(start_s, end_s)
    chosen = sample(
        times, start_s=start_s, end_s=end_s, keyframe_s=keyframe_s, fps=limits.fps,
        max_frames=limits.sampled_frames,
    )  # fmt: skip
    sampled, first = [], None
    for time_s in times[chosen]:
        pixels = video.frame_at(float(time_s), exact=True, max_pixels=limits.max_pixels)
        first = pixels if first is None else first
        sampled.append(files.frame(pixels))
    if first is None:
        raise MediaError("no frame of it can be decoded")
    if thumbnail:
        files.thumbnail(Image.fromarray(first))
    return Taken(
        kind="video",
        width=first.shape[1],
        height=first.shape[0],
        duration_s=round(video.duration_s, 3),
        frames=count,
        glances=_glances(path, video, files, limits, stretch, glances) if glances else (),
        sampled=tuple(sampled),
        times_s=tuple(float(time_s) for time_s in times[chosen]),
    )


def _count(path: Path, limits: IntakeLimits) -> int:
    """The coded frames of a clip; stops behind the limit."""
    file = OpenFile(path, zero=None)
    if file.width * file.height > limits.max_pixels:
        raise MediaError(
            f"frames of {file.width}x{file.height} are over the limit of {limits.max_pixels} pixels"
        )
    count = 0
    for _ in file.packets():
        count += 1
        if count > limits.max_frames:
            raise MediaError(
                f"a clip of more than {limits.max_frames} frames is over the limit",
                remedy="cut it, or give it fewer frames a second",
            )
    return count


def _glances(
    path: Path, video: Video, files: _Files, limits: IntakeLimits, stretch: Stretch, most: int
) -> tuple[Path, ...]:
    """Frames spread over the clip; of a whole clip those that a query file is embedded by."""
    if stretch == (None, None, None):
        plan = plan_even(path, step_s=1e-3, max_segments=most, max_pixels=limits.max_pixels)
        times_s = [frame.time_s for frame in plan.frames]
    else:
        times_s = middles(stretch[0] or 0.0, stretch[1] or video.duration_s, most)
    frames = []
    for time_s in times_s:
        try:
            pixels = video.frame_at(time_s, max_pixels=limits.max_pixels)
        except MediaError:
            continue
        frames.append(files.frame(pixels))
    return tuple(frames)


def middles(start_s: float, end_s: float, count: int) -> list[float]:
    """The middles of `count` equal parts of a stretch, in seconds."""
    edges = np.linspace(start_s, max(end_s, start_s), count + 1)
    return [float(time_s) for time_s in (edges[:-1] + edges[1:]) / 2]


def _jpeg(picture: Image.Image, side: int) -> bytes:
    smaller = picture.copy()
    smaller.info = {}
    smaller.thumbnail((side, side))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
