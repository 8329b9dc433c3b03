"""What tests of evaluations share: a quick second pass, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.types import Content, PairScore

Asked = tuple[tuple[EvaluationQuery, ...], Qrels]
"""Queries and judgments."""
SETTINGS = {"store": {"backend": "exact"}, "ingest": {"workers": 1}}


class Quick:
    """A second pass that is quick: probability by the name of the file, or by the words."""

    name = "quick"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.stop_after: int | None = None

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [("".join(query.texts), _named(document)) for document in documents]
        return [PairScore(score=probability(_named(document))) for document in documents]


def _named(document: Content) -> str:
    if document.texts:
        return document.texts[0]
    if document.images:
        return Path(str(document.images[0])).name
    return Path(str(document.videos[0].path)).name


def probability(name: str) -> float:
    """What `Quick` says of a file of that name, or of that text."""
    return 0.9 + sum(map(ord, name)) % 89 / 1000


def documents(found: Any, system: str, query: str) -> list[str]:
    """The ranking of one query by one system."""
    run = next(run for run in found.systems if run.name == system)
    return [ranked.document for ranked in run.rankings[query]]
