"""Uploading pictures and clips, which queries and documents then name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from secondglance.errors import MediaError, StoppedError
from secondglance.server import problems
from secondglance.server.file_answers import PRIVATE
from secondglance.server.problems import not_found
from secondglance.server.schemas import MAX_ID, Problem
from secondglance.server.serving import serving

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])

Id = Annotated[str, Path(max_length=MAX_ID)]
_NONE: dict[int | str, dict[str, object]] = {
    404: {"model": Problem, "content": {problems.TYPE: {}}}
}


class UploadOut(BaseModel):
    """What was uploaded; `reference` stands for it in queries and documents."""

    id: str
    reference: str
    kind: Literal["image", "video"] = Field(description="by the content")
    width: int
    height: int
    duration_s: float | None
    frames: int | None = Field(description="of a clip, as they are stored")
    expires_s: float = Field(description="seconds until it is gone")


@router.post(
    "",
    status_code=201,
    response_model=UploadOut,
    responses={
        status: {"model": Problem, "content": {problems.TYPE: {}}}
        for status in (408, 413, 422, 429)
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(request: Request) -> UploadOut:
    """Takes a picture or a clip in: the body is the file, `curl --data-binary @clip.mp4`.

    What it is says its content, not its name or type.
    """
    server = serving(request)
    announced = request.headers.get("content-length", "")
    found = await server.inputs.uploads.receive(
        _body(request), declared=int(announced) if announced.isdecimal() else None
    )
    taken = found.taken
    return UploadOut(
        id=found.id,
        reference=f"upload:{found.id}",
        kind=taken.kind,
        width=taken.width,
        height=taken.height,
        duration_s=taken.duration_s,
        frames=taken.frames,
        expires_s=server.options.upload_ttl_s,
    )


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for part in request.stream():
            yield part
    except ClientDisconnect:
        raise StoppedError("the client went away") from None


@router.get("/{id}/thumbnail", response_class=Response, responses=_NONE)
async def thumbnail(request: Request, id: Id) -> Response:
    """A small JPEG of an upload, of a clip its first frame."""
    try:
        with serving(request).inputs.uploads.hold(id) as upload:
            small = await asyncio.to_thread(upload.thumbnail.read_bytes)
    except MediaError as error:
        raise not_found(error.problem) from None
    return Response(small, media_type="image/jpeg", headers=PRIVATE)


@router.delete("/{id}", status_code=204, responses=_NONE)
async def remove(request: Request, id: Id) -> Response:
    """Removes an upload before it expires."""
    if not await asyncio.to_thread(serving(request).inputs.uploads.remove, id):
        raise not_found("there is no such upload (now)")
    return Response(status_code=204)
