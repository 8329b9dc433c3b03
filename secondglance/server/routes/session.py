"""Sessions of the page: a key, shown once, becomes a cookie that scripts cannot read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from secondglance.server.security import cookie_name, cookie_path, unauthorized

if TYPE_CHECKING:
    from secondglance.server.security import Access

router = APIRouter(prefix="/v1", tags=["session"])


class SessionOut(BaseModel):
    """Whether the server wants a key, and whether this request may do all without another."""

    required: bool
    ok: bool
    keys: bool | None = Field(
        default=None, description="where there are several libraries: whether any has keys"
    )


class SessionRequest(BaseModel):
    """Begins a session."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(max_length=1000)]


@router.get("/session", response_model_exclude_none=True)
async def get_session(request: Request) -> SessionOut:
    """Whether a key is needed, and whether this client has shown one."""
    access = _access(request)
    required = bool(access.keys) and access.demands_key
    return SessionOut(
        required=required,
        ok=not required or hasattr(request.state, "key"),
        keys=access.tells_of_keys(),
    )


@router.post("/session", status_code=204, response_class=Response)
async def post_session(request: Request, asked: SessionRequest) -> Response:
    """Takes an API key and sets a cookie that stands for it, until the server ends or 12 hours."""
    access = _access(request)
    answer = Response(status_code=204)
    if not access.keys:
        return answer
    name = access.show(asked.key, request.scope)
    if name is None:
        raise unauthorized("this is not an API key")
    # A proxy or a tunnel may end TLS without saying so; the page's origin tells.
    https = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
    answer.set_cookie(
        cookie_name(request.scope),
        access.sessions.begin(name),
        max_age=int(access.sessions.seconds),
        path=cookie_path(request.scope),
        httponly=True,
        samesite="strict",
        secure=https,
    )
    return answer


@router.delete("/session", status_code=204, response_class=Response)
async def delete_session(request: Request) -> Response:
    """Ends the session of this client, if there is one."""
    _access(request).end_session(request.scope)
    answer = Response(status_code=204)
    for path in dict.fromkeys((cookie_path(request.scope), "/")):
        answer.delete_cookie(
            cookie_name(request.scope), path=path, httponly=True, samesite="strict"
        )
    return answer


def _access(request: Request) -> Access:
    return cast("Access", request.app.state.access)
