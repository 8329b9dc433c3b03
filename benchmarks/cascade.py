"""What a time budget for the second pass costs in quality: quick looks first, or the first only.

A library of generated pictures where every target stands among many near-misses, 50 candidates a
query: recall alone, the full second pass, and budgets of half and a quarter of what it took on the
same question, spent by `Cascade` or, as the simplest rule would, on the first candidates in recall
order, eight at a time, until the time is up. The clock decides what is reached: on a machine with
other work the numbers vary from run to run.

    python benchmarks/cascade.py --queries 40 --pictures 300
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import ir_measures
import torch
from common import report
from ir_measures import Qrel, ScoredDoc, Success, nDCG

from secondglance import Library, Query
from secondglance.rerank.base import Reranker
from secondglance.rerank.cascade import SHARE, Cascade
from secondglance.retrieve.fusion import fuse
from secondglance.scenes.collection import write_collection
from secondglance.types import Content, Hit, PairScore

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from scene_search import Question, answers, questions

DEPTH = 50
STEP = 8
FAMILY = 15
"""A target and its near-misses: so many that recall leaves targets well below the top."""
BUDGETS = (0.5, 0.25)

Found = tuple[Sequence[PairScore | None], int, int]
"""Scores in recall order, and how many had a full and a quick look."""
Rule = Callable[[Content, Sequence[Content]], Found]


def recall_alone(query: Content, documents: Sequence[Content]) -> Found:
    """No second pass."""
    return [None] * len(documents), 0, 0


def full_pass(reranker: Reranker) -> Rule:
    """A full look at all, in one call."""

    def look(query: Content, documents: Sequence[Content]) -> Found:
        return reranker.score(query, documents), len(documents), 0

    return look


def first_ones(reranker: Reranker, budget_ms: float) -> Rule:
    """The first in recall order, until the time is up."""

    def look(query: Content, documents: Sequence[Content]) -> Found:
        end_s = time.perf_counter() + budget_ms / 1e3
        scores: list[PairScore | None] = []
        while len(scores) < len(documents) and time.perf_counter() < end_s:
            scores += reranker.score(query, documents[len(scores) : len(scores) + STEP])
        reached = len(scores)
        return [*scores, *[None] * (len(documents) - reached)], reached, 0

    return look


def cascade(reranker: Reranker, budget_ms: float) -> Rule:
    """Quick looks where they pay, then full ones at the best."""

    def look(query: Content, documents: Sequence[Content]) -> Found:
        found = Cascade(reranker).score(query, documents, budget_ms=budget_ms)
        return found.scores, found.full, found.coarse

    return look


class _Run:
    """What one rule did on all questions."""

    def __init__(self) -> None:
        self.ranked: list[ScoredDoc] = []
        self.spent_ms: list[float] = []
        self.looks: list[tuple[int, int]] = []

    def row(self, system: str, judged: Sequence[Qrel]) -> dict[str, object]:
        """Of the table."""
        values = ir_measures.calc_aggregate([nDCG @ 5, Success @ 1], judged, self.ranked)
        full, coarse = zip(*self.looks, strict=True)
        return {
            "system": system,
            "nDCG@5": f"{values[nDCG @ 5]:.3f}",
            "Hit@1": f"{values[Success @ 1]:.3f}",
            "median ms": round(statistics.median(self.spent_ms)),
            "most ms": round(max(self.spent_ms)),
            "full looks": round(statistics.mean(full), 1),
            "quick looks": round(statistics.mean(coarse), 1),
        }


class Task:
    """Questions with their candidates, and what a rule makes of them."""

    def __init__(self, library: Library, media: Path, asked: Sequence[Question]) -> None:
        self._root = media.resolve()
        self._weight = library._parts.settings.search.rerank_weight
        ids = {question.id for question in asked}
        self._judged = [qrel for qrel in answers(media) if qrel.query_id in ids]
        self._asked = [(question, self._candidates(library, question)) for question in asked]

    def _candidates(self, library: Library, question: Question) -> Sequence[Hit]:
        return library.search(Query(text=question.text), k=DEPTH, recall=DEPTH, rerank=False).hits

    def run(self, reranker: Reranker) -> list[dict[str, object]]:
        """The table: every rule on every question."""
        runs: dict[str, _Run] = {}
        for question, hits in self._asked:
            query = Content(texts=(question.text,))
            documents = [Content(images=(Path(hit.path),)) for hit in hits]

            def ask(
                system: str,
                rule: Rule,
                *,
                # Of this question.
                hits: Sequence[Hit] = hits,
                query: Content = query,
                documents: Sequence[Content] = documents,
                id: str = question.id,
            ) -> float:
                started = time.perf_counter()
                found = rule(query, documents)
                ms = (time.perf_counter() - started) * 1e3
                run = runs.setdefault(system, _Run())
                run.spent_ms.append(ms)
                run.looks.append(found[1:])
                for place, hit in enumerate(self._ordered(hits, found[0])):
                    path = Path(hit.path).resolve().relative_to(self._root).as_posix()
                    run.ranked.append(ScoredDoc(id, path, -float(place)))
                return ms

            ask("recall alone", recall_alone)
            # Budgets follow the full pass on the same question: other work comes and goes.
            full_ms = ask("full pass", full_pass(reranker))
            for part in BUDGETS:
                for name, rule in (("cascade", cascade), ("first in recall order", first_ones)):
                    ask(f"{name}, {part:g} of it", rule(reranker, part * full_ms))
        return [run.row(system, self._judged) for system, run in runs.items()]

    def _ordered(self, hits: Sequence[Hit], scores: Sequence[PairScore | None]) -> list[Hit]:
        """As a search orders them."""
        fused = fuse(
            [hit.recall_score for hit in hits],
            [score.score if score else None for score in scores],
            rerank_weight=self._weight,
        )
        order = sorted(range(len(hits)), key=lambda n: (scores[n] is None, -fused[n], n))
        return [hits[place] for place in order]


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--pictures", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        write_collection(
            media, pictures=options.pictures, clips=0, texts=0, family=FAMILY, image_queries=0,
            seed=11,
        )  # fmt: skip
        # Every rule reads the pictures anew, as a first search does.
        settings = {"rerank": {"score_cache_mb": 0, "pixel_cache_mb": 0}}
        with Library.open(Path(folder) / "library", preset="starter", settings=settings) as library:
            library.index([media / "pictures"])
            task = Task(library, media, questions(media)[: options.queries])
            reranker = library._parts.reranker()
            Task(library, media, questions(media)[:2]).run(reranker)  # warms up
            rows = task.run(reranker)
    report(
        "cascade",
        rows,
        pictures=options.pictures,
        queries=options.queries,
        family=FAMILY,
        candidates=DEPTH,
        share=SHARE,
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
