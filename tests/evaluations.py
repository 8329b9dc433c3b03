"""Evaluations that the tests make up: means are those of their own values."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from secondglance.evaluation.types import (
    Cost,
    Curve,
    CurvePoint,
    Difference,
    Evaluation,
    EvaluationQuery,
    Interval,
    PerQuery,
    Ranked,
    Summary,
    SystemRun,
    Timing,
)
from secondglance.types import Kind, Query

MEASURES = ("nDCG@10", "Hit@1", "Recall@10", "MRR")
LANGUAGES = ("en", "zh", "")


def interval(values: Sequence[float], *, half: float = 0.05) -> Interval:
    mean = sum(values) / len(values)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def made_up(
    count: int = 12,
    *,
    shift: float = 0.2,
    half: float = 0.05,
    p: float = 0.001,
    systems: Sequence[str] = ("bm25", "clip", "clip+bm25", "rerank", "fusion"),
    baseline: str = "clip",
    files: Sequence[Path] = (),
    texts: Mapping[str, str] | None = None,
    results: int = 12,
    costs: bool = True,
    curves: bool = True,
    seed: int = 0,
) -> Evaluation:
    """An evaluation whose second passes differ from the baseline by `shift`, on the whole."""
    rng = random.Random(seed)
    ids = [f"q{number}" for number in range(count)]
    texts = texts or {}
    queries = {}
    for number, id_ in enumerate(ids):
        language = LANGUAGES[number % 3]
        image = files[number % len(files)] if files and not language else None
        words = "" if image else texts.get(id_, f"a red bicycle beside a pond, number {number}")
        queries[id_] = EvaluationQuery(
            id=id_,
            query=Query(text=words, image=image),
            kind="image" if image else "text",
            language=language,
            length="4-8" if words else "",
        )
    documents = [path.name for path in files] or [f"pictures/{n:04}.jpg" for n in range(40)]
    paths: list[str | None] = [str(path) for path in files]
    paths = paths or [None] * 40
    qrels = {id_: {rng.choice(documents): 1, rng.choice(documents): 2} for id_ in ids}
    runs, values = [], {}
    for name in systems:
        rankings = {}
        for id_ in ids:
            order = rng.sample(range(len(documents)), min(results, len(documents)))
            rankings[id_] = tuple(
                Ranked(
                    document=documents[i],
                    rank=rank,
                    score=round(1 / rank, 4),
                    kind="image" if paths[i] is None else _kind(str(paths[i])),
                    path=paths[i],
                    keyframe_s=1.0 if str(paths[i]).endswith("mp4") else None,
                    start_s=0.0 if str(paths[i]).endswith("mp4") else None,
                    end_s=5.0 if str(paths[i]).endswith("mp4") else None,
                    text="Snow falls on the harbour." if str(paths[i]).endswith("txt") else "",
                    recall_rank=rank,
                    recall_score=0.3 - 0.01 * rank,
                    rerank_score=0.9 / rank if name in ("rerank", "fusion") else None,
                    grade=qrels[id_].get(documents[i], 0 if i % 2 else None),
                )
                for rank, i in enumerate(order, start=1)
            )
        gain = shift if name in ("rerank", "fusion") else 0.02 if name == "clip+bm25" else 0.0
        values[name] = {
            measure: {id_: min(1.0, max(0.0, rng.gauss(0.4 + gain, 0.25))) for id_ in ids}
            for measure in MEASURES
        }
        runs.append(SystemRun(name=name, description=f"{name} of a library", rankings=rankings))
    groups = {"all": ids} | {
        f"{facet}={value}": [id_ for id_ in ids if getattr(queries[id_], facet) == value]
        for facet in ("language", "kind", "length")
        for value in dict.fromkeys(getattr(query, facet) for query in queries.values())
    }
    return Evaluation(
        library="/photos/holiday",
        created="2025-06-01T12:00:00+02:00",
        settings={"preset": "starter", "recall": 100, "bootstrap": 1000, "fit": None},
        queries=queries,
        qrels=qrels,
        measures=MEASURES,
        baseline=baseline,
        systems=tuple(runs),
        values=values,
        summaries=tuple(
            Summary(
                system=name,
                measure=measure,
                group=group,
                queries=len(members),
                value=interval([values[name][measure][id_] for id_ in members]),
            )
            for name in systems
            for measure in MEASURES
            for group, members in groups.items()
        ),
        differences=tuple(
            difference(values, name, baseline, measure, group, members, half=half, p=p)
            for name in systems
            if name != baseline
            for measure in MEASURES
            for group, members in groups.items()
        ),
        ceiling={
            k: Interval(mean=v, low=v - 0.03, high=v + 0.02)
            for k, v in {1: 0.3, 5: 0.52, 10: 0.64, 20: 0.75, 50: 0.86, 100: 0.93}.items()
        }
        if curves
        else {},
        curves=made_up_curves() if curves else (),
        costs=tuple(cost(name) for name in systems) if costs else (),
    )


def _kind(path: str) -> Kind:
    kinds: dict[str, Kind] = {"mp4": "video", "txt": "text"}
    return kinds.get(path.rpartition(".")[2], "image")


def difference(
    values: Mapping[str, Mapping[str, PerQuery]],
    name: str,
    baseline: str,
    measure: str,
    group: str,
    members: Sequence[str],
    *,
    half: float,
    p: float,
) -> Difference:
    each = [values[name][measure][id_] - values[baseline][measure][id_] for id_ in members]
    second = name in ("rerank", "fusion")
    return Difference(
        system=name,
        baseline=baseline,
        measure=measure,
        group=group,
        queries=len(members),
        value=interval(each, half=half),
        p_value=p if second else 0.4,
        p_adjusted=p if second else 0.8,
        wins=sum(one > 0 for one in each),
        losses=sum(one < 0 for one in each),
    )


def cost(name: str) -> Cost:
    second = 840.0 if name in ("rerank", "fusion") else 0.0
    stages = {} if name == "bm25" else {"embed": 14.2, "recall": 3.1}
    stages |= {"words": 2.2} if "bm25" in name or name == "fusion" else {}
    stages |= {"rerank": second} if second else {}
    stages["total"] = sum(stages.values()) + 0.5
    return Cost(
        system=name,
        stages={k: Timing(median_ms=v, p95_ms=1.6 * v) for k, v in stages.items()},
        pairs=1200 if second else 0,
        pairs_per_s=59.5 if second else None,
        peak_memory_mb=1834.0,
    )


def made_up_curves() -> tuple[Curve, ...]:
    def point(x: float, mean: float, took: float) -> CurvePoint:
        values = {"nDCG@10": Interval(mean=mean, low=mean - 0.04, high=mean + 0.04)}
        return CurvePoint(x=x, values=values, latency_ms=took)

    means = (0.41, 0.5, 0.55, 0.575, 0.58, 0.578)
    return (
        Curve(
            system="rerank",
            over="candidates",
            points=tuple(
                point(k, m, 8.4 * k) for k, m in zip((5, 10, 20, 50, 100, 200), means, strict=True)
            ),
        ),
        Curve(
            system="fusion",
            over="candidates",
            points=tuple(
                point(k, m + 0.02, 8.5 * k)
                for k, m in zip((5, 10, 20, 50, 100, 200), means, strict=True)
            ),
        ),
        Curve(
            system="fusion",
            over="budget_ms",
            points=tuple(
                point(b, m, b * 0.96)
                for b, m in zip((50, 100, 200, 500, 1000, 2000), means, strict=True)
            ),
        ),
    )
