"""When to ask a second server the same thing: "hedged requests".

Dean and Barroso, "The Tail at Scale" (2013): a request that takes longer than 95 % of requests do
is sent to another server as well, and the first answer wins. The longest waits vanish for a few
per cent of further load; here that share is a limit, so that a fleet that is slow as a whole is
not asked twice as much.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Hashable

LEAST_ANSWERS = 20
"""Before these are known, nothing is hedged."""
RECENT = 256
"""Answers that count, for one size of question."""
QUANTILE = 0.95
BURST = 4.0
"""Hedges in a row that saved-up allowance is good for, at most."""


class Hedging:
    """How long answers take, and whether a second question is allowed. For several threads.

    Questions are compared with those of about their size, that is to the next power of two.

    Args:
        share: Of questions that may be asked a second time; 0 never allows it.
    """

    def __init__(self, *, share: float) -> None:
        self._share = share
        self._allowance = 1.0
        self._lock = threading.Lock()
        self._seconds: dict[int, deque[tuple[Hashable, float]]] = defaultdict(
            lambda: deque(maxlen=RECENT)
        )
        self._asked = 0
        self._hedged = 0

    @property
    def asked(self) -> int:
        """Questions so far, each counted once."""
        return self._asked

    @property
    def hedged(self) -> int:
        """How many of them were asked a second time."""
        return self._hedged

    def ask(self) -> None:
        """Notes a question."""
        with self._lock:
            self._asked += 1
            self._allowance = min(self._allowance + self._share, BURST)

    def note(self, server: Hashable, count: int, seconds: float) -> None:
        """Notes how long an answer took, or how long it was waited for in vain.

        Args:
            server: Which one was asked.
            count: Documents in the question.
            seconds: From asking.
        """
        with self._lock:
            self._seconds[count.bit_length()].append((server, seconds))

    def delay_s(self, server: Hashable, count: int) -> float | None:
        """Seconds after which another server would have answered, with a probability of 95 %.

        Answers of the server itself do not count: one that is slow would make itself the measure.

        Returns:
            None if that is not known yet, or nothing is ever hedged.
        """
        if not self._share:
            return None
        with self._lock:
            others = sorted(s for who, s in self._seconds[count.bit_length()] if who != server)
        if len(others) < LEAST_ANSWERS:
            return None
        return others[min(int(QUANTILE * len(others)), len(others) - 1)]

    def take(self) -> bool:
        """Whether a question may be asked a second time now; if so, it is counted."""
        with self._lock:
            if self._allowance < 1.0:
                return False
            self._allowance -= 1.0
            self._hedged += 1
            return True
