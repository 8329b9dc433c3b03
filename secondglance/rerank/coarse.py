"""A quicker look at candidates: the same model, fewer pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from secondglance.errors import InputError
from secondglance.rerank.base import Reranker
from secondglance.rerank.limits import MIN_FRAMES, TOKEN_PIXELS, Limits
from secondglance.types import Content, PairScore


@runtime_checkable
class Coarsens(Protocol):
    """A reranker that can also look coarsely."""

    def coarse(self, share: float) -> Reranker | None:
        """The same reranker with `share` of the pixels; None if it has no such view.

        Raises:
            InputError: `share` is not above 0 and below 1.
        """
        ...


def coarse_view(reranker: Reranker, share: float) -> Reranker | None:
    """The coarse view of any reranker; None if it has none.

    Raises:
        InputError: `share` is not above 0 and below 1.
    """
    return reranker.coarse(share) if isinstance(reranker, Coarsens) else None


def coarse_limits(limits: Limits, share: float) -> Limits:
    """Limits that leave `share` of the pixels.

    Pictures stay at `min_pixels` or above. A clip loses frames and pixels of a frame alike: its
    frames are reduced by the square root of the share, to an even number of at least four.

    Args:
        limits: Of the full look.
        share: Above 0 and below 1.

    Raises:
        InputError: `share` is not in this range.
    """
    if not 0 < share < 1:
        raise InputError(f"share is {share}; it must be above 0 and below 1")

    def frames(most: int) -> int:
        return min(most, max(MIN_FRAMES, 2 * round(most * math.sqrt(share) / 2)))

    max_frames = frames(limits.max_frames)
    # Two frames share tokens: with less than this, not even one is left for each two.
    least = TOKEN_PIXELS * math.ceil(max_frames / 2)
    return replace(
        limits,
        max_pixels=max(limits.min_pixels, int(limits.max_pixels * share)),
        total_pixels=min(limits.total_pixels, max(least, int(limits.total_pixels * share))),
        max_frames=max_frames,
    )


class CoarseReranker:
    """A view on a loaded reranker, with limits of its own.

    Args:
        name: For people and logs.
        score: Scores query and documents, with an instruction or None.
    """

    def __init__(
        self,
        name: str,
        score: Callable[[Content, Sequence[Content], str | None], list[PairScore]],
    ) -> None:
        self._name = name
        self._score = score

    @property
    def name(self) -> str:
        """The name of the reranker behind, and which share of the pixels is seen."""
        return self._name

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """One score a document, in the order given, from the coarse look.

        Raises:
            MediaError: The query cannot be read.
            RerankError: The second pass failed.
        """
        return self._score(query, documents, instruction)
