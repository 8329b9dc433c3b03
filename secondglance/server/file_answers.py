"""Files as answers: types that no browser runs, parts of files, and what a client has already."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse

from secondglance.server.problems import ApiError

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.types import Receive, Scope, Send

    from secondglance.types import Kind

PRIVATE = {
    "Cache-Control": "private, max-age=300",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}
BLOCK = 256 * 1024
UNKNOWN = "application/octet-stream"

# What browsers show and never run. Everything else is a download.
_IMAGES = {
    "jpeg": "image/jpeg", "jpg": "image/jpeg", "jpe": "image/jpeg", "jfif": "image/jpeg",
    "mpo": "image/jpeg", "png": "image/png", "apng": "image/png", "webp": "image/webp",
    "gif": "image/gif", "bmp": "image/bmp", "dib": "image/bmp", "tiff": "image/tiff",
    "tif": "image/tiff", "avif": "image/avif", "heif": "image/heif", "heic": "image/heic",
    "jpeg2000": "image/jp2", "jp2": "image/jp2",
}  # fmt: skip
_VIDEOS = {
    "mp4": "video/mp4", "m4v": "video/mp4", "mov": "video/quicktime", "webm": "video/webm",
    "mkv": "video/x-matroska", "matroska": "video/x-matroska", "avi": "video/x-msvideo",
    "ogv": "video/ogg", "ogg": "video/ogg", "mpg": "video/mpeg", "mpeg": "video/mpeg",
    "vob": "video/mpeg", "ts": "video/mp2t", "mts": "video/mp2t", "m2ts": "video/mp2t",
    "mpegts": "video/mp2t", "wmv": "video/x-ms-wmv", "asf": "video/x-ms-wmv",
    "flv": "video/x-flv", "3gp": "video/3gpp", "3g2": "video/3gpp2", "gif": "image/gif",
}  # fmt: skip
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def content_type(kind: Kind, *, format_: str, name: str) -> str:
    """The type of an indexed file.

    Args:
        kind: As it was indexed, by its content.
        format_: As it was indexed; "" where unknown.
        name: Of the file, whose extension stands in for the format.
    """
    if kind == "text":
        return "text/plain; charset=utf-8"
    known = _IMAGES if kind == "image" else _VIDEOS
    return known.get(format_) or known.get(PurePath(name).suffix.lower().lstrip("."), UNKNOWN)


def etag(*parts: object) -> str:
    """A strong entity tag of what is told apart by `parts`."""
    return '"' + hashlib.sha256("|".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[
        :32
    ] + '"'  # fmt: skip


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has this version (RFC 9110, section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    found = (part.strip().removeprefix("W/") for part in given.split(","))
    return any(part in (tag, "*") for part in found)


def file_answer(
    request: Request, file: BinaryIO, *, media_type: str, name: str, content: str
) -> Response:
    """A file, or the part of it that was asked for; closes the file.

    Args:
        request: With the headers `Range`, `If-Range`, `If-None-Match`; GET or HEAD.
        file: Open.
        media_type: From `content_type`.
        name: Under which a browser would save it.
        content: Changes with the content, besides size and time.

    Raises:
        ApiError: 416 if the range lies behind the end.
    """
    found = os.fstat(file.fileno())
    size = found.st_size
    tag = etag(content, size, found.st_mtime_ns)
    modified = formatdate(found.st_mtime, usegmt=True)
    shown = "attachment" if media_type == UNKNOWN else "inline"
    safe = quote(name.encode("utf-8", "replace"), safe="")
    headers = {
        **PRIVATE,
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Last-Modified": modified,
        "Content-Disposition": f"{shown}; filename*=UTF-8''{safe}",
    }
    if is_known(request, tag):
        file.close()
        return Response(status_code=304, headers=headers)
    part = None
    if request.headers.get("if-range", tag) in (tag, modified):
        try:
            part = _asked(request.headers.get("range", ""), size)
        except ApiError:
            file.close()
            raise
    start, stop = part or (0, size)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        file.close()
        return Response(status_code=status, headers=headers, media_type=media_type)
    return _FileAnswer(file, start, stop, status=status, headers=headers, media_type=media_type)


def _asked(header: str, size: int) -> tuple[int, int] | None:
    """The range (start, stop) of a header; None for all: also for several ranges."""
    found = _RANGE.fullmatch(header.replace(" ", "").lower())
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
        empty = int(last) == 0 or size == 0
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None  # no range at all (RFC 9110, section 14.1.1)
        empty = start >= size
    if empty:
        raise ApiError(
            416,
            "range-not-satisfiable",
            f"the file has {size} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


class _FileAnswer(StreamingResponse):
    """Streams a part of an open file, and closes it however that ends."""

    def __init__(
        self,
        file: BinaryIO,
        start: int,
        stop: int,
        *,
        status: int,
        headers: dict[str, str],
        media_type: str,
    ) -> None:
        super().__init__(
            _blocks(file, start, stop), status_code=status, headers=headers, media_type=media_type
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


async def _blocks(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, start)
    while start < stop:
        block = await asyncio.to_thread(file.read, min(BLOCK, stop - start))
        if not block:
            return  # it became shorter
        start += len(block)
        yield block
