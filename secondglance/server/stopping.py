"""How a server ends: not ready at once, then what runs finishes, then it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import uvicorn

if TYPE_CHECKING:
    from fastapi import FastAPI

LOOK_EVERY_S = 0.05


class Stoppable(Protocol):
    """What is served, a library or several."""

    def stop(self, why: str) -> None:
        """Takes no more work, and is not ready any more; what runs goes on."""
        ...

    def stop_work(self) -> None:
        """Ends what runs."""
        ...

    def remove_uploads(self) -> None:
        """Ends decoding, and removes what was uploaded."""
        ...


class StoppableServer(uvicorn.Server):
    """A web server that finishes what runs before it closes its door.

    uvicorn would stop listening first. Then a proxy that asks `/readyz` learns nothing, and its
    next requests fail instead of going elsewhere.

    Args:
        config: Of uvicorn.
        app: With `state.serving` once it has started, a `Stoppable`.
        shutdown_s: How long what runs may go on.
        exit_now: Ends the process with a status, on a second signal.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        app: FastAPI,
        shutdown_s: float,
        exit_now: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._shutdown_s = shutdown_s
        self._exit_now = exit_now
        self.signal_number: int | None = None
        """That ended the server; None if none did."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs in the main thread on SIGINT and SIGTERM, between two steps of the loop."""
        if self.signal_number is not None:
            with contextlib.suppress(Exception):
                self._serving.remove_uploads()  # nobody else removes uploaded files
            self._exit_now(128 + sig)
            return
        self.signal_number = sig
        # uvicorn's own handler would raise the signal again at the end.
        self.should_exit = True
        with contextlib.suppress(AttributeError):  # it is still starting
            self._serving.stop("the server ends")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Waits for what runs, stops what is left, and closes."""
        self._serving.stop("the server ends")
        ends = time.monotonic() + self._shutdown_s
        while self._busy() and time.monotonic() < ends:
            await asyncio.sleep(LOOK_EVERY_S)
        self._serving.stop_work()
        await super().shutdown(sockets)

    @property
    def _serving(self) -> Stoppable:
        found: Stoppable = self._app.state.serving
        return found

    def _busy(self) -> bool:
        """Whether a request has no full answer yet."""
        return any(not task.done() for task in self.server_state.tasks)
