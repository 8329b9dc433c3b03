"""Opening a picture, and turning it upright, whatever its bytes are."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from secondglance.errors import MediaError

MAX_PIXELS = 178_956_970
"""The limit at which Pillow refuses by itself (twice `Image.MAX_IMAGE_PIXELS`)."""

# Warning filters belong to the process: two threads that change them at once would leave them
# changed.
_filters = threading.Lock()


@contextlib.contextmanager
def open_picture(
    path: Path, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] | None = None
) -> Iterator[Image.Image]:
    """Opens a picture without decoding it.

    Args:
        path: The file.
        max_pixels: Of the picture.
        formats: Names of Pillow's formats that are tried; None for all.

    Raises:
        MediaError: It is missing, no picture, or has more than `max_pixels`.
    """
    register_heif()
    if formats is not None:
        Image.init()
        formats = [name for name in formats if name in Image.OPEN]
    try:
        with quiet():
            picture = Image.open(path, formats=formats)
    except FileNotFoundError:
        raise MediaError("no such file") from None
    except UnidentifiedImageError:
        raise MediaError("not a picture that can be read: unknown or damaged format") from None
    except Image.DecompressionBombError as error:
        size = re.search(r"\d+", str(error))
        raise _too_large(f"{size.group()} pixels" if size else "that size", max_pixels) from None
    except MemoryError:
        raise MediaError("picture needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"damaged picture: {one_line(error)}") from None
    with picture:
        check_size(picture, max_pixels=max_pixels)
        yield picture


def check_size(picture: Image.Image, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuses what would take too much memory to decode.

    Raises:
        MediaError: It has more than `max_pixels`.
    """
    if picture.width * picture.height > max_pixels:
        raise _too_large(f"{picture.width}x{picture.height}", max_pixels)


def upright(picture: Image.Image) -> Image.Image:
    """Turns a picture by its EXIF orientation; its mode stays.

    Raises:
        MediaError: The pixels cannot be decoded.
    """
    try:
        with quiet():
            picture.load()
    except MemoryError:
        raise MediaError("picture needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"damaged picture: {one_line(error)}") from None
    try:
        with quiet():
            if picture.getexif().get(ExifTags.Base.Orientation, 1) == 1:
                return picture
            return ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF: the picture as stored
        return picture


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Pillow's warnings: about damaged EXIF, and at half of the size limit."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def one_line(error: BaseException) -> str:
    """An error's message in one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _too_large(size: str, max_pixels: int) -> MediaError:
    return MediaError(
        f"picture of {size} is over the limit of {max_pixels} pixels",
        remedy="raise ingest.max_pixels to read it",
    )


def register_heif() -> None:
    """Lets Pillow open HEIF, where the `heif` extra is installed."""
    try:
        import pillow_heif
    except ImportError:  # the `heif` extra is not installed; Pillow reads AVIF by itself
        return
    pillow_heif.register_heif_opener()


def jpeg_uri(picture: Image.Image, *, quality: int, optimize: bool = False) -> str:
    """A picture as a data URI that holds a JPEG.

    Args:
        picture: In a mode that JPEG knows, such as RGB.
        quality: From 1 to 95.
        optimize: Whether to take the time for a smaller file.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
