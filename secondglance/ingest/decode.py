"""What a decode worker runs. Imports no torch, so that a worker starts fast and stays small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import MediaError
from secondglance.ingest import exif, images, looks, media_types, metadata, text, video
from secondglance.ingest.images import Preprocessing
from secondglance.ingest.media_types import FileKind
from secondglance.ingest.shots import Scan
from secondglance.ingest.video import FrameAt, VideoPlan
from secondglance.media.pictures import open_picture
from secondglance.media.video import Decoder
from secondglance.types import Kind, Segment

if TYPE_CHECKING:
    import numpy.typing as npt

MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost, and how videos are cut; see `config.IngestSettings`.

    Attributes:
        portion_s: Finding the shots of a video stops after that time, for another call to go on.
    """

    max_pixels: int
    max_memory_mb: int
    max_segment_s: float
    fps: float | None
    video_decoder: Decoder
    portion_s: float
    max_segments: int
    max_text_mb: float
    passage_chars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What a file turned out to be.

    Attributes:
        kind: What it holds, whatever its name promised.
        segments: Empty for a manifest that only captions other files.
        pixels: uint8 of shape (segments, height, width, 3); None for text, and for video, whose
            frames are read afterwards in portions.
        frames: Keyframe of each segment of a video.
        unfinished: Of a video whose shots are not all found: what `go_on` needs.
        metadata: For the payload; see `metadata.Description`.
        look: Of a picture; see `ingest.looks`.
        problems: Rows of a manifest that cannot be used: (row number, reason).
        sidecar_problems: Sidecars that cannot be used: (path, reason).
    """

    kind: Kind
    segments: tuple[Segment, ...]
    pixels: npt.NDArray[np.uint8] | None = None
    frames: tuple[FrameAt, ...] = ()
    unfinished: Scan | None = None
    metadata: dict[str, str | int | float] = field(default_factory=dict)
    look: looks.Look | None = None
    problems: tuple[tuple[int, str], ...] = ()
    sidecar_problems: tuple[tuple[str, str], ...] = ()


def start_worker(max_memory_mb: int) -> None:
    """Runs once in each worker: bounds its memory, keeps it out of the parent's way."""
    import os
    import signal

    from PIL import Image

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        # The embedder's threads wait for each other: a decoder on one of their cores stalls all.
        os.nice(10)
    # Decoders write to stderr from C; the reason travels in the exception instead.
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    Image.MAX_IMAGE_PIXELS = None  # `Limits.max_pixels` holds instead, above or below Pillow's
    try:
        import resource

        # Data, not address space: decoders reserve far more addresses than they ever touch.
        limit = max_memory_mb * MEGABYTE
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (ImportError, OSError, ValueError):
        pass  # Windows and macOS have no such limit; the other limits still hold.


def decode(
    path: Path,
    kind: FileKind,
    spec: Preprocessing,
    limits: Limits,
    sidecars: Sequence[Path] = (),
) -> Decoded:
    """Reads one file, and the sidecars that describe it.

    Raises:
        MediaError: The file cannot be used; the message is fit for the user.
    """
    if path.stat().st_size == 0:
        raise MediaError("the file is empty (0 bytes)")
    if kind == "text":
        return _decode_text(path, limits)
    if kind == "manifest":
        return _decode_manifest(path, limits)
    if kind == "unknown":
        content = media_types.kind_of_file(path)
        if content is None:
            raise MediaError(f"unsupported file type {path.suffix or '(no extension)'!r}")
        kind = content
    if kind == "image":
        try:
            return _decode_image(path, spec, limits, sidecars)
        except MediaError:
            if media_types.kind_of_file(path) != "video":
                raise
    return _plan_video(path, limits, sidecars)


def decode_all(
    files: Sequence[tuple[Path, FileKind, Sequence[Path]]], spec: Preprocessing, limits: Limits
) -> list[Decoded | MediaError]:
    """`decode` of several files, (path, kind, sidecars) each; what is wrong with one is its answer.

    One call for several small files: sending a call and its answer costs as much as a thumbnail.
    """
    answers: list[Decoded | MediaError] = []
    for path, kind, sidecars in files:
        try:
            answers.append(decode(path, kind, spec, limits, sidecars))
        except MediaError as error:
            answers.append(error)
    return answers


def decode_frames(
    path: Path, frames: Sequence[FrameAt], spec: Preprocessing, limits: Limits
) -> list[npt.NDArray[np.uint8] | None]:
    """The frames asked for, each uint8 of shape (height, width, 3); None where damaged.

    Raises:
        MediaError: The video cannot be opened any more.
    """
    pictures = video.read_frames(
        path, frames, max_pixels=limits.max_pixels, decoder=limits.video_decoder
    )
    return [None if picture is None else images.resize(picture, spec) for picture in pictures]


def _decode_image(
    path: Path, spec: Preprocessing, limits: Limits, sidecars: Sequence[Path]
) -> Decoded:
    with open_picture(path, max_pixels=limits.max_pixels) as image:
        if image.format == "GIF" and getattr(image, "n_frames", 1) > 1:
            return _plan_video(path, limits, sidecars)
        described, problems = metadata.describe(exif.picture_facts(image), sidecars)
        rgb = images.load_rgb(image, draft_size=(2 * spec.width, 2 * spec.height))
    pixels = images.resize(rgb, spec)[None]
    return Decoded(
        kind="image",
        segments=(Segment(kind="image"),),
        pixels=pixels,
        metadata=described,
        look=looks.look(rgb),
        sidecar_problems=problems,
    )


def go_on(path: Path, unfinished: Scan, limits: Limits, sidecars: Sequence[Path] = ()) -> Decoded:
    """Goes on finding the shots of a video.

    Raises:
        MediaError: The video cannot be read any more.
    """
    return _plan_video(path, limits, sidecars, unfinished)


def _plan_video(
    path: Path, limits: Limits, sidecars: Sequence[Path], so_far: Scan | None = None
) -> Decoded:
    plan: VideoPlan | Scan
    if limits.fps is not None:
        plan = video.plan_even(
            path,
            step_s=1 / limits.fps,
            max_segments=limits.max_segments,
            max_pixels=limits.max_pixels,
            decoder=limits.video_decoder,
        )
    else:
        plan = video.plan_shots(
            path,
            so_far,
            max_segment_s=limits.max_segment_s,
            max_segments=limits.max_segments,
            max_pixels=limits.max_pixels,
            budget_s=limits.portion_s,
        )
    if isinstance(plan, Scan):
        return Decoded(kind="video", segments=(), unfinished=plan)
    described, problems = metadata.describe(metadata.video_facts(path), sidecars)
    return Decoded(
        kind="video",
        segments=plan.segments,
        frames=plan.frames,
        metadata={**described, **plan.metadata},
        sidecar_problems=problems,
    )


def _decode_text(path: Path, limits: Limits) -> Decoded:
    content = text.read_text(path, max_bytes=int(limits.max_text_mb * MEGABYTE))
    found = text.passages(content, max_chars=limits.passage_chars)
    if not found:
        raise MediaError("the text has no words")
    if len(found) > limits.max_segments:
        raise MediaError(
            f"text of {len(found)} passages is over the limit of {limits.max_segments}",
            remedy="split it, or raise ingest.max_segments",
        )
    segments = tuple(
        Segment(kind="text", text=passage, position=i) for i, passage in enumerate(found)
    )
    return Decoded(kind="text", segments=segments)


def _decode_manifest(path: Path, limits: Limits) -> Decoded:
    segments: list[Segment] = []
    problems: list[tuple[int, str]] = []
    for row in text.manifest_rows(path, max_bytes=int(limits.max_text_mb * MEGABYTE)):
        if row.problem:
            problems.append((row.number, row.problem))
        elif not row.media:
            segments.append(Segment(kind="text", text=row.text, position=row.number))
    return Decoded(kind="text", segments=tuple(segments), problems=tuple(problems))
