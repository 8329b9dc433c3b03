"""Pictures and clips as they are sent to a server: data URLs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from secondglance.errors import MediaError
from secondglance.media.pictures import open_picture, quiet, upright
from secondglance.rerank.clips import read_frames
from secondglance.rerank.limits import Limits
from secondglance.rerank.pictures import describe, load_image, read_picture
from secondglance.types import VideoClip

if TYPE_CHECKING:
    import torch

AS_THEY_ARE = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""Formats, as Pillow names them, that every server reads."""
JPEG_QUALITY = 95


def picture_url(source: Path | Image.Image, limits: Limits) -> str:
    """A picture as a data URL.

    A JPEG, PNG or WebP file that is upright and within `limits.max_pixels` is sent as its own
    bytes. Anything else is sent as a JPEG of quality 95, of the size that the local engine would
    see, so that a Qwen3-VL server resizes it no further.

    Either way it is decoded first: a damaged picture fails here, alone, and not the request that
    it would be part of.

    Raises:
        MediaError: It cannot be read.
    """
    if isinstance(source, Image.Image):
        return _jpeg_url(load_image(source, limits))
    mime = _kept_format(source, limits)
    if mime is None:
        return _jpeg_url(load_image(source, limits))
    try:
        return data_url(mime, source.read_bytes())
    except OSError as error:
        raise MediaError(f"{describe(source)}: {error.strerror}") from None


def frame_urls(clip: VideoClip, limits: Limits) -> tuple[list[str], list[float] | None]:
    """The frames of a clip that the local engine would see, as data URLs, and when they are shown.

    Returns:
        JPEG data URLs, and the time of each in seconds; None where they are not known.

    Raises:
        MediaError: It cannot be read.
    """
    pixels, times_s = read_frames(clip, limits)
    urls = [_jpeg_url(frame) for frame in pixels]
    if clip.frames and clip.times_s is None:
        return urls, None
    return urls, [float(time_s) for time_s in times_s]


def data_url(mime: str, content: bytes) -> str:
    """Bytes as a data URL (RFC 2397), base64."""
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _kept_format(path: Path, limits: Limits) -> str | None:
    """The MIME type of a file whose bytes can be sent as they are; None for any other."""
    try:
        with open_picture(path) as picture:
            mime = AS_THEY_ARE.get(picture.format or "")
            if mime is None or picture.width * picture.height > limits.max_pixels:
                return None
            if getattr(picture, "is_animated", False):
                return None
            return mime if upright(picture) is picture else None
    except MediaError as error:
        raise MediaError(f"{describe(path)}: {error.problem}", remedy=error.remedy) from None


def _jpeg_url(pixels: torch.Tensor) -> str:
    """Pixels of shape (3, height, width), uint8."""
    picture = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return data_url("image/jpeg", file.getvalue())


def picture_of(content: bytes) -> Image.Image:
    """A picture that came as bytes, decoded and upright.

    Raises:
        MediaError: It is no picture, damaged, or too large.
    """
    try:
        with quiet():
            picture = Image.open(io.BytesIO(content))
    except Exception:
        raise MediaError("the bytes are no picture that can be read") from None
    return read_picture(picture)
