"""What goes wrong between here and a Milvus server, in words, and what is worth another try."""

from __future__ import annotations

import logging

import grpc
import pymilvus  # noqa: F401 - sets the levels of its loggers, which are changed below

from secondglance.errors import StoreError

# What a server says that is starting, stopping, or moving its segments.
_AWAY = (
    "fail connecting",
    "unavailable",
    "deadline",
    "not ready",
    "not healthy",
    "unhealthy",
    "not fully loaded",
    "collection not loaded",
    "no available",
    "not available",
    "node offline",
    "node not found",
    "node not match",
    "channel not found",
    "segment lacks",
    "retry timeout",
    "context canceled",
    "failed to get delegator",
    "recovering",
)
_BUSY = ("rate limit", "ratelimit", "resource_exhausted", "request is rejected", "quota")
_REFUSED = ("unauthenticated", "auth check", "permission")
_TLS = ("ssl", "certificate", "tls handshake", "handshake failed")

# What these log, with tracebacks, reaches the caller as a StoreError. A level other than the one
# they start with was set by the application and is left alone.
for _name, _initial in (("pymilvus", logging.WARNING), ("grpc._server", logging.NOTSET)):
    if logging.getLogger(_name).level == _initial:
        logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


def passing(error: BaseException | None) -> bool:
    """Whether the same call may succeed a little later."""
    words = _words(error)
    return not any(word in words for word in _REFUSED) and any(
        word in words for word in (*_AWAY, *_BUSY)
    )


def refuses_pattern(error: BaseException | None) -> bool:
    """Whether a server does not know a `like` pattern."""
    return "unsupported pattern" in _words(error)


def server_error(error: BaseException, label: str) -> StoreError:
    """What a server did, as one line with a remedy."""
    words = _words(error)
    if any(word in words for word in _REFUSED):
        return StoreError(
            f"Milvus at {label} refuses the token",
            remedy="check user, password or key in store.token",
        )
    if any(word in words for word in _TLS):
        return StoreError(
            f"no encrypted connection to Milvus at {label}: {_first_line(error)}",
            remedy="check store.tls_ca, that its certificate is for this host, and https in the "
            "address",
        )
    if any(word in words for word in _BUSY):
        return StoreError(
            f"Milvus at {label} limits how fast it is asked: {_first_line(error)}",
            remedy="run the command again later, or raise its quotaAndLimits",
        )
    if passing(error):
        return StoreError(
            f"Milvus at {label} does not answer",
            remedy="start it or correct the address, and run the same command again, which goes "
            "on from there; a path ending in .db needs no server",
        )
    return StoreError(
        f"Milvus at {label} failed: {_first_line(error)}", remedy="see the server's log"
    )


def text_of(error: BaseException) -> str:
    """The message of an error of the client."""
    return str(getattr(error, "message", "") or error).strip()


def _first_line(error: BaseException) -> str:
    return text_of(error).partition("\n")[0][:300]


def _words(error: BaseException | None) -> str:
    # While connecting, the client hides the reason in the cause.
    found: list[str] = []
    while error is not None and len(found) < 5:
        found.append(text_of(error))
        if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
            found.append(str(error.code()))
        error = error.__cause__
    return " ".join(found).lower()
