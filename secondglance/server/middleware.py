"""What every request passes through, from the outside in; see `security` for who may ask.

Plain ASGI: Starlette's `BaseHTTPMiddleware` would hide from a request that its client went away.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from secondglance.server import problems
from secondglance.server.problems import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOADS = "/v1/uploads"
"""Takes files, and counts their bytes itself."""
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_URL_BYTES = 8 * 1024
DRAINED_BYTES = 4_000_000
DRAIN_S = 1.0

HEADERS: tuple[tuple[str, str], ...] = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "media-src 'self' blob:; connect-src 'self'; frame-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Permissions-Policy",
        "camera=(), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Of every answer that does not set its own. No HSTS: TLS is the business of a proxy."""
_RAW = tuple((name.lower().encode(), value.encode()) for name, value in HEADERS)


def route_path(scope: Scope) -> str:
    """The path of a request below the application that answers it, which may lie in a folder."""
    path, folder = str(scope["path"]), str(scope.get("root_path", ""))
    below = path == folder or path.startswith(f"{folder}/")
    return path[len(folder) :] if folder and below else path


class SecurityHeaders:
    """Adds `HEADERS`, and keeps answers of the interface out of caches."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                there = {name.lower() for name, _ in headers}
                headers = [_framed(name, value) for name, value in headers]
                headers += [pair for pair in _RAW if pair[0] not in there]
                if b"cache-control" not in there and not route_path(scope).startswith("/static/"):
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, secured)


def _framed(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """A policy of a route's own may be shown in frames of our page, and in no other's."""
    if name.lower() == b"content-security-policy" and b"frame-ancestors" not in value:
        value = value.rstrip(b"; ") + b"; frame-ancestors 'self'"
    return name, value


class SizeLimits:
    """Refuses requests that are too large: their address, their headers, or their body.

    Args:
        app: What is protected.
        max_body_bytes: Of any request but uploads.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers 413, 414 or 431."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        error = _too_long(scope)
        if error is not None:
            await problems.respond(error, scope, receive, send)
        elif route_path(scope) == UPLOADS and scope["method"] == "POST":
            await self._app(scope, receive, send)
        else:
            await self._limited(scope, receive, send)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._max_body_bytes
        too_large = ApiError(
            413,
            "body-too-large",
            f"the body of the request is larger than {most / 1e6:g} MB",
            remedy="send files to /v1/uploads, or less at once",
            headers={"Connection": "close"},
        )
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if any(not value.isdigit() or int(value) > most for value in lengths):
            await _drain(receive)
            await problems.respond(too_large, scope, receive, send)
            return
        taken = 0
        started = False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > most:
                    raise _BodyTooLargeError
            return message

        async def held(message: Message) -> None:
            # Whatever the application makes of the failed read, 413 is the answer.
            nonlocal started
            if taken <= most or started:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, held)
        except _BodyTooLargeError:
            pass
        except Exception:
            if taken <= most:
                raise
        if taken > most and not started:
            await _drain(receive)
            await problems.respond(too_large, scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Reads on for a moment: a client that is cut off while it sends does not see the answer."""

    async def read() -> None:
        left = DRAINED_BYTES
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b"")) + 1
            if not message.get("more_body", False):
                return

    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), DRAIN_S)


class _BodyTooLargeError(Exception):
    """Ends the read of a body."""


def _too_long(scope: Scope) -> ApiError | None:
    url = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
    if url > MAX_URL_BYTES:
        return ApiError(
            414, "address-too-long", f"the address has {url} bytes, more than {MAX_URL_BYTES}"
        )
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        return ApiError(
            431,
            "headers-too-large",
            f"{len(headers)} headers of {size} bytes are more than {MAX_HEADERS} or "
            f"{MAX_HEADER_BYTES} bytes",
        )
    return None
