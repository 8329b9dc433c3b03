"""Pictures as upright RGB, and the resize that an embedder asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from secondglance.errors import MediaError
from secondglance.media.pictures import one_line, upright

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]

WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an open-clip model wants its pictures, as in its `preprocess_cfg`.

    Attributes:
        height: Pixels.
        width: Pixels.
        resize_mode: `shortest` side then centre crop, `longest` side then pad, or `squash`.
        interpolation: Pillow's filter.
        fill: Colour of the padding, 0..255.
        mean: Per channel, for pixels in 0..1.
        std: Per channel, for pixels in 0..1.
    """

    height: int
    width: int
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


def load_rgb(image: Image.Image, *, draft_size: tuple[int, int] | None = None) -> Image.Image:
    """Decodes to upright 8-bit RGB; transparency on white.

    Args:
        image: As opened.
        draft_size: (width, height) that is enough for the caller; JPEG decodes at the nearest
            power-of-two reduction above it, which is many times faster for large photos.

    Raises:
        MediaError: The pixels cannot be decoded.
    """
    if draft_size is not None:
        image.draft(None, draft_size)
    try:
        return _to_rgb(upright(image))
    except MediaError:
        raise
    except MemoryError:
        raise MediaError("picture needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"damaged picture: {one_line(error)}") from None


def resize(image: Image.Image, spec: Preprocessing) -> Pixels:
    """Resizes as open-clip's evaluation transform does, short of normalising.

    Returns:
        uint8 of shape (height, width, 3).

    Source: `open_clip.transform.image_transform` (torchvision's Resize and CenterCrop on PIL).
    """
    filter_ = {
        "bicubic": Image.Resampling.BICUBIC,
        "bilinear": Image.Resampling.BILINEAR,
    }[spec.interpolation]
    width, height = image.size
    if spec.resize_mode == "squash":
        return np.asarray(image.resize((spec.width, spec.height), filter_))
    if spec.resize_mode == "longest":
        scale = 1 / max(height / spec.height, width / spec.width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    elif width <= height:
        size = (spec.width, int(spec.width * height / width))
    else:
        size = (int(spec.height * width / height), spec.height)
    return _crop_or_pad(image, size, filter_, spec)


def _crop_or_pad(
    image: Image.Image, size: tuple[int, int], filter_: Image.Resampling, spec: Preprocessing
) -> Pixels:
    """Centres the picture, resized to `size`, in the output; cuts or pads what differs."""
    left, top = _centre(size[0], spec.width), _centre(size[1], spec.height)
    if size[0] > 4 * spec.width or size[1] > 4 * spec.height:
        # A strip of 6000x3 would be resized to half a million columns for a crop of 224.
        box = _source_box(image.size, size, left, top, spec)
        return np.asarray(image.resize((spec.width, spec.height), filter_, box=box))
    resized = image.resize(size, filter_)
    if (left, top) == (0, 0) and size == (spec.width, spec.height):
        return np.asarray(resized)
    canvas = Image.new("RGB", (spec.width, spec.height), (spec.fill,) * 3)
    canvas.paste(resized, (-left, -top))
    return np.asarray(canvas)


def _centre(size: int, wanted: int) -> int:
    """Where the centre part begins; negative for padding, rounded as torchvision rounds each."""
    return round((size - wanted) / 2.0) if size > wanted else -((wanted - size) // 2)


def _source_box(
    source: tuple[int, int], size: tuple[int, int], left: int, top: int, spec: Preprocessing
) -> tuple[float, float, float, float]:
    scale_x, scale_y = source[0] / size[0], source[1] / size[1]
    right, bottom = left + spec.width, top + spec.height
    return (
        max(0.0, left * scale_x),
        max(0.0, top * scale_y),
        min(float(source[0]), right * scale_x),
        min(float(source[1]), bottom * scale_y),
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16"):
        eight_bit = np.asarray(image.convert("I"), dtype=np.int32) >> 8
        return Image.fromarray(eight_bit.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        return _stretch(np.asarray(image, dtype=np.float64)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (*WHITE, 255))
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _stretch(values: npt.NDArray[np.float64]) -> Image.Image:
    """Greys of unknown range (32-bit integer, float) to 8 bits."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (finite - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8))
