"""Rankings measured: values, intervals, differences, and curves against depth and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from secondglance.evaluation import metrics, statistics
from secondglance.evaluation.types import (
    Curve,
    CurvePoint,
    EvaluationQuery,
    Interval,
    PerQuery,
    Qrels,
    Ranked,
)
from secondglance.pipelines import evaluate_cost as cost
from secondglance.pipelines.evaluate_run import Run
from secondglance.pipelines.systems import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What rankings are measured by.

    Attributes:
        qrels: Of the queries that were evaluated, and no others.
        queries: The same, by id.
        measures: As ir-measures writes them.
    """

    qrels: Qrels
    queries: Mapping[str, EvaluationQuery]
    measures: tuple[str, ...]

    def values(self, rankings: Mapping[str, Sequence[Ranked]]) -> dict[str, dict[str, float]]:
        """By measure and query id; a query of `rankings` has its value, others are left out."""
        judged = {name: self.qrels[name] for name in rankings}
        return metrics.compute(self.measures, judged, _run(rankings))

    def intervals(self, rankings: Mapping[str, Sequence[Ranked]]) -> dict[str, Interval]:
        """Means by measure."""
        return {
            measure: statistics.interval(list(values.values()))
            for measure, values in self.values(rankings).items()
        }

    def ceiling(
        self, rankings: Mapping[str, Sequence[Ranked]], depths: Sequence[int]
    ) -> dict[int, Interval]:
        """Recall at each depth."""
        found: Mapping[int, PerQuery] = metrics.ceiling(self.qrels, _run(rankings), depths)
        return {
            depth: statistics.interval(list(values.values())) for depth, values in found.items()
        }


def _run(rankings: Mapping[str, Sequence[Ranked]]) -> dict[str, dict[str, float]]:
    return {
        name: metrics.falling([ranked.document for ranked in ranking])
        for name, ranking in rankings.items()
    }


def curves_of(run: Run, system: System, measured: Measured, depths: Sequence[int]) -> list[Curve]:
    """Quality of a reranking system against candidates, and against time where it was run so.

    Against candidates the same scores are used: a pass over fewer candidates knows nothing of the
    others, which keep their recall order after those. (Of videos, further moments are looked at
    only near the top, so a shallow pass may know some that it would not have asked for.)

    Args:
        run: After its second pass.
        system: One that reranks.
        measured: By what.
        depths: Candidates; those above what the second pass saw are left out.
    """
    settings, passes = run.settings[system.name], run.passes[system.name]
    points = []
    for depth in sorted({d for d in depths if d < run.orders.recall} | {run.orders.recall}):
        rankings = {
            name: run.orders.ranking(system, found, cost.cut(passes[name], depth), settings)
            for name, found in run.found.items()
        }
        points.append(
            CurvePoint(
                x=depth,
                values=measured.intervals(rankings),
                latency_ms=cost.median_ms([cost.cut_ms(p, depth) for p in passes.values()]),
            )
        )
    made = [Curve(system=system.name, over="candidates", points=tuple(points))]
    budgeted = run.budgeted.get(system.name, [])
    timed = []
    for budget_ms in sorted({each.budget_ms for each in budgeted}):
        mine = [each for each in budgeted if each.budget_ms == budget_ms]
        rankings = {
            each.query: run.orders.ranking(system, run.found[each.query], each.found, settings)
            for each in mine
        }
        timed.append(
            CurvePoint(
                x=budget_ms,
                values=measured.intervals(rankings),
                latency_ms=median(each.spent_ms for each in mine),
            )
        )
    if timed:
        made.append(Curve(system=system.name, over="budget_ms", points=tuple(timed)))
    return made
