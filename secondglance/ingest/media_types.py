"""Which files are media, by extension, and by content where the extension says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

# fmt: off
IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".avif", ".avifs", ".heic", ".heif", ".hif", ".mpo", ".jp2", ".j2k",
))
VIDEO_EXTENSIONS = frozenset((
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts",
    ".wmv", ".flv", ".3gp", ".3g2", ".ogv", ".vob",
))
# fmt: on
TEXT_EXTENSIONS = frozenset({".txt", ".md"})
MANIFEST_EXTENSIONS = frozenset({".csv", ".jsonl"})

FileKind = Literal["image", "video", "text", "manifest", "unknown"]

SNIFF_BYTES = 4096


def kind_by_extension(path: Path) -> FileKind:
    """What a file's name promises."""
    extension = path.suffix.lower()
    if extension in IMAGE_EXTENSIONS:
        return "image"
    if extension in VIDEO_EXTENSIONS:
        return "video"
    if extension in TEXT_EXTENSIONS:
        return "text"
    if extension in MANIFEST_EXTENSIONS:
        return "manifest"
    return "unknown"


def kind_by_content(head: bytes) -> Literal["image", "video"] | None:
    """What the first bytes of a file are, if they are media at all."""
    import puremagic

    try:
        candidates = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return None
    for candidate in candidates:
        family = candidate.mime_type.partition("/")[0]
        if family in ("image", "video"):
            return "image" if family == "image" else "video"
    return None


def kind_of_file(path: Path) -> Literal["image", "video"] | None:
    """What a file is by its first bytes."""
    with path.open("rb") as file:
        return kind_by_content(file.read(SNIFF_BYTES))


def supported_types() -> str:
    """For error messages."""
    groups = (IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, TEXT_EXTENSIONS, MANIFEST_EXTENSIONS)
    return ", ".join(sorted(extension for group in groups for extension in group))
