"""What a server of several libraries says itself: which there are, and the page to choose one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast
from urllib.parse import quote

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

from secondglance.server.metrics import CONTENT_TYPE, Together
from secondglance.server.problems import not_found
from secondglance.server.routes import page
from secondglance.server.security import LIBRARIES

if TYPE_CHECKING:
    from secondglance.server.several import Door, ServingSeveral

router = APIRouter(tags=["libraries"])
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


class LibraryEntry(BaseModel):
    """One of the libraries of the server."""

    name: str
    title: str
    url: str = Field(description="of its page; its interface is below")
    state: Literal["ready", "loading", "unavailable"]
    reason: str = Field(description="why it is not ready; else empty")
    counts: dict[str, int] | None = Field(description="of files and what is in them, by kind")


@router.get(LIBRARIES, response_model=list[LibraryEntry])
async def listed(request: Request) -> Any:
    """The libraries that the caller's key opens, and those that want none."""
    return await asyncio.gather(*map(_entry, _visible(request)))


async def _entry(door: Door) -> LibraryEntry:
    known = await door.known()
    return LibraryEntry(
        name=door.name,
        title=door.title,
        url=f"{LIBRARIES}/{door.name}/",
        state=known.state,
        reason=known.reason,
        counts=None if known.counts is None else dict(known.counts),
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Counts and times of the libraries that the key opens, in Prometheus' text format.

    What belongs to the process is told to whoever may see all of them.
    """
    served = _served(request)
    process = served.metrics.registry if served.front.sees_all(request.scope) else None
    found = {door.name: door.metrics.registry for door in _visible(request)}
    return Response(Together(found, process=process).text(), headers={"Content-Type": CONTENT_TYPE})


@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def chooser(request: Request) -> Response:
    """The page to choose a library."""
    return page.document(request, "libraries.html")


@router.api_route("/static/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
async def static(request: Request, path: str) -> Response:
    """A file of the page."""
    return await page.static(request, path)


Name = Annotated[str, Path(max_length=200)]


@router.api_route(f"{LIBRARIES}/{{name}}", methods=["GET", "HEAD"], include_in_schema=False)
async def folder(name: Name) -> Response:
    """Leads to the page of a library, whether or not it is there."""
    return RedirectResponse(f"{LIBRARIES}/{quote(name, safe='')}/", status_code=308)


@router.api_route(f"{LIBRARIES}/{{name}}/{{rest:path}}", methods=METHODS, include_in_schema=False)
async def nothing(name: Name, rest: str) -> Response:
    """Whoever sees all libraries is told that there is none of this name."""
    raise not_found(f"there is no library {name[:100]!r}")


def _served(request: Request) -> ServingSeveral:
    return cast("ServingSeveral", request.app.state.serving)


def _visible(request: Request) -> list[Door]:
    served = _served(request)
    names = set(served.front.visible(request.scope))
    return [door for door in served.doors if door.name in names]
