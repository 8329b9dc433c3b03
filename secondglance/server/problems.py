"""Errors as problem details (RFC 9457), without paths, stacks or keys."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from secondglance.errors import (
    ConfigError,
    InputError,
    LibraryBusyError,
    LibraryError,
    MediaError,
    ModelError,
    RerankError,
    SecondGlanceError,
    StoppedError,
    StoreError,
)
from secondglance.types import utf8_text

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse
    from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

TYPE = "application/problem+json"
CLIENT_CLOSED = 499
"""What nginx logs when a client goes away; nobody gets this answer."""

# Most special first.
_STATUS: tuple[tuple[type[SecondGlanceError], int, str], ...] = (
    (MediaError, 422, "media-unreadable"),
    (InputError, 400, "bad-input"),
    (ConfigError, 400, "bad-input"),
    (LibraryBusyError, 409, "library-busy"),
    (LibraryError, 503, "library-unusable"),
    (StoreError, 503, "store-unreachable"),
    (ModelError, 503, "model-unavailable"),
    (RerankError, 503, "reranker-failed"),
    (StoppedError, CLIENT_CLOSED, "client-closed-request"),
)

_PATH = re.compile(
    r"(?<![\w:/.])(?:[A-Za-z]:\\|/)(?:[^\s'\"<>|:;,()]+[/\\])+([^\s'\"<>|:;,()/\\]+)"
)


class ApiError(Exception):
    """An answer other than success.

    Args:
        status: Of HTTP.
        kind: Last part of the problem's type: `not-found`.
        detail: What is wrong, for people.
        headers: Of the answer.
        more: Further members of the problem.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


def not_found(what: str) -> ApiError:
    """404: there is no such thing, or none that may be shown."""
    return ApiError(404, "not-found", what)


def without_paths(text: str) -> str:
    """A message with only the last part of each absolute path in it."""
    return _PATH.sub(r"\1", text)


def problem(error: SecondGlanceError) -> ApiError:
    """A deliberate error as an answer."""
    for kind, status, name in _STATUS:
        if isinstance(error, kind):
            more: dict[str, Any] = {"remedy": without_paths(error.remedy)} if error.remedy else {}
            return ApiError(status, name, without_paths(error.problem), **more)
    return internal(error)


def internal(error: BaseException) -> ApiError:
    """An error that nobody foresaw, as an answer that says nothing of it.

    The log has its type and its place: messages and stacks of other packages hold paths.
    """
    logger.error("an error inside the server: %s", where(error))
    return ApiError(500, "internal", "an error inside the server")


def where(error: BaseException) -> str:
    """Type of an error, and the innermost place in this package that it went through.

    With those of the errors that it was raised from: `KeyError at secondglance.library:search:7`.
    """
    found = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        place = ""
        for frame, line in traceback.walk_tb(current.__traceback__):
            module = str(frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] == __name__.partition(".")[0]:
                place = f" at {module}:{frame.f_code.co_name}:{line}"
        found.append(type(current).__name__ + place)
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return ", from ".join(found)


def body(error: ApiError, *, request_id: str = "") -> dict[str, Any]:
    """The JSON of a problem."""
    try:
        title = HTTPStatus(error.status).phrase
    except ValueError:
        title = "Client Closed Request"
    found: dict[str, Any] = {
        "type": f"urn:secondglance:problem:{error.kind}",
        "title": title,
        "status": error.status,
        "detail": error.detail,
        **error.more,
    }
    return found | ({"instance": f"urn:secondglance:request:{request_id}"} if request_id else {})


def answer(error: ApiError, request: Request) -> JSONResponse:
    """The response of a problem."""
    from fastapi.responses import JSONResponse

    request_id = getattr(request.state, "request_id", "")
    return JSONResponse(
        body(error, request_id=request_id),
        status_code=error.status,
        headers=error.headers,
        media_type=TYPE,
    )


async def respond(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request with a problem, from within a middleware."""
    from starlette.requests import Request

    await answer(error, Request(scope))(scope, receive, send)


def install(app: FastAPI) -> None:
    """Makes every error of an application a problem."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        return answer(error, request)

    @app.exception_handler(SecondGlanceError)
    async def deliberate(request: Request, error: SecondGlanceError) -> JSONResponse:
        return answer(problem(error), request)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input, which may be long or have half of a surrogate pair.
        wrong = [
            {"where": ".".join(str(part) for part in item["loc"]), "what": item["msg"]}
            for item in error.errors()[:20]
        ]
        shown = "; ".join(f"{item['where']}: {item['what']}" for item in wrong[:3])
        detail = utf8_text(shown)[:1000]
        return answer(ApiError(422, "invalid-request", detail, errors=_sane(wrong)), request)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        kind = status.phrase.lower().replace(" ", "-")
        detail = error.detail if isinstance(error.detail, str) else status.phrase
        headers = dict(error.headers or {})
        return answer(ApiError(error.status_code, kind, detail, headers=headers), request)


def _sane(wrong: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: utf8_text(value)[:300] for key, value in item.items()} for item in wrong]
