"""The protocol of the second pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from secondglance.types import Content, PairScore


class Reranker(Protocol):
    """Scores candidates against a query, reading both together."""

    @property
    def name(self) -> str:
        """Which model this is, for people and logs."""
        ...

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """One score a document, in the order given.

        A document that cannot be read gets an `error` of its own; the others are scored.

        Raises:
            MediaError: The query itself cannot be read.
            RerankError: The second pass as a whole failed.
        """
        ...
