"""Small pictures inside a page, as data URIs, bounded together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.errors import MediaError
from secondglance.media.pictures import jpeg_uri, open_picture, upright

if TYPE_CHECKING:
    from PIL import Image

SIDE = 192
"""Pixels of the longer side."""
QUALITY = 72
MAX_BYTES = 9_000_000
"""Of all thumbnails of a page, as they stand in it."""
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif",
)  # fmt: skip


class Thumbnails:
    """Makes each thumbnail once, until their limit is reached.

    Args:
        max_bytes: Of all data URIs that were handed out; behind it there are none.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._left = max_bytes
        self._known: dict[tuple[Path, float | None], str | None] = {}
        self.left_out = 0

    def picture(self, path: Path) -> str | None:
        """Of a picture file; None if it is missing or damaged, or the limit is reached."""
        return self._handed_out(path, None)

    def frame(self, path: Path, time_s: float) -> str | None:
        """Of the frame that a video shows at a time; None as in `picture`."""
        return self._handed_out(path, time_s)

    def _handed_out(self, path: Path, time_s: float | None) -> str | None:
        if self._left <= 0:
            self.left_out += 1
            return None
        key = (path, time_s)
        if key not in self._known:
            try:
                self._known[key] = _still(path) if time_s is None else _frame(path, time_s)
            except (MediaError, OSError, ValueError):
                self._known[key] = None
        uri = self._known[key]
        if uri is not None and len(uri) > self._left:
            self._left, uri = 0, None
            self.left_out += 1
        self._left -= len(uri or "")
        return uri


def _still(path: Path) -> str:
    with open_picture(path) as opened:
        opened.draft(None, (2 * SIDE, 2 * SIDE))  # a large JPEG decodes many times faster
        return _data_uri(upright(opened))


def _frame(path: Path, time_s: float) -> str:
    from PIL import Image

    from secondglance.media.video import Video

    return _data_uri(Image.fromarray(Video(path).frame_at(max(time_s, 0.0))))


def _data_uri(picture: Image.Image) -> str:
    from PIL import Image

    if picture.mode.startswith("I;16"):  # Pillow would cut off instead of scaling
        picture = picture.point(lambda value: value / 256).convert("L")
    if picture.has_transparency_data:
        behind = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(behind, picture.convert("RGBA"))
    picture = picture.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return jpeg_uri(picture, quality=QUALITY, optimize=True)
