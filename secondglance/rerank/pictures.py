"""Opening pictures, and resizing them as the official script does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.media.pictures import check_size, one_line, open_picture, upright
from secondglance.rerank.limits import PATCH_SIZE, Limits

if TYPE_CHECKING:
    import torch


def load_image(source: Path | Image.Image, limits: Limits) -> torch.Tensor:
    """Reads and resizes one image.

    Returns:
        uint8 of shape (3, height, width), sides in multiples of 32.

    Raises:
        MediaError: It cannot be read.
    """
    import torch
    from qwen_vl_utils import fetch_image

    picture = read_picture(source)
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


def read_picture(source: Path | Image.Image) -> Image.Image:
    """Decodes a picture and turns it upright by its EXIF orientation; its mode stays.

    Raises:
        MediaError: It is missing, no picture, damaged, or over 178,956,970 pixels.
    """
    try:
        if isinstance(source, Image.Image):
            check_size(source)
            return upright(source)
        # Leaving the block closes the file and keeps the pixels.
        with open_picture(source) as picture:
            return upright(picture)
    except MediaError as error:
        raise MediaError(f"{describe(source)}: {error.problem}") from None


def describe(source: Path | Image.Image) -> str:
    """A picture's name in messages."""
    if isinstance(source, Image.Image):
        return f"picture of {source.width}x{source.height}"
    return str(source)
