"""Giving up work that nobody waits for any more.

Whoever starts work for a caller that may go away wraps it in `stoppable`; the work asks `check`
now and then. Threads that it starts do not inherit the event, so waiting is what must ask.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator

from secondglance.errors import StoppedError

LOOK_EVERY_S = 0.05
"""Between two looks at the event while waiting for something else, in seconds."""

_event: contextvars.ContextVar[threading.Event | None] = contextvars.ContextVar(
    "stop", default=None
)


@contextlib.contextmanager
def stoppable(event: threading.Event) -> Iterator[None]:
    """Lets `event`, once set, end what this thread does within the block at its next `check`."""
    token = _event.set(event)
    try:
        yield
    finally:
        _event.reset(token)


def current() -> threading.Event | None:
    """The event of the block that this thread is in; None outside of any."""
    return _event.get()


def check() -> None:
    """Does nothing, unless the work of this thread shall end.

    Raises:
        StoppedError: It shall.
    """
    event = _event.get()
    if event is not None and event.is_set():
        raise StoppedError("stopped: nobody waits for the answer any more")
