"""What each pass finds in a generated collection: BM25, CLIP, and CLIP with the second pass."""

from __future__ import annotations

import csv
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bm25s
import ir_measures
import numpy as np
from ir_measures import RR, Qrel, R, ScoredDoc, Success, nDCG

from secondglance.evaluation.statistics import interval

if TYPE_CHECKING:
    from secondglance import Library

MEASURES = (nDCG @ 5, Success @ 1, RR @ 10, R @ 50)
DEPTH = 50
TOKEN = re.compile(r"[a-z]+|\d+|[\u4e00-\u9fff]")
"""English words, numbers, and Han characters one by one."""

Ranking = Sequence[tuple[str, float]]
System = Callable[["Question"], "tuple[Ranking, float]"]


@dataclass(frozen=True, slots=True)
class Question:
    """A line of `queries.jsonl`; `image` is a path or empty."""

    id: str
    text: str
    image: str
    language: str
    medium: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """One system on all questions: measure to question to value, and milliseconds a question."""

    system: str
    values: Mapping[str, Mapping[str, float]]
    ms: Mapping[str, float]

    def mean(self, measure: str, questions: Sequence[Question]) -> tuple[float, float, float]:
        """Mean with its 95 % bootstrap interval."""
        found = np.array([self.values[measure].get(q.id, 0.0) for q in questions])
        if not len(found):
            return float("nan"), float("nan"), float("nan")
        value = interval(found)
        return value.mean, value.low, value.high

    def median_ms(self, questions: Sequence[Question]) -> float:
        """Median time of a question."""
        times = [self.ms[q.id] for q in questions if q.id in self.ms]
        return statistics.median(times) if times else float("nan")


def questions(media: Path) -> list[Question]:
    """The queries of a collection."""
    rows = map(json.loads, (media / "queries.jsonl").read_text("utf-8").splitlines())
    return [Question(r["id"], r["text"], r["image"], r["language"], r["medium"]) for r in rows]


def answers(media: Path) -> list[Qrel]:
    """The judgments of a collection."""
    return list(ir_measures.read_trec_qrels(str(media / "qrels.txt")))


def word_search(media: Path) -> System:
    """BM25 over the descriptions of pictures and clips and over the texts, both languages."""
    documents: dict[str, str] = {}
    with (media / "captions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            documents[row["file"]] = f"{row['caption']} {row['caption_zh']}"
    for path in sorted((media / "texts").glob("*.txt")):
        documents[path.relative_to(media).as_posix()] = path.read_text("utf-8")
    names = list(documents)
    index = bm25s.BM25()
    index.index([TOKEN.findall(documents[n].lower()) for n in names], show_progress=False)

    def answer(question: Question) -> tuple[Ranking, float]:
        started = time.perf_counter()
        tokens = TOKEN.findall(question.text.lower())
        if not tokens:  # a picture has no words
            return [], (time.perf_counter() - started) * 1e3
        found, scores = index.retrieve([tokens], k=min(DEPTH, len(names)), show_progress=False)
        ranking = [(names[int(i)], float(s)) for i, s in zip(found[0], scores[0], strict=True)]
        return ranking, (time.perf_counter() - started) * 1e3

    return answer


def media_search(media: Path, library: Library, *, rerank: bool) -> System:
    """One or both passes of a library that holds the collection."""
    from secondglance import Query

    root = media.resolve()

    def answer(question: Question) -> tuple[Ranking, float]:
        query = Query(text=question.text, image=media / question.image if question.image else None)
        result = library.search(query, k=DEPTH, recall=DEPTH, rerank=rerank)
        ranking = [
            (Path(hit.path).resolve().relative_to(root).as_posix(), -float(hit.rank))
            for hit in result.hits
        ]
        return ranking, result.timings_ms["total"] - result.timings_ms["load"]

    return answer


def measure(
    systems: Mapping[str, System],
    asked: Sequence[Question],
    judged: Sequence[Qrel],
    *,
    progress: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Asks every system every question."""
    outcomes = []
    for name, answer in systems.items():
        run: list[ScoredDoc] = []
        ms: dict[str, float] = {}
        for question in asked:
            ranking, ms[question.id] = answer(question)
            run += [ScoredDoc(question.id, path, score) for path, score in ranking]
            progress()
        values: dict[str, dict[str, float]] = {str(m): {} for m in MEASURES}
        for found in ir_measures.iter_calc(MEASURES, judged, run):
            values[str(found.measure)][found.query_id] = float(found.value)
        outcomes.append(Outcome(name, values, ms))
    return outcomes
