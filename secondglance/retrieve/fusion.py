"""One order out of several: lists by vector and by words, first and second pass."""

from __future__ import annotations

import math
from collections.abc import Sequence


def fuse(
    recall_scores: Sequence[float],
    rerank_scores: Sequence[float | None],
    *,
    rerank_weight: float,
) -> list[float]:
    """Weighted mean of the two passes, in 0..1.

    Recall scores are cosines whose range depends on the model, so they are stretched to 0..1 over
    the candidates first. Rerank scores are probabilities and are taken as they are. A candidate
    that the second pass could not score keeps its share from recall alone.

    Args:
        recall_scores: Of the candidates.
        rerank_scores: Of the same candidates; None where there is none.
        rerank_weight: Share of the second pass, 0..1.

    Returns:
        One score a candidate, higher is better.
    """
    if not recall_scores:
        return []
    low, high = min(recall_scores), max(recall_scores)
    spread = high - low
    recall = [(score - low) / spread if spread > 0 else 1.0 for score in recall_scores]
    return [
        (1 - rerank_weight) * first + rerank_weight * (second or 0.0)
        for first, second in zip(recall, rerank_scores, strict=True)
    ]


RANK_CONSTANT = 60
"""Of Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual
Rank Learning Methods", SIGIR 2009."""


def reciprocal_ranks(
    first: Sequence[int | None], second: Sequence[int | None], *, weights: Sequence[float]
) -> list[float]:
    """Reciprocal rank fusion of two lists, sum of weight / (60 + rank), in 0..1.

    Scaled so that 1 is the first of both lists with full weight; the order is that of the sums.

    Args:
        first: Rank of each candidate in the first list, from 1; None where it is not in it.
        second: The same in the second list.
        weights: How much the second list counts for each candidate, 0..1.

    Returns:
        One score a candidate, higher is better.
    """
    scale = (RANK_CONSTANT + 1) / 2
    return [
        scale
        * (
            (0.0 if one is None else 1 / (RANK_CONSTANT + one))
            + (0.0 if two is None else weight / (RANK_CONSTANT + two))
        )
        for one, two, weight in zip(first, second, weights, strict=True)
    ]


def shared_ranks(scores: Sequence[float]) -> list[int]:
    """Ranks from 1 of descending scores; equal ones share the best of their ranks: 1, 2, 2, 4."""
    ranks: list[int] = []
    for position, score in enumerate(scores, start=1):
        tied = bool(ranks) and math.isclose(score, scores[position - 2], rel_tol=1e-9)
        ranks.append(ranks[-1] if tied else position)
    return ranks
