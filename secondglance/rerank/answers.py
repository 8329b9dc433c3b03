"""From log-odds to the score of a pair."""

from __future__ import annotations

import math

from secondglance.errors import MediaError
from secondglance.types import PairScore


class TooLarge(PairScore):
    """No score, for the pair does not fit in the device's memory."""


def answer(log_odds: float) -> PairScore:
    """A score of log-odds; an error where they are not finite."""
    if not math.isfinite(log_odds):
        return PairScore(score=None, error=f"the model answered {log_odds}")
    # exp of a non-positive number only: the other form overflows.
    small = math.exp(-abs(log_odds))
    score = 1 / (1 + small) if log_odds >= 0 else small / (1 + small)
    return PairScore(score=score, log_odds=log_odds)


def failed(error: MediaError) -> PairScore:
    """No score, and why."""
    return PairScore(score=None, error=str(error))
