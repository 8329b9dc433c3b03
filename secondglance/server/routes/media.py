"""Files of the library and small pictures of them, by record and never by path."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from secondglance.errors import MediaError
from secondglance.pipelines.locate import Located, open_inside
from secondglance.server import problems
from secondglance.server.file_answers import PRIVATE, content_type, etag, file_answer, is_known
from secondglance.server.problems import ApiError, not_found
from secondglance.server.schemas import MAX_ID, Problem
from secondglance.server.serving import Serving, serving
from secondglance.server.thumbnails import SIDES, side_of

router = APIRouter(prefix="/v1", tags=["media"])

Id = Annotated[str, Path(max_length=MAX_ID, description="of a hit")]
NO_RECORD = "there is no such record, or its file is not there now"


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "content": {problems.TYPE: {}}} for status in statuses}


@router.get("/media/{id}", response_class=Response, responses=_problems(404, 416))
async def media(request: Request, id: Id) -> Response:
    """The file of a record, or the range of bytes that is asked for."""
    return await _media(request, id)


@router.head("/media/{id}", response_class=Response, include_in_schema=False)
async def media_head(request: Request, id: Id) -> Response:
    """As GET, without the file."""
    return await _media(request, id)


async def _media(request: Request, id: str) -> Response:
    located = await _located(serving(request), id)
    path, root = located.path, located.root
    if path is None or root is None:
        raise not_found(NO_RECORD)
    file = await asyncio.to_thread(open_inside, path, root)
    if file is None:
        raise not_found(NO_RECORD)
    payload = located.payload
    return file_answer(
        request,
        file,
        media_type=content_type(
            located.kind, format_=str(payload.get("format", "")), name=path.name
        ),
        name=path.name,
        content=str(payload["item"]),
    )


@router.get("/thumbnails/{id}", response_class=Response, responses=_problems(404, 429))
async def thumbnail(
    request: Request,
    id: Id,
    size: Annotated[
        int, Query(ge=SIDES[0], le=SIDES[-1], description="longer side, rounded up to a few")
    ] = 256,
) -> Response:
    """A small JPEG of a picture, or of the frame by which a stretch of a film was found."""
    server = serving(request)
    located = await _located(server, id)
    if located.kind == "text":
        raise not_found("a text has no picture")
    if located.path is None:
        raise not_found(NO_RECORD)
    try:
        state = located.path.stat()
    except OSError:
        raise not_found(NO_RECORD) from None
    at_s = located.stretch()[2] if located.kind == "video" else None
    key = (str(located.path), state.st_size, state.st_mtime_ns, at_s, side_of(size))
    tag = etag(*key)
    headers = {**PRIVATE, "ETag": tag}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    try:
        small = await server.inputs.thumbnails.make(key)
    except MediaError as error:
        detail = f"its file cannot be shown: {problems.without_paths(error.problem)}"
        raise ApiError(404, "media-unreadable", detail) from None
    return Response(small, media_type="image/jpeg", headers=headers)


async def _located(server: Serving, id: str) -> Located:
    located = await asyncio.to_thread(server.library.located, id)
    if located is None:
        raise not_found(NO_RECORD)
    return located
