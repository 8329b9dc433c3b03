"""Who may ask: names of the server, pages of other sites, and API keys.

A server on this machine without keys has one enemy: a web page in the same browser. It may send
requests here (refused by Origin and Sec-Fetch-Site), or give its own name this address (refused
by Host). The others are kept out by keys.
"""

from __future__ import annotations

import json
import math
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from secondglance.pipelines.host_names import ANY_ADDRESS, HostNames
from secondglance.server import problems
from secondglance.server.keys import KeyRing, Sessions, WrongKeys
from secondglance.server.middleware import UPLOADS, route_path
from secondglance.server.options import ServerOptions
from secondglance.server.problems import ApiError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/v1/session"})
"""That answer without a key, besides those below `OPEN_FOLDER`."""
OPEN_FOLDER = "/static/"
LIBRARIES = "/libraries"
"""Lists the libraries where there are several, and is the folder that they are in."""
MAX_COOKIES = 4
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Access:
    """What decides about requests; one an application, as `app.state.access`.

    Args:
        options: As the operator decided.
        front: Of the server that this library is one of several of. Its sessions count here, too,
            if their key does; and wrong keys are counted together, so that nobody can try more of
            them for there being more libraries.
    """

    demands_key = True
    """Whether a server that has keys answers without one nowhere but on `OPEN_PATHS`."""

    def __init__(self, options: ServerOptions, *, front: Access | None = None) -> None:
        self.keys = KeyRing(options.api_keys)
        self.sessions = Sessions()
        self.wrong_keys: WrongKeys = WrongKeys() if front is None else front.wrong_keys
        self._front = front
        own = (socket.gethostname(),) if options.host in ANY_ADDRESS else ()
        self._names = HostNames(options.host, names=(*own, *options.names))
        self._origins = frozenset(origin.lower() for origin in options.cors_origins)

    def check_host(self, scope: Scope) -> None:
        """Refuses names that are not the server's.

        Raises:
            ApiError: 421.
        """
        hosts = _headers(scope, b"host")
        if len(hosts) != 1 or not self._names.knows(hosts[0]):
            shown = hosts[0][:100] if hosts else ""
            raise ApiError(
                421,
                "unknown-host",
                f"this server is not called {json.dumps(shown)}",
                remedy="whoever runs it can add a name with: serve --name NAME",
            )

    def check_origin(self, scope: Scope) -> None:
        """Refuses requests that the page of another site makes.

        Links from elsewhere may be followed; a program sends none of these headers.

        Raises:
            ApiError: 403.
        """
        origin = next(iter(_headers(scope, b"origin")), None)
        site = next(iter(_headers(scope, b"sec-fetch-site")), None)
        allowed = origin is not None and origin.lower() in self._origins
        if allowed:
            return
        changes = scope["method"] not in SAFE_METHODS
        foreign = site not in (None, "same-origin", "none")
        if changes and origin is not None:
            # Behind a proxy the scheme differs, so it is not compared.
            host = next(iter(_headers(scope, b"host")), "")
            foreign = foreign or urlsplit(origin).netloc.lower() != host.lower()
        navigates = "navigate" in _headers(scope, b"sec-fetch-mode") and not changes
        path = route_path(scope)
        tells = path.startswith("/v1/") or path == LIBRARIES
        if foreign and not navigates and (changes or tells):
            raise ApiError(
                403,
                "foreign-origin",
                "pages of other sites may not call this server",
                remedy="whoever runs it can allow a site with: serve --cors-origin ORIGIN",
            )

    def check_body(self, scope: Scope) -> None:
        """Refuses bodies that are not JSON: a form of any page can send the others.

        Raises:
            ApiError: 415.
        """
        method = scope["method"]
        if method in SAFE_METHODS or (route_path(scope) == UPLOADS and method == "POST"):
            return
        kinds = _headers(scope, b"content-type")
        length = next(iter(_headers(scope, b"content-length")), "0")
        has_body = length.strip() != "0" or bool(_headers(scope, b"transfer-encoding"))
        if (kinds or has_body) and not (len(kinds) == 1 and _is_json(kinds[0])):
            shown = json.dumps(kinds[0][:80]) if kinds else "not named"
            raise ApiError(
                415,
                "not-json",
                f"the content type is {shown}; only application/json is read here",
                remedy="send Content-Type: application/json",
            )

    def check_key(self, scope: Scope) -> None:
        """Demands a key, or the cookie of a session; `scope["state"]["key"]` is its name.

        Raises:
            ApiError: 401, or 429 after too many wrong keys.
        """
        name = self.session(scope)
        given = given_key(scope)
        if name is None and given is not None:
            name = self.show(given, scope)
        if name is not None:
            scope.setdefault("state", {})["key"] = name
        elif (
            self.keys
            and (self.demands_key or given is not None)
            and not self.is_open(route_path(scope))
        ):
            said = "an API key is needed" if given is None else "this is not an API key"
            raise unauthorized(said)

    def tells_of_keys(self) -> bool | None:
        """Whether there are keys, where some libraries want one and others do not; else None."""
        return None

    def is_open(self, path: str) -> bool:
        """Whether a path answers without a key."""
        return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)

    def session(self, scope: Scope) -> str | None:
        """The name of the key of a session that is this client's; None if there is none."""
        for token in session_tokens(scope):
            name = self.sessions.find(token)
            if name is not None:
                return name
        name = None if self._front is None else self._front.session(scope)
        return name if name is not None and self.keys.holds(name) else None

    def end_session(self, scope: Scope) -> None:
        """Ends the session of this client, if there is one."""
        for token in session_tokens(scope):
            self.sessions.end(token)
        if self._front is not None:
            self._front.end_session(scope)

    def show(self, given: str, scope: Scope) -> str | None:
        """The name of a key that somebody shows; None if it is wrong, which is counted.

        Raises:
            ApiError: 429: too many were wrong.
        """
        if not self.keys:
            return None
        name = self.keys.find(given)
        if name is not None:
            # Always: behind a proxy all clients have one address, and anybody could lock them out.
            return name
        address = (scope.get("client") or ("", 0))[0]
        wait_s = self.wrong_keys.wait_s(address)
        if wait_s:
            raise ApiError(
                429,
                "too-many-wrong-keys",
                "too many wrong keys came from this address",
                headers={"Retry-After": str(math.ceil(wait_s))},
            )
        self.wrong_keys.add(address)
        return None


class Guard:
    """Asks `Access` about each request, in front of an application."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with a problem."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            try:
                self._access.check_origin(scope)
                self._access.check_key(scope)
                self._access.check_body(scope)
            except ApiError as error:
                await problems.respond(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


class HostGuard:
    """Refuses other names of the server, before anything else is looked at."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers 421."""
        if scope["type"] == "http":
            try:
                self._access.check_host(scope)
            except ApiError as error:
                await problems.respond(error, scope, receive, send)
                return
        await self._app(scope, receive, send)


def install(app: FastAPI, options: ServerOptions, access: Access) -> None:
    """Protects an application; what is added first is asked last."""
    from starlette.middleware.cors import CORSMiddleware

    from secondglance.server.middleware import SizeLimits

    app.state.access = access
    app.add_middleware(SizeLimits, max_body_bytes=int(options.max_body_mb * 1e6))
    app.add_middleware(Guard, access=access)
    if options.cors_origins:
        # Outside of the guard: a preflight has no key, and a page may read why it was refused.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["Location", "Retry-After", "X-Request-ID"],
        )
    app.add_middleware(HostGuard, access=access)


def unauthorized(said: str) -> ApiError:
    """401."""
    return ApiError(
        401,
        "unauthorized",
        said,
        remedy="send Authorization: Bearer KEY",
        headers={"WWW-Authenticate": 'Bearer realm="secondglance"'},
    )


def cookie_name(scope: Scope) -> str:
    """Of the session; with the port, as browsers share cookies between ports of a host."""
    server = scope.get("server") or ("", 0)
    return f"secondglance_{server[1]}"


def cookie_path(scope: Scope) -> str:
    """Where browsers send the cookie: to the application that gave it, and to no other."""
    return f"{scope.get('root_path', '')}/"


def session_tokens(scope: Scope) -> list[str]:
    """What the cookies of a request hold: that of a library, and that of the server before it."""
    wanted = cookie_name(scope)
    pairs = [p for header in _headers(scope, b"cookie") for p in header.split(";")]
    split = [pair.strip().partition("=") for pair in pairs]
    return [value for name, _, value in split if name == wanted and value][:MAX_COOKIES]


def given_key(scope: Scope) -> str | None:
    """The key in the headers of a request; None if there is none."""
    for header in _headers(scope, b"authorization"):
        kind, _, key = header.partition(" ")
        if kind.lower() == "bearer":
            return key.strip()
    return next(iter(_headers(scope, b"x-api-key")), None)


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_json(kind: str) -> bool:
    plain = kind.partition(";")[0].strip().lower()
    return plain == "application/json"
