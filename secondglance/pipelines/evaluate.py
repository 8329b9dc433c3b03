"""Runs systems on the queries of judgments, and says how good they are and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from secondglance import __version__
from secondglance.errors import InputError
from secondglance.evaluation import metrics, statistics
from secondglance.evaluation.judgments import Unknown
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import Curve, Evaluation, EvaluationQuery, Qrels, SystemRun
from secondglance.pipelines import evaluate_cost as cost
from secondglance.pipelines import fitting
from secondglance.pipelines.build import Parts
from secondglance.pipelines.evaluate_curves import Measured, curves_of
from secondglance.pipelines.evaluate_documents import Documents
from secondglance.pipelines.evaluate_order import Orders
from secondglance.pipelines.evaluate_recall import said_already
from secondglance.pipelines.evaluate_rerank import settings_of
from secondglance.pipelines.evaluate_run import OnProgress, Progress, Run
from secondglance.pipelines.systems import SYSTEMS, System, parse_systems
from secondglance.retrieve.store import MAX_LIMIT

DEPTHS = (5, 10, 20, 50, 100)
BUDGETS_MS = (50.0, 100.0, 200.0, 500.0, 1000.0)
BUDGET_QUERIES = 20
ALIKE = 10
"""Results of each system in which a query is looked for that was indexed as a text."""


def evaluate(
    parts: Parts,
    queries: Sequence[EvaluationQuery],
    qrels: Qrels,
    *,
    systems: Sequence[str] = SYSTEMS,
    measures: Sequence[str] = metrics.DEFAULT_MEASURES,
    depth: int = 100,
    recall: int | None = None,
    baseline: str | None = None,
    limit: int | None = None,
    curves: bool = True,
    depths: Sequence[int] = DEPTHS,
    budgets_ms: Sequence[float] = BUDGETS_MS,
    budget_queries: int = BUDGET_QUERIES,
    fit: bool = False,
    unknown: Unknown = "missed",
    on_progress: OnProgress = lambda _: None,
) -> Evaluation:
    """Runs systems on queries and compares them by judgments.

    Candidates and their signals are gathered once a query; systems are orders of these. Pictures
    that look nearly the same are documents of their own, a video is one, copies are one. Scores of
    the second pass go through the library's cache of scores as they come: what an interrupted
    evaluation has scored, the next one does not score again.

    Args:
        parts: Of the library.
        queries: With ids.
        qrels: Judgments, by any name that the library knows a document by.
        systems: `bm25`, `clip`, `clip+bm25`, `rerank`, `fusion`; `rerank@MODEL` and `fusion@MODEL`
            with another reranker; `replay:FILE`, a TREC run.
        measures: As `metrics` names them.
        depth: Documents of a ranking.
        recall: Candidates that the second pass sees; None for `search.recall`.
        baseline: The system that others are compared with; None for `clip`, or else the first.
        limit: Evaluates so many queries, evenly spread over all.
        curves: Whether quality is measured against depth and time.
        depths: Of the curve; those above `recall` are left out.
        budgets_ms: Of the curve, in milliseconds.
        budget_queries: Queries that are run again within each budget, from scratch.
        fit: Whether fusion weights and a probability of relevance are fitted to the judgments and
            kept in the library; `fusion` is then the order without a fit, to compare with.
        unknown: Whether judged documents that are not in the library count as not found, or are
            left out.
        on_progress: Called often.

    Raises:
        InputError: A system, a measure or a number is not allowed, or queries, judgments and
            library have nothing in common.
        ModelError: A reranker cannot be loaded.
        StoreError: The store or the word index cannot be used.
        RerankError: The second pass as a whole failed.
    """
    chosen = parse_systems(systems)
    recall = parts.settings.search.recall if recall is None else recall
    reference = _baseline(baseline, chosen)
    _check(depth=depth, recall=recall, limit=limit, budget_queries=budget_queries)
    _check_curve(depths, budgets_ms)
    wanted = metrics.known_measures(measures)
    if not wanted:
        raise InputError("there is no measure", remedy=f"name some of {_DEFAULT}, or leave it out")
    for system in chosen:
        settings_of(parts, system.model)
    documents = Documents(parts.catalog)
    asked, judged, warnings = documents.matched(queries, qrels, unknown=unknown)
    ids = cost.sample(list(asked), limit)
    if len(ids) < len(asked):
        warnings.append(f"{len(ids)} of the {len(asked)} queries were evaluated, as asked for")
    run = Run(
        parts=parts,
        systems=chosen,
        orders=Orders(
            parts=parts,
            name=documents.name,
            qrels=judged,
            recall=recall,
            depth=max(depth, recall),
            fitted=not fit,
        ),
        queries={name: asked[name] for name in ids},
        warnings=warnings,
        on_progress=on_progress,
        needs_signals=fit,
    )
    run.replay(documents.canonical)  # first: a run that cannot be used costs no time then
    run.recall()
    kept = {name: judged[name] for name in run.queries}
    measured = Measured(qrels=kept, queries=run.queries, measures=wanted)
    drawn: dict[str, list[Curve]] = {}

    def draw(system: System) -> None:
        if curves:
            drawn[system.name] = curves_of(run, system, measured, depths)

    sample = cost.sample(list(run.queries), budget_queries) if curves else []
    run.rerank(sample, budgets_ms, on_scored=draw)
    run.warnings += [
        *_leaks(parts, run, documents),
        *_indexed_queries(run),
        *_indexed_media(run, documents),
    ]
    on_progress(Progress(stage="measure"))
    values = {system.name: measured.values(run.rankings[system.name]) for system in chosen}
    found = Evaluation(
        library=str(parts.folder),
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        settings=_settings(parts, depth=depth, recall=recall, limit=limit, fit=fit),
        queries=run.queries,
        qrels=kept,
        measures=wanted,
        baseline=reference,
        systems=tuple(
            SystemRun(
                name=system.name,
                description=run.described(system),
                rankings={
                    name: ranking[:depth] for name, ranking in run.rankings[system.name].items()
                },
            )
            for system in chosen
        ),
        values=values,
        summaries=statistics.summaries(values, run.queries),
        differences=statistics.differences(values, run.queries, baseline=reference),
        ceiling=measured.ceiling(run.first_pass(), [d for d in depths if d <= depth]),
        curves=tuple(curve for system in chosen for curve in drawn.get(system.name, [])),
        costs=tuple(run.costs[s.name] for s in chosen if s.name in run.costs),
    )
    fitted = _fit(parts, run, kept) if fit else None
    return replace(found, fit=fitted, warnings=tuple(dict.fromkeys(run.warnings)))


_DEFAULT = ", ".join(metrics.DEFAULT_MEASURES)


def _baseline(name: str | None, systems: Sequence[System]) -> str:
    names = [system.name for system in systems]
    if name is None:
        return "clip" if "clip" in names else names[0]
    if name not in names:
        raise InputError(
            f"the baseline {name!r} is none of the systems",
            remedy=f"name one of {', '.join(names)}",
        )
    return name


def _check(*, depth: int, recall: int, limit: int | None, budget_queries: int) -> None:
    numbers = {"depth": depth, "recall": recall, "limit": limit, "budget_queries": budget_queries}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{name} is {number}; it must be at least 1")
    if max(depth, recall) > MAX_LIMIT:
        raise InputError(f"depth and recall may be at most {MAX_LIMIT}, not {max(depth, recall)}")


def _check_curve(depths: Sequence[int], budgets_ms: Sequence[float]) -> None:
    if wrong := [depth for depth in depths if not 1 <= depth <= MAX_LIMIT]:
        raise InputError(f"depths are {wrong}; each must be in 1..{MAX_LIMIT}")
    if unusable := [budget for budget in budgets_ms if not 0 <= budget < float("inf")]:
        raise InputError(f"budgets are {unusable} ms; each must be 0 or more")


def _leaks(parts: Parts, run: Run, documents: Documents) -> list[str]:
    """Warnings where words that are searched hold the answer, or a fit has seen the judgments."""
    warnings = []
    readers = [system.name for system in run.systems if system.reads_words]
    if readers:

        def relevant(name: str) -> list[str]:
            grades = run.orders.qrels[name]
            answers = [document for document, grade in grades.items() if grade > 0]
            contents = map(documents.content, answers)
            return [content for content in contents if content is not None]

        said = said_already(parts, run.queries, relevant)
        if said:
            warnings.append(
                f"{len(said)} of {len(run.queries)} queries stand word for word in the captions or "
                f"texts of their answers, where {', '.join(readers)} can read them: {named(said)}; "
                "what these systems gain there is no finding (index the files without these "
                "captions to see it)"
            )
    uses = run.orders.fitted and any(s.base == "fusion" and not s.model for s in run.systems)
    stored = fitting.load_fit(parts) if uses and parts.settings.search.fitted else None
    if stored is not None:
        warnings.append(
            f"fusion uses the fit of {stored.created[:10]}, from {stored.queries} queries: if "
            "these are among them, it knows their answers; evaluate --fit gives its figures on "
            "queries it was not fitted on"
        )
    return warnings


def _indexed_queries(run: Run) -> list[str]:
    """A warning where the file of the queries was indexed with the media: each finds itself."""
    found = []
    for name, asked in run.queries.items():
        wanted = asked.query.text.strip().casefold()
        first = (hit for rankings in run.rankings.values() for hit in rankings[name][:ALIKE])
        if wanted and any(h.grade is None and h.text.strip().casefold() == wanted for h in first):
            found.append(name)
    if not found:
        return []
    return [
        f"{len(found)} queries are themselves texts in the library, where they come first and "
        f"count as wrong: {named(found)}; index the media without the file of the queries"
    ]


def _indexed_media(run: Run, documents: Documents) -> list[str]:
    """Warnings where the picture or clip of a query is a file of the library: it finds itself."""
    wrong: list[str] = []
    right: list[str] = []
    for name, asked in run.queries.items():
        files = [Path(file) for file in (asked.query.image, asked.query.video) if file]
        for document in documents.same_as(file for file in files if file.is_file()):
            grade = run.orders.qrels[name].get(document, 0)
            (right if grade > 0 else wrong).append(f"{name} ({document})")
    warnings = []
    if wrong:
        warnings.append(
            f"{len(wrong)} queries show a file that is itself in the library, where it comes first "
            f"and counts as wrong: {named(wrong)}; index the media without the files of the queries"
        )
    if right:
        warnings.append(
            f"{len(right)} queries show a file that is itself in the library and judged relevant, "
            f"which every system finds by vectors: {named(right)}; index the media without the "
            "files of the queries, or leave these judgments out"
        )
    return warnings


def _fit(parts: Parts, run: Run, qrels: Qrels) -> dict[str, Any] | None:
    """Fits and keeps the fit; where that cannot be, the figures so far are still worth having."""
    kinds = {name: asked.kind for name, asked in run.queries.items()}
    try:
        report = fitting.fit(parts, run.signals(), qrels, kinds=kinds)
    except InputError as error:
        run.warnings.append(f"nothing was fitted: {error}")
        return None
    run.warnings += report.warnings
    return {"lines": report.lines(), **report.to_dict()}


def _settings(
    parts: Parts, *, depth: int, recall: int, limit: int | None, fit: bool
) -> dict[str, str | int | float | bool | None]:
    settings = parts.settings
    uses = not fit and settings.search.fitted and (parts.folder / fitting.FILE_NAME).is_file()
    return {
        "version": __version__,
        "preset": settings.preset,
        "embedder": parts.catalog.get_meta("embedder"),
        "reranker": settings.rerank.model,
        "store": settings.store.backend,
        "depth": depth,
        "recall": recall,
        "limit": limit,
        "moments": settings.search.moments,
        "rerank_weight": settings.search.rerank_weight,
        "rerank_floor": settings.search.rerank_floor,
        "lexical": settings.search.lexical,
        "fitted": uses,
    }
