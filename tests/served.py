"""A server on a socket of its own, for tests that speak HTTP."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import uvicorn

from secondglance.server.app import create_app
from secondglance.server.options import ServerOptions
from secondglance.server.run import listen, uvicorn_config

if TYPE_CHECKING:
    from fastapi import FastAPI

    from secondglance.library import Library


def served(
    library: Library, options: ServerOptions | None = None
) -> contextlib.AbstractContextManager[str]:
    """The address of a server that runs in a thread until the block ends."""
    return running(create_app(library, options or ServerOptions(port=0)))


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of an application that runs in a thread until the block ends."""
    with listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn_config(app))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the server ended while it started"
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not stop"


@contextlib.contextmanager
def client(library: Library, options: ServerOptions | None = None) -> Iterator[httpx.Client]:
    """A client of such a server."""
    with served(library, options) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found
