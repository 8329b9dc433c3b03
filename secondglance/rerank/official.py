"""The dictionaries that the official script takes, as `Content`.

Source of the format: `qwen3_vl_reranker.py` of QwenLM/Qwen3-VL-Embedding (Apache-2.0).
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from PIL import Image

from secondglance.errors import InputError, MediaError
from secondglance.types import Content, VideoClip

Picture: TypeAlias = "Path | Image.Image"

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tiff", ".svg"})
"""What tells a list of frames from a list of videos, as in the script."""
MAX_DOWNLOAD_BYTES = 1 << 30
DOWNLOAD_TIMEOUT_S = 30.0


def parse_content(part: Mapping[str, Any], downloads: Path) -> Content:
    """One query or document: `text`, `image` and `video`, each one value or a list.

    Args:
        part: Texts are strings; images are paths, URLs or pictures; a video is a path, a URL or
            a list of frames.
        downloads: Folder for what is fetched from URLs.

    Raises:
        MediaError: A URL cannot be fetched.
        InputError: A value of another type.
    """
    texts = _as_list(part.get("text"))
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"text must be a string or a list of strings, not {type(text)}")
    images = [_picture(image, downloads) for image in _as_list(part.get("image"))]
    video = part.get("video")
    videos = [video] if _is_one_video(video) else _as_list(video)
    return Content(
        texts=texts, images=images, videos=[_clip(video, downloads) for video in videos if video]
    )


def split_instruction(query: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    """Takes the instruction out of a query whose text is a tuple (instruction, text)."""
    text = query.get("text")
    if not isinstance(text, tuple):
        return query, None
    if len(text) != 2:
        raise InputError(f"a text tuple must be (instruction, text), not {len(text)} values")
    return {**query, "text": text[1]}, text[0]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_one_video(value: Any) -> bool:
    if isinstance(value, (str, Path, VideoClip)):
        return True
    if not isinstance(value, list) or not value:
        return False
    first = value[0]
    if isinstance(first, Image.Image):
        return True
    return isinstance(first, (str, Path)) and _suffix(str(first)) in IMAGE_SUFFIXES


def _suffix(source: str) -> str:
    path = urlsplit(source).path if source.startswith(("http://", "https://")) else source
    return Path(path).suffix.lower()


def _clip(video: Any, downloads: Path) -> VideoClip:
    if isinstance(video, VideoClip):
        return video
    if isinstance(video, (str, Path)):
        return VideoClip(path=_file(video, downloads))
    if isinstance(video, list):
        return VideoClip(frames=[_picture(frame, downloads) for frame in video])
    raise InputError(f"video must be a path, a URL or a list of frames, not {type(video)}")


def _picture(image: Any, downloads: Path) -> Picture:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, Path)):
        return _file(image, downloads)
    raise InputError(f"image must be a path, a URL or a picture, not {type(image)}")


def _file(source: str | Path, downloads: Path) -> Path:
    if isinstance(source, Path):
        return source
    if source.startswith(("http://", "https://")):
        return _download(source, downloads)
    return Path(source.removeprefix("file://"))


def _download(url: str, folder: Path) -> Path:
    target = folder / f"{len(list(folder.iterdir()))}{_suffix(url)}"
    size = 0
    try:
        with (
            urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as response,
            target.open("wb") as file,
        ):
            while block := response.read(1 << 20):
                size += len(block)
                if size > MAX_DOWNLOAD_BYTES:
                    raise MediaError(f"{url}: over the limit of {MAX_DOWNLOAD_BYTES} bytes")
                file.write(block)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise MediaError(f"{url}: cannot be fetched: {reason}") from None
    return target


def parse_documents(
    documents: Sequence[Mapping[str, Any]], downloads: Path
) -> list[Content | MediaError]:
    """Every document, or why it cannot be fetched."""
    parsed: list[Content | MediaError] = []
    for document in documents:
        try:
            parsed.append(parse_content(document, downloads))
        except MediaError as error:
            parsed.append(error)
    return parsed
