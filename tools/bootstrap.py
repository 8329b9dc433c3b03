"""Intervals by the bootstrap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


def bootstrap(
    values: npt.ArrayLike, rng: np.random.Generator | None = None
) -> tuple[float, float, float]:
    """Mean of values and its 95 % interval, by drawing from them with replacement.

    Args:
        values: One a query.
        rng: Draws; without one the same values give the same interval.
    """
    found = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0) if rng is None else rng
    means = found[rng.integers(len(found), size=(RESAMPLES, len(found)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(found.mean()), float(low), float(high)
