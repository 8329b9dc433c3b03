"""The reranker that leaves the order of the first pass as it is."""

from __future__ import annotations

from collections.abc import Sequence

from secondglance.types import Content, PairScore


class PassthroughReranker:
    """Says of every candidate that it is as likely relevant as not: 0.5, log-odds 0.

    A stable sort by these scores keeps the order that came in. It reads no media, so nothing can
    fail; pipelines treat its name, "passthrough", as "no second pass".
    """

    name = "passthrough"

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """The same answer for every document."""
        return [PairScore(score=0.5, log_odds=0.0)] * len(documents)
