"""Opening pictures, and resizing them as the official script does."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from secondglance.errors import MediaError
from secondglance.rerank.limits import MAX_SOURCE_PIXELS, PATCH_SIZE, Limits

if TYPE_CHECKING:
    import torch

# Warning filters belong to the process: two threads that change them at once would leave them
# changed.
_filters = threading.Lock()


def load_image(source: Path | Image.Image, limits: Limits) -> torch.Tensor:
    """Reads and resizes one image.

    Returns:
        uint8 of shape (3, height, width), sides in multiples of 32.

    Raises:
        MediaError: It cannot be read.
    """
    import torch
    from qwen_vl_utils import fetch_image

    picture = open_picture(source)
    request = {
        "image": picture,
        "min_pixels": limits.min_pixels,
        "max_pixels": limits.max_pixels,
    }
    try:
        resized: Image.Image = fetch_image(request, image_patch_size=PATCH_SIZE)
    except Exception as error:
        raise MediaError(f"{describe(source)}: {one_line(error)}") from None
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1)


def open_picture(source: Path | Image.Image) -> Image.Image:
    """Decodes a picture and turns it upright by its EXIF orientation; its mode stays.

    Raises:
        MediaError: It is missing, no picture, damaged, or over 178,956,970 pixels.
    """
    if isinstance(source, Image.Image):
        return _upright(source, source)
    # Leaving the block closes the file and keeps the pixels.
    with _open(source) as picture:
        return _upright(picture, source)


def describe(source: Path | Image.Image) -> str:
    """A picture's name in messages."""
    if isinstance(source, Image.Image):
        return f"picture of {source.width}x{source.height}"
    return str(source)


def one_line(error: BaseException) -> str:
    """An error's message in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _upright(picture: Image.Image, source: Path | Image.Image) -> Image.Image:
    if picture.width * picture.height > MAX_SOURCE_PIXELS:
        raise MediaError(
            f"{describe(source)}: {picture.width}x{picture.height} is over the limit of "
            f"{MAX_SOURCE_PIXELS} pixels"
        )
    try:
        picture.load()
    except Exception as error:
        raise MediaError(f"{describe(source)}: damaged picture: {one_line(error)}") from None
    try:
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return picture
            return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF: the picture as stored
        return picture


def _open(path: Path) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:  # the `heif` extra is not installed
        pass
    else:
        pillow_heif.register_heif_opener()
    try:
        with _filters, warnings.catch_warnings():
            # Pillow warns at half of the limit that holds here.
            warnings.simplefilter("ignore")
            return Image.open(path)
    except FileNotFoundError:
        raise MediaError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise MediaError(f"{path}: not a picture that can be read") from None
    except Image.DecompressionBombError:
        raise MediaError(f"{path}: over the limit of {MAX_SOURCE_PIXELS} pixels") from None
    except Exception as error:
        raise MediaError(f"{path}: {one_line(error)}") from None
