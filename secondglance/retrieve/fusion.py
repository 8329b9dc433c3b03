"""One order out of two passes."""

from __future__ import annotations

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
