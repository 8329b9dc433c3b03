"""A circuit breaker: a server that keeps failing is left alone for a while.

The pattern is that of Michael T. Nygard, "Release It!". The package pybreaker holds its lock while
a call runs, which would send the parts of a request one after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to ask a server once, to be given back with how it went.

    Attributes:
        trial: Whether it is the one trial after a pause.
    """

    trial: bool


class Breaker:
    """Counts failures in a row; may be used from several threads.

    Args:
        failures: So many in a row, and the server is not asked.
        pause_s: For so long, in seconds; then one call is let through. If that fails, too, the
            next pause begins.
        clock: Seconds, never decreasing.
    """

    def __init__(
        self, *, failures: int, pause_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = failures
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._until_s: float | None = None
        """End of the pause; None while calls pass."""
        self._trying = False

    @property
    def failed(self) -> int:
        """Failures in a row."""
        return self._failed

    @property
    def left_s(self) -> float:
        """Seconds until the server may be asked; 0 if it may be now."""
        with self._lock:
            return 0.0 if self._until_s is None else max(self._until_s - self._clock(), 0.0)

    @property
    def resting(self) -> bool:
        """Whether it waits for a trial, or for the pause before it."""
        return self._until_s is not None

    def enter(self) -> Permit | None:
        """Leave to ask now, which `leave` must give back; None during a pause or a trial."""
        with self._lock:
            if self._until_s is None:
                return Permit(trial=False)
            if self._trying or self._clock() < self._until_s:
                return None
            self._trying = True
            return Permit(trial=True)

    def leave(self, permit: Permit, *, healthy: bool | None, wary: bool = False) -> None:
        """Notes how a call went.

        Args:
            permit: What `enter` gave.
            healthy: None if the call says nothing about the server.
            wary: A trial that went well is no proof: the next failure begins another pause.
        """
        with self._lock:
            if permit.trial:
                self._trying = False
            elif self._until_s is not None:
                return  # it began before the pause: the trial decides
            if healthy is None:
                return
            if healthy:
                self._failed, self._until_s = self._most - 1 if wary else 0, None
                return
            self._failed += 1
            if permit.trial or self._failed >= self._most:
                self._until_s = self._clock() + self._pause_s
