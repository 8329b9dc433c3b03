"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.pipelines.host_names import url_host
from secondglance.server.options import ServerOptions

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from secondglance.library import Library
    from secondglance.server.several import Member

BACKLOG = 2048
MAX_HEAD_BYTES = 64 * 1024
"""Of a request's first line and headers; the application allows less, with a better answer."""
LAST_S = 5


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


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """How the web server runs an application."""
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        # What still runs after `shutdown_s` was told to stop, and has this long for it.
        timeout_graceful_shutdown=LAST_S,
    )


def run(
    served: Library | Sequence[Member],
    options: ServerOptions,
    *,
    on_start: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves a library, or several, until SIGINT or SIGTERM.

    The first signal lets requests that run finish within `shutdown_s`; a second one ends the
    process at once, with 128 and the signal's number as its exit status.

    Args:
        served: An open library, or those of `several`.
        options: As the operator decided.
        on_start: Called with the address before the first request, and with the public link if
            there is one.

    Raises:
        InputError: It cannot listen there, or there is no public link.
        KeyboardInterrupt: It ended by SIGINT. After SIGTERM it returns.
    """
    from secondglance.library import Library
    from secondglance.server.app import create_app
    from secondglance.server.observe import set_up_log
    from secondglance.server.several import check_members, create_app_of_several
    from secondglance.server.stopping import StoppableServer

    if not isinstance(served, Library):
        check_members(served, options)
    # At first, as what an operator decided may be refused.
    listening = listen(options.host, options.port)
    with listening:
        port = int(listening.getsockname()[1])
        links = [f"http://{url_host(options.host)}:{port}/"]
        if options.share:
            from secondglance.server.share import host_of, public_link

            links.append(public_link(port))
            options = replace(options, names=(*options.names, host_of(links[-1])))
        set_up_log(options.log_format)
        if isinstance(served, Library):
            app = create_app(served, options)
        else:
            app = create_app_of_several(served, options)
        for link in links:
            on_start(link)
        server = StoppableServer(uvicorn_config(app), app=app, shutdown_s=options.shutdown_s)
        server.run(sockets=[listening])
    if server.signal_number == signal.SIGINT:
        raise KeyboardInterrupt
