"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.server.options import ServerOptions

if TYPE_CHECKING:
    from secondglance.library import Library

BACKLOG = 2048


def listen(host: str, port: int, *, backlog: int = BACKLOG) -> socket.socket:
    """A socket that listens.

    Args:
        host: Name or address of this machine.
        port: 0 takes any that is free.
        backlog: Connections that may wait.

    Raises:
        InputError: The port is in use, or the host is not this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=backlog)
    except (OSError, OverflowError) as error:
        in_use = getattr(error, "errno", None) == errno.EADDRINUSE
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot listen on {host} port {port}: "
            + ("another program uses it" if in_use else reason),
            remedy="choose another --port (0 takes any that is free), or stop that program"
            if in_use
            else "choose another --host or --port",
        ) from error


def run(
    library: Library,
    options: ServerOptions,
    *,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves a library until SIGINT or SIGTERM.

    Args:
        library: Open.
        options: As the operator decided.
        on_start: Called with the address before the first request.

    Raises:
        InputError: It cannot listen there.
    """
    import uvicorn

    from secondglance.server.app import create_app

    listening = listen(options.host, options.port)
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(options.host, options.host)
    with listening:
        on_start(f"http://{name}:{listening.getsockname()[1]}/")
        uvicorn.Server(
            uvicorn.Config(
                create_app(library, options),
                log_level="warning",
                access_log=False,
                server_header=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=int(options.shutdown_s),
            )
        ).run(sockets=[listening])
