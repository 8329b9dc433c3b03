"""What an evaluation found, in a sentence and in a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.evaluation.types import Cost, Difference, Evaluation, Interval, Summary

if TYPE_CHECKING:
    from rich.table import Table

SIGNIFICANT = 0.05
"""A difference whose adjusted p-value is below this gets a mark."""
MAIN_MEASURE = "nDCG@10"
SECOND_PASS = ("rerank", "fusion")
"""Systems, before any `@`, that look a second time."""
TERMINAL_MEASURES = ("nDCG@10", "Hit@1", "Recall@10", "MRR")
TERMINAL_WIDTH = 120
SAME = 1e-9
"""Values of one query that differ by less are the same: it is neither won nor lost."""


def main_measure(evaluation: Evaluation) -> str:
    """The measure that headline and plots speak of: nDCG@10, or else the first."""
    if MAIN_MEASURE in evaluation.measures or not evaluation.measures:
        return MAIN_MEASURE
    return evaluation.measures[0]


def summary_of(
    evaluation: Evaluation, system: str, measure: str, group: str = "all"
) -> Summary | None:
    """One mean; None if there is none."""
    wanted = (system, measure, group)
    found = (s for s in evaluation.summaries if (s.system, s.measure, s.group) == wanted)
    return next(found, None)


def difference_of(
    evaluation: Evaluation, system: str, measure: str, group: str = "all"
) -> Difference | None:
    """One difference to the baseline; None if there is none."""
    wanted = (system, evaluation.baseline, measure, group)
    found = (
        d for d in evaluation.differences if (d.system, d.baseline, d.measure, d.group) == wanted
    )
    return next(found, None)


def cost_of(evaluation: Evaluation, system: str) -> Cost | None:
    """What one system takes; None if it was not run."""
    return next((cost for cost in evaluation.costs if cost.system == system), None)


def looks_twice(system: str) -> bool:
    """Whether a system has a second pass, by its name."""
    return system.partition("@")[0] in SECOND_PASS


def compared_system(evaluation: Evaluation) -> str | None:
    """The system that headline, wins and losses set against the baseline.

    The best by the main measure of those with a second pass, for its gain is what is asked; the
    best of all others where none has one. None if there is only the baseline.
    """
    others = [run.name for run in evaluation.systems if run.name != evaluation.baseline]
    candidates = [name for name in others if looks_twice(name)] or others
    measure = main_measure(evaluation)

    def mean(name: str) -> float:
        found = summary_of(evaluation, name, measure)
        return found.value.mean if found and math.isfinite(found.value.mean) else -math.inf

    return max(candidates, key=mean, default=None)


def is_significant(difference: Difference) -> bool:
    """Whether the test, adjusted for the number of differences, rules chance out."""
    return difference.p_adjusted < SIGNIFICANT


def number(value: float, *, digits: int = 3) -> str:
    """A value of a measure; `n/a` where it is not defined."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "n/a"


def signed(value: float, *, digits: int = 3) -> str:
    """A difference with its sign; what rounds to nothing has none."""
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def milliseconds(value: float) -> str:
    """A duration as people say it: `0.4 ms`, `12 ms`, `1.3 s`."""
    if not math.isfinite(value):
        return "n/a"
    if value >= 999.5:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def headline(evaluation: Evaluation) -> str:
    """The main finding in a few plain sentences, whether the second pass helps or hurts.

    "raises" and "lowers" are said only where the interval leaves zero out. Where the test does not
    agree with the interval, that is said too.
    """
    count = len(evaluation.queries)
    if not count or not evaluation.systems:
        return "No query was evaluated, so there is nothing to compare."
    on = f"On {count:,} {'query' if count == 1 else 'queries'}"
    measure, name = main_measure(evaluation), compared_system(evaluation)
    before = summary_of(evaluation, evaluation.baseline, measure)
    if name is None:
        if before is None:
            return f"{on}, nothing was measured."
        interval = "" if count == 1 else f" ({_interval(before.value, digits=3)})"
        return f"{on}, {evaluation.baseline} has {measure} {number(before.value.mean)}{interval}."
    after = summary_of(evaluation, name, measure)
    difference = difference_of(evaluation, name, measure)
    if before is None or after is None or difference is None:
        return f"{on}, {name} was not compared with {evaluation.baseline} by {measure}."
    sentences = [
        _finding(on, evaluation.baseline, name, before, after, difference)
        + _duration(evaluation, name),
        *_caution(difference),
        _counts(difference),
        *_better_without(evaluation, name, after),
    ]
    return " ".join(sentences)


def _finding(
    on: str, baseline: str, name: str, before: Summary, after: Summary, difference: Difference
) -> str:
    value, measure = difference.value, difference.measure
    # Two digits, but not where a bound or the difference itself would all but vanish.
    near = min((abs(x) for x in (value.mean, value.low, value.high) if x), default=1.0)
    digits = 3 if near < 0.01 else 2
    old, new = (number(s.value.mean, digits=digits) for s in (before, after))
    change = f"{signed(value.mean, digits=digits)}, {_interval(value, digits=digits)}"
    who = f"the second pass ({name})" if looks_twice(name) else name
    if difference.queries == 1:
        return f"{on}, {measure} is {old} with {baseline} and {new} with {name}"
    if value.low > 0 or value.high < 0:
        verb = "raises" if value.low > 0 else "lowers"
        return f"{on}, {who} {verb} {measure} from {old} ({baseline}) to {new} ({change})"
    return (
        f"{on}, {who} makes no clear difference: {measure} is {old} with {baseline} "
        f"and {new} with {name} ({change})"
    )


def _interval(value: Interval, *, digits: int) -> str:
    return (
        f"95 % interval {number(value.low, digits=digits)} to {number(value.high, digits=digits)}"
    )


def _duration(evaluation: Evaluation, name: str) -> str:
    cost = cost_of(evaluation, name)
    if cost is None or "total" not in cost.stages:
        return "."
    taken = milliseconds(cost.stages["total"].median_ms)
    base = cost_of(evaluation, evaluation.baseline)
    if base is None or "total" not in base.stages:
        return f"; it takes {taken} a query (median)."
    return f"; it takes {taken} a query (median) instead of {_total(base)}."


def _total(cost: Cost) -> str:
    return milliseconds(cost.stages["total"].median_ms)


def _caution(difference: Difference) -> list[str]:
    value = difference.value
    if difference.queries == 1:
        return ["One query is too few to tell."]
    outside = value.low > 0 or value.high < 0
    if outside and not is_significant(difference):
        chance = number(difference.p_adjusted, digits=2)
        return [
            f"The test, adjusted for several comparisons, does not rule out chance (p {chance})."
        ]
    return []


def _counts(difference: Difference) -> str:
    def queries(count: int) -> str:
        return f"{count:,} {'query' if count == 1 else 'queries'}"

    if difference.wins and not difference.losses:
        return f"It helps {queries(difference.wins)} and hurts none."
    if difference.losses:
        return f"It helps {difference.wins:,} and hurts {queries(difference.losses)}."
    return "It changes no query."


def _better_without(evaluation: Evaluation, name: str, after: Summary) -> list[str]:
    """Said where another system does better without a second pass."""
    if not looks_twice(name):
        return []
    others = (
        summary_of(evaluation, run.name, after.measure)
        for run in evaluation.systems
        if not looks_twice(run.name)
    )
    better = [s for s in others if s is not None and s.value.mean > after.value.mean + SAME]
    if not better:
        return []
    best = max(better, key=lambda s: s.value.mean)
    return [
        f"Without a second pass, {best.system} is better: "
        f"{after.measure} {number(best.value.mean)} instead of {number(after.value.mean)}."
    ]


def summary_table(evaluation: Evaluation, *, measures: Sequence[str] | None = None) -> Table:
    """Systems as rows, measures as columns, at most 120 characters wide.

    A cell holds the mean (the best in bold) and below it the difference to the baseline with its
    95 % interval, and `*` where the adjusted p-value is below 0.05.

    Args:
        evaluation: What to show.
        measures: Of `evaluation.measures`; up to four usual ones if None.

    Raises:
        InputError: A measure was not evaluated.
    """
    from rich.markup import escape
    from rich.table import Table

    if measures is None:
        usual = [m for m in TERMINAL_MEASURES if m in evaluation.measures]
        measures = usual or evaluation.measures[: len(TERMINAL_MEASURES)]
    unknown = [m for m in measures if m not in evaluation.measures]
    if unknown:
        raise InputError(
            f"not evaluated: {', '.join(unknown)}",
            remedy=f"choose of {', '.join(evaluation.measures)}",
        )
    timed = any("total" in cost.stages for cost in evaluation.costs)
    table = Table(
        box=None,
        pad_edge=False,
        width=None,
        caption=f"below: difference to {escape(evaluation.baseline)} with its 95 % interval; "
        f"* chance is ruled out (adjusted p < {SIGNIFICANT:g})",
        caption_justify="left",
    )
    # In a narrow terminal the differences wrap; a row without its name would say nothing.
    longest = max((len(run.name) for run in evaluation.systems), default=0)
    table.add_column("system", overflow="fold", min_width=min(longest, 22), max_width=22)
    for measure in measures:
        table.add_column(escape(measure), justify="right")
    if timed:
        table.add_column("ms/query", justify="right")
    best = {measure: _best(evaluation, measure) for measure in measures}
    for run in evaluation.systems:
        cells = [_cell(evaluation, run.name, m, best=best[m]) for m in measures]
        if timed:
            cost = cost_of(evaluation, run.name)
            total = cost.stages.get("total") if cost else None
            cells.append("" if total is None else f"{total.median_ms:,.0f}")
        table.add_row(escape(run.name), *cells)
    if len(measures) > len(TERMINAL_MEASURES):
        table.width = TERMINAL_WIDTH
    return table


def _best(evaluation: Evaluation, measure: str) -> float:
    found = (summary_of(evaluation, run.name, measure) for run in evaluation.systems)
    return max((s.value.mean for s in found if s is not None), default=math.inf)


def _cell(evaluation: Evaluation, system: str, measure: str, *, best: float) -> str:
    summary = summary_of(evaluation, system, measure)
    if summary is None:
        return "-"
    value = number(summary.value.mean)
    text = f"[bold]{value}[/]" if summary.value.mean >= best - SAME else value
    difference = difference_of(evaluation, system, measure)
    if difference is None:
        return text
    low, high = (signed(x, digits=2) for x in (difference.value.low, difference.value.high))
    change = f"{signed(difference.value.mean)} ({low} {high})"
    mark = "*" if is_significant(difference) else " "
    if not is_significant(difference):
        return f"{text} \n[dim]{change}{mark}[/]"
    colour = "green" if difference.value.mean > 0 else "red"
    return f"{text} \n[{colour}]{change}{mark}[/]"
