"""The application: a library behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from secondglance import __version__
from secondglance.errors import SecondGlanceError
from secondglance.server import openapi, problems, security
from secondglance.server.metrics import Metrics
from secondglance.server.middleware import SecurityHeaders
from secondglance.server.observe import Observe
from secondglance.server.options import ServerOptions
from secondglance.server.routes import (
    explain,
    health,
    index,
    media,
    metrics,
    models,
    page,
    reports,
    rerank,
    search,
    session,
    uploads,
)
from secondglance.server.security import Access
from secondglance.server.serving import Place, Serving

if TYPE_CHECKING:
    from fastapi import APIRouter

    from secondglance.library import Library

OF_LIBRARY = (search, explain, rerank, uploads, media, index, models, reports, session)
OF_PROCESS = (health, metrics)

DESCRIPTION = """Two-stage search for media libraries: CLIP recall, Qwen3-VL reranking.

Errors are problem details (RFC 9457, `application/problem+json`)."""

Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


def create_app(
    library: Library, options: ServerOptions | None = None, *, place: Place | None = None
) -> FastAPI:
    """The application that serves a library.

    Args:
        library: Open; it is not closed with the application.
        options: None serves this machine only, without keys.
        place: Among several libraries of a server, which then tells of its health; None for the
            only one.
    """
    options = options or ServerOptions()
    counts = Metrics(of_process=place is None)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = Serving(library, options, metrics=counts, place=place)
        app.state.serving = server
        loading = None
        if options.preload:
            server.not_ready = "the models are being loaded"
            loading = asyncio.create_task(_load(server))
        with counts.watching(server):
            try:
                yield
            finally:
                server.stop("the server ends")
                if loading is not None:
                    await asyncio.wait({loading})
                await asyncio.to_thread(server.close)
                app.state.access.sessions.clear()

    parts = (*OF_LIBRARY, *(() if place else OF_PROCESS), page)
    return guarded(
        [part.router for part in parts],
        options=options,
        metrics=counts,
        access=Access(options, front=place.front if place else None),
        lifespan=lifespan,
        place=place,
    )


def guarded(
    routers: list[APIRouter],
    *,
    options: ServerOptions,
    metrics: Metrics,
    access: Access,
    lifespan: Lifespan | None = None,
    place: Place | None = None,
) -> FastAPI:
    """An application with all that a request passes through before it gets to a route.

    Args:
        routers: Of the routes.
        options: As the operator decided.
        metrics: Counts requests.
        access: Decides who may ask.
        lifespan: Of what the routes need.
        place: Among several libraries.
    """
    described: dict[str, Any] = {"servers": [{"url": place.folder}]} if place else {}
    app = FastAPI(
        title=f"secondglance: {place.title}" if place else "secondglance",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from the network
        redoc_url=None,
        root_path_in_servers=False,
        **described,
    )
    app.state.metrics = metrics
    problems.install(app)
    openapi.install(app)
    # What is added last sees a request first.
    security.install(app, options, access)
    app.add_middleware(Observe, metrics=metrics, library=place.name if place else "")
    app.add_middleware(SecurityHeaders)
    for router in routers:
        app.include_router(router)
    return app


async def _load(server: Serving) -> None:
    try:
        await asyncio.to_thread(server.library.load)
        if not server.stopping:
            server.not_ready = ""
    except SecondGlanceError as error:
        server.not_ready = f"the models cannot be loaded: {problems.without_paths(str(error))}"
        server.is_stuck = True
