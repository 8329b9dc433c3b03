"""The log of a server, and the middleware that numbers, counts and logs requests.

One line a request. Neither paths nor stacks nor keys are written: of a path only the template of
its route, of an error its type and place, of a key eight digits of its hash.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog

from secondglance.server import problems
from secondglance.server.metrics import METHODS, Metrics

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from structlog.typing import EventDict, Processor

LogFormat = Literal["console", "json"]
REQUEST_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What of a client's X-Request-ID is taken over; anything else could forge lines of a log."""
UNKNOWN_ROUTE = "unknown"

access_log: Any = structlog.wrap_logger(
    logging.getLogger("secondglance.server.access"),
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


class Observe:
    """Numbers a request, logs and counts it, and answers 500 where nobody foresaw an error.

    The number is `request.state.request_id`, the header X-Request-ID, and in every line that the
    log has from this request.

    Args:
        app: What is observed.
        metrics: Counts.
        library: Whose requests these are, where there are several.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, library: str = "") -> None:
        self._app = app
        self._metrics = metrics
        self._library = library

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began = time.perf_counter()
        status, sent, received = 0, 0, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def numbered(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                ]
            sent += len(message.get("body", b""))
            await send(message)

        self._metrics.begin()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, counted, numbered)
            except Exception as error:
                # It ends here: the web server would write the stack into the log.
                failed = problems.internal(error)
                if not status:
                    await problems.respond(failed, scope, receive, numbered)
            finally:
                seconds = time.perf_counter() - began
                route = _route(scope)
                method = scope["method"] if scope["method"] in METHODS else "other"
                # Nobody was answered where the client went away before the end.
                answered = status or problems.CLIENT_CLOSED
                self._metrics.end(
                    method=method,
                    route=route,
                    status=answered,
                    seconds=seconds,
                    received_bytes=received,
                )
                line: dict[str, Any] = {
                    "method": method,
                    "route": route,
                    "status": answered,
                    "ms": round(seconds * 1e3, 1),
                    "bytes_in": received,
                    "bytes_out": sent,
                }
                if self._library:
                    line["library"] = self._library
                if "key" in state:
                    line["key"] = state["key"]
                access_log.info("request", **line)


def _request_id(scope: Scope) -> str:
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(given) == 1 and REQUEST_ID.fullmatch(given[0]):
        return str(given[0].decode())
    return secrets.token_hex(8)


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path_format", None) or getattr(route, "path", UNKNOWN_ROUTE))


def set_up_log(log_format: LogFormat, *, stream: TextIO | None = None) -> logging.Handler:
    """Sends all log messages of the process to one place; see `without_secrets`.

    Args:
        log_format: Lines for people, or one JSON object a line.
        stream: None for stderr.

    Returns:
        The handler, on the root logger.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=stream.isatty())
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _with_level,
                without_secrets,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    # Also what uvicorn, or whoever ran it before in this process, set up for its own.
    for name in ("secondglance", "uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("secondglance").setLevel(logging.INFO)
    return handler


def _with_level(_: Any, __: str, event: EventDict) -> EventDict:
    """Gives lines of our own what `foreign_pre_chain` gives to the others."""
    if "level" not in event:
        record = event["_record"]
        event["level"] = record.levelname.lower()
        event["logger"] = record.name
        event["timestamp"] = structlog.processors.TimeStamper(fmt="iso", utc=True)(None, "", {})[
            "timestamp"
        ]
    return event


def without_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """Leaves out stacks and folders, whoever logs them."""
    failed = event.pop("exc_info", None)
    event.pop("stack_info", None)
    event.pop("positional_args", None)
    if isinstance(failed, tuple) and failed[1] is not None:
        event["error"] = problems.where(failed[1])
    for name, value in event.items():
        if isinstance(value, str) and name != "route":
            event[name] = problems.without_paths(value)
    return event
