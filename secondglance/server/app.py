"""The application: a library behind HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

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
from secondglance.server.serving import Serving

if TYPE_CHECKING:
    from secondglance.library import Library

_ROUTES = (search, rerank, uploads, media, index, models, reports, session, health, metrics, page)

DESCRIPTION = """Two-stage search for media libraries: CLIP recall, Qwen3-VL reranking.

Errors are problem details (RFC 9457, `application/problem+json`)."""


def create_app(library: Library, options: ServerOptions | None = None) -> FastAPI:
    """The application that serves a library.

    Args:
        library: Open; it is not closed with the application.
        options: None serves this machine only, without keys.
    """
    options = options or ServerOptions()
    counts = Metrics()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        server = Serving(library, options, metrics=counts)
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

    app = FastAPI(
        title="secondglance",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # they load scripts from the network
        redoc_url=None,
    )
    problems.install(app)
    openapi.install(app)
    # What is added last sees a request first.
    security.install(app, options)
    app.add_middleware(Observe, metrics=counts)
    app.add_middleware(SecurityHeaders)
    for part in (
        search,
        explain,
        rerank,
        uploads,
        media,
        index,
        models,
        reports,
        session,
        health,
        metrics,
        page,
    ):
        app.include_router(part.router)
    return app


async def _load(server: Serving) -> None:
    try:
        await asyncio.to_thread(server.library.load)
        if not server.stopping:
            server.not_ready = ""
    except SecondGlanceError as error:
        server.not_ready = f"the models cannot be loaded: {problems.without_paths(str(error))}"
