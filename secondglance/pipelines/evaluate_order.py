"""From candidates and scores to rankings: each system's order, at any depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secondglance.evaluation.signals import Signals
from secondglance.evaluation.types import Qrels, Ranked
from secondglance.pipelines import ordering
from secondglance.pipelines.build import Parts
from secondglance.pipelines.evaluate_recall import Found
from secondglance.pipelines.second_pass import Candidate, SecondPass
from secondglance.pipelines.systems import (
    NameOf,
    Place,
    System,
    beyond,
    by_both,
    by_cosine,
    by_hits,
    by_probability,
    by_words,
    ranked,
)
from secondglance.sections import SearchSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """How candidates become rankings of the judgments' documents.

    Attributes:
        parts: Of the library.
        name: The judgments' name of a content.
        qrels: The judgments.
        recall: Candidates that the second pass sees.
        depth: Documents of a ranking.
        fitted: Whether `fusion` uses the fit of the library, if there is one.
    """

    parts: Parts
    name: NameOf
    qrels: Qrels
    recall: int
    depth: int
    fitted: bool = True

    def candidates(self, system: System, found: Found) -> list[Candidate]:
        """What the second pass of a system sees."""
        return found.candidates if system.base == "fusion" else found.by_vector[: self.recall]

    def ranking(
        self,
        system: System,
        found: Found,
        passed: SecondPass | None = None,
        settings: SearchSettings | None = None,
    ) -> tuple[Ranked, ...]:
        """One query's ranking.

        Args:
            system: One that is run, not replayed.
            found: The first passes.
            passed: The second pass over the first of `candidates`, for systems that have one.
            settings: How its scores are used.
        """
        return ranked(
            self._places(system, found, passed, settings),
            name=self.name,
            grades=self.qrels.get(found.query.id, {}),
            depth=self.depth,
        )

    def _places(
        self,
        system: System,
        found: Found,
        passed: SecondPass | None,
        settings: SearchSettings | None,
    ) -> list[Place]:
        if system.base == "bm25":
            return by_words(found.by_words, found.by_vector)
        if system.base == "clip":
            return by_cosine(found.by_vector)
        if system.base == "clip+bm25":
            return by_both(found.fused)
        assert passed is not None
        assert settings is not None
        seen = passed.candidates
        rest = self.candidates(system, found)[len(seen) :]
        if system.base == "rerank":
            rest += beyond(found.by_vector, [*seen, *rest])
            return by_probability(seen, passed.scores, rest)
        rest += beyond(found.fused if settings.lexical else found.by_vector, [*seen, *rest])
        query = found.query.query
        ordered = ordering.order(
            self.parts,
            query,
            seen,
            passed.scores,
            words=settings.lexical and bool(query.text.strip()),
            min_score=None,
            settings=settings if system.model or not self.fitted else None,
        )
        return by_hits(ordered.hits, seen, rest)


def signals_of(found: Found, passes: Sequence[SecondPass], *, name: NameOf) -> Signals:
    """All that is known of one query's candidates, each document once.

    Args:
        found: The first passes.
        passes: Second passes over some of their candidates, by one reranker.
        name: The judgments' name of a content.
    """

    def document(candidate: Candidate) -> str:
        return name(str(candidate.match.payload["item"]))

    def places(candidates: Sequence[Candidate]) -> Mapping[str, int]:
        first: dict[str, int] = {}
        for rank, candidate in enumerate(candidates, start=1):
            first.setdefault(document(candidate), rank)
        return first

    known: dict[str, Candidate] = {}
    for candidate in found.candidates:
        known.setdefault(document(candidate), candidate)
    others = sorted([*found.by_vector, *found.by_words], key=lambda c: -c.match.score)
    for candidate in others:
        known.setdefault(document(candidate), candidate)
    lexical: dict[str, float] = {}
    for candidate in [*found.by_words, *found.candidates]:
        if candidate.lexical_score is not None:
            lexical.setdefault(document(candidate), candidate.lexical_score)
    probabilities: dict[str, float] = {}
    for passed in passes:
        for candidate, score in zip(passed.candidates, passed.scores, strict=True):
            if score is not None and score.score is not None:
                before = probabilities.get(document(candidate), 0.0)
                probabilities[document(candidate)] = max(before, score.score)
    recall = places(found.by_vector)
    by_both = places(found.candidates)
    fused = {
        document(c): c.match.score if c.fused_score is None else c.fused_score
        for c in reversed(found.candidates)  # the first of a document's passages stays
    }
    return Signals(
        documents=tuple(known),
        cosine=tuple(candidate.match.score for candidate in known.values()),
        recall_rank=tuple(map(recall.get, known)),
        lexical_score=tuple(map(lexical.get, known)),
        fused=tuple(map(fused.get, known)),
        fused_rank=tuple(map(by_both.get, known)),
        rerank_score=tuple(map(probabilities.get, known)),
    )
