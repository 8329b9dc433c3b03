"""What is known of each candidate of a query, before any system orders them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """One query's candidates: all that any of the first passes found, and what each said.

    The lists are parallel, one entry a document, in the order of the fused first pass; documents
    that only a longer list of one pass holds come after those, in the order of their cosines.

    Attributes:
        documents: Ids as the judgments name them, or else the library's.
        cosine: To the query's vector, as the store gives it.
        recall_rank: In the vector list, from 1; None where only the words found it.
        lexical_score: BM25; None where no word of the query stands.
        fused: What `search` orders its first pass by: the reciprocal ranks of both lists, 0..1,
            or the cosine where the query has no words or no word was found. None outside the
            fused list.
        fused_rank: In the fused list, from 1, which the second pass of `search` sees the first
            of; None outside.
        rerank_score: Probability of the second pass; None where it did not look or failed.
    """

    documents: tuple[str, ...]
    cosine: tuple[float, ...]
    recall_rank: tuple[int | None, ...]
    lexical_score: tuple[float | None, ...]
    fused: tuple[float | None, ...]
    fused_rank: tuple[int | None, ...]
    rerank_score: tuple[float | None, ...]

    def __post_init__(self) -> None:
        """Checks that the lists are parallel.

        Raises:
            ValueError: They are not.
        """
        lengths = {len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(lengths) != 1:
            raise ValueError(f"the lists of signals have lengths {sorted(lengths)}")
