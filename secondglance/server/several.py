"""Several libraries in one server: each has the whole interface in a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, FastAPI, Request

from secondglance.errors import InputError, SecondGlanceError
from secondglance.server import problems
from secondglance.server.app import create_app, guarded
from secondglance.server.front import Choose, Front
from secondglance.server.metrics import Metrics
from secondglance.server.options import ServerOptions
from secondglance.server.problems import ApiError
from secondglance.server.routes import health, libraries, page, session
from secondglance.server.security import Access
from secondglance.server.serving import Place, Serving
from secondglance.server.turns import JobTurns, Turns
from secondglance.server.work import default_concurrency

if TYPE_CHECKING:
    from secondglance.library import Library

KNOWN_FOR_S = 10.0
"""How long it is taken for known whether the store of a library answers."""
PATIENCE_S = 3.0
"""How long a list of the libraries waits for their stores."""

State = Literal["ready", "loading", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of several libraries.

    Attributes:
        name: In addresses.
        title: For people.
        library: Open; None where it cannot be opened.
        reason: Why it cannot; without the server's paths.
        api_keys: Any of them opens it; empty for none.
        index_roots: Folders from which its jobs may index besides its own.
        reports: Folders of `evaluate` reports to show.
    """

    name: str
    title: str = ""
    library: Library | None = None
    reason: str = ""
    api_keys: tuple[str, ...] = ()
    index_roots: tuple[Path, ...] = ()
    reports: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a library at a moment.

    Attributes:
        state: Whether it answers.
        reason: Why it does not; empty if it does.
        counts: What it holds; None while that is not known.
    """

    state: State
    reason: str = ""
    counts: Mapping[str, int] | None = None


class Door:
    """A library of the server, and its application.

    Args:
        member: The library.
        app: Serves it, or says why it cannot be served.
    """

    def __init__(self, member: Member, app: FastAPI) -> None:
        self.name = member.name
        self.title = member.title or member.name
        self.app = app
        self._known = Known(state="unavailable", reason=member.reason)
        self._asked_at = -KNOWN_FOR_S
        self._asking: asyncio.Task[Known] | None = None
        self.metrics.note_open(is_open=member.library is not None)

    @property
    def serving(self) -> Serving | None:
        """What serves it; None if it is not served."""
        return getattr(self.app.state, "serving", None)

    @property
    def metrics(self) -> Metrics:
        """Its counts."""
        found: Metrics = self.app.state.metrics
        return found

    async def known(self) -> Known:
        """What is known of it now; its store is asked now and then."""
        server = self.serving
        if server is None:
            return self._known
        if self._asking is None and time.monotonic() - self._asked_at >= KNOWN_FOR_S:
            self._asking = asyncio.create_task(asyncio.to_thread(self._ask, server))
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=PATIENCE_S)
            if not self._asking.done():
                return Known(state="unavailable", reason="its store has not answered yet")
            self._known, self._asking = self._asking.result(), None
            self._asked_at = time.monotonic()
        if server.not_ready and self._known.state == "ready":
            state: State = "unavailable" if server.is_stuck else "loading"
            return replace(self._known, state=state, reason=server.not_ready)
        return self._known

    @staticmethod
    def _ask(server: Serving) -> Known:
        try:
            return Known(state="ready", counts=server.library.counts())
        except SecondGlanceError as error:
            reason = problems.without_paths(error.problem)
        except Exception as error:
            reason = problems.internal(error).detail
        return Known(state="unavailable", reason=reason)


class ServingSeveral:
    """All libraries of a server, for whoever starts and stops it.

    Args:
        doors: Of the libraries, in the operator's order.
        front: Who sees which.
        metrics: Of the process.
    """

    def __init__(self, doors: Sequence[Door], *, front: Front, metrics: Metrics) -> None:
        self.doors = tuple(doors)
        self.front = front
        self.metrics = metrics
        self._ends = ""

    @property
    def not_ready(self) -> str:
        """Why the server is not ready; empty if it is. A library that fails keeps no other."""
        waits = any(server.not_ready and not server.is_stuck for server in self._servers())
        return self._ends or ("models are being loaded" if waits else "")

    def stop(self, why: str) -> None:
        """Takes no more work, and is not ready any more; what runs goes on."""
        self._ends = why
        for server in self._servers():
            server.stop(why)

    def stop_work(self) -> None:
        """Ends what runs."""
        for server in self._servers():
            server.stop_work()

    def remove_uploads(self) -> None:
        """Ends decoding, and removes what was uploaded."""
        for server in self._servers():
            server.remove_uploads()

    def _servers(self) -> list[Serving]:
        return [server for door in self.doors if (server := door.serving) is not None]


def create_app_of_several(members: Sequence[Member], options: ServerOptions) -> FastAPI:
    """The application that serves several libraries.

    Args:
        members: The libraries; they are not closed with the application.
        options: Of the server. Keys, roots and reports are those of each member.

    Raises:
        InputError: Two have the same name, or one would be open to others without a key.
    """
    check_members(members, options)
    front = Front(options, {member.name: member.api_keys for member in members})
    counts = Metrics()
    turns = Turns(options.concurrency or default_concurrency())
    job_turns = JobTurns(options.index_jobs)
    doors = []
    for member in members:
        place = Place(
            name=member.name,
            title=member.title or member.name,
            turns=turns,
            job_turns=job_turns,
            front=front,
        )
        doors.append(Door(member, _app_of(member, options, place)))
    served = ServingSeveral(doors, front=front, metrics=counts)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for door in doors:
                await stack.enter_async_context(door.app.router.lifespan_context(door.app))
            stack.enter_context(counts.watching_process())
            try:
                yield
            finally:
                served.stop("the server ends")
                served.stop_work()
                await asyncio.to_thread(turns.close)
                front.sessions.clear()

    app = guarded(
        [libraries.router, session.router, health.router],
        options=options,
        metrics=counts,
        access=front,
        lifespan=lifespan,
    )
    app.state.serving = served
    # Nobody has this key.
    refusing = replace(options, api_keys=(secrets.token_urlsafe(32),))
    nowhere = guarded(
        [session.router, page.router],
        options=refusing,
        metrics=counts,
        access=Access(refusing, front=front),
    )
    app.add_middleware(
        Choose, libraries={door.name: door.app for door in doors}, nowhere=nowhere, front=front
    )
    return app


def check_members(members: Sequence[Member], options: ServerOptions) -> None:
    """Checks that libraries may be served together.

    Raises:
        InputError: Two have the same name, or one would be open to others without a key.
    """
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"several libraries are called {', '.join(twice)}")
    for member in members:
        try:
            _options_of(member, options)
        except InputError as error:
            raise InputError(
                f"library {member.name}: {error.problem}", remedy=error.remedy
            ) from None


def _options_of(member: Member, options: ServerOptions) -> ServerOptions:
    return replace(
        options,
        api_keys=member.api_keys,
        index_roots=member.index_roots,
        reports=member.reports,
    )


def _app_of(member: Member, options: ServerOptions, place: Place) -> FastAPI:
    options = _options_of(member, options)
    if member.library is not None:
        return create_app(member.library, options, place=place)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/{path:path}", methods=libraries.METHODS)
    async def unavailable(request: Request, path: str) -> None:
        raise ApiError(503, "library-unavailable", f"this library is unavailable: {member.reason}")

    return guarded(
        [session.router, page.router, router],
        options=options,
        metrics=Metrics(of_process=False),
        access=Access(options, front=place.front),
        place=place,
    )
