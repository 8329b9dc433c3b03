"""What requests bring or name, as files that the models may read.

Nothing here opens a path that a caller names.
"""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import MediaError
from secondglance.server.options import ServerOptions
from secondglance.server.schemas import Clip, Parts, QueryParts
from secondglance.types import Content, Query, VideoClip

if TYPE_CHECKING:
    from secondglance.library import Library


class Inputs:
    """Reads references of requests.

    Args:
        library: Whose records may be named.
        options: With the limits.
    """

    def __init__(self, library: Library, options: ServerOptions) -> None:
        self._library = library
        self._options = options
        self._folder = tempfile.TemporaryDirectory(prefix="secondglance-")

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """What one request needs; its files are gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            yield Scope(Path(folder), self._options)

    def close(self) -> None:
        """Removes all files."""
        self._folder.cleanup()


class Scope:
    """The media of one request."""

    def __init__(self, folder: Path, options: ServerOptions) -> None:
        self._folder = folder
        self._options = options
        self._count = 0

    def query(self, asked: str | QueryParts) -> Query:
        """A query of a search.

        Raises:
            MediaError: Its picture or clip cannot be used.
        """
        if isinstance(asked, str):
            return Query(text=asked)
        return Query(
            text=asked.text,
            image=None if asked.image is None else self.image(asked.image),
            video=None if asked.video is None else self.video(asked.video).path,
            not_text=asked.not_text,
            instruction=asked.instruction,
        )

    def content(self, side: str | Parts) -> Content:
        """One side of a pair.

        Raises:
            MediaError: A picture or a clip cannot be used.
        """
        if isinstance(side, str):
            return Content(texts=(side,))
        if side.content is not None:
            return Content(
                texts=tuple(part.text for part in side.content if part.type == "text"),
                images=tuple(
                    self.image(part.image_url.url)
                    for part in side.content
                    if part.type == "image_url"
                ),
                videos=tuple(
                    self.video(part.video_url.url)
                    for part in side.content
                    if part.type == "video_url"
                ),
            )
        return Content(
            texts=tuple(_listed(side.text)),
            images=tuple(self.image(reference) for reference in _listed(side.image)),
            videos=tuple(self.video(clip) for clip in _listed(side.video)),
        )

    def image(self, reference: str) -> Path:
        """A picture's file.

        Raises:
            MediaError: It cannot be used.
        """
        return self._file(reference)

    def video(self, clip: str | Clip) -> VideoClip:
        """A clip's file.

        Raises:
            MediaError: It cannot be used.
        """
        if isinstance(clip, str):
            return VideoClip(path=self._file(clip))
        if clip.url is not None:
            return VideoClip(
                path=self._file(clip.url),
                start_s=clip.start_s,
                end_s=clip.end_s,
                keyframe_s=clip.keyframe_s,
            )
        return VideoClip(
            frames=tuple(self.image(frame) for frame in clip.frames), times_s=clip.times_s
        )

    def _file(self, reference: str) -> Path:
        head, comma, data = reference.partition(",")
        if not (head.startswith("data:") and head.endswith(";base64") and comma):
            raise MediaError(f"{reference[:60]!r} is not a reference that is known")
        try:
            raw = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise MediaError("a data: URL is not base64") from None
        self._count += 1
        path = self._folder / str(self._count)
        path.write_bytes(raw)
        return path


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
