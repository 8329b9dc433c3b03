"""What a person looks at after an evaluation: a page that needs no network, and files of numbers.

`load` reads `evaluation.json` back, so that the page can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from secondglance.errors import InputError
from secondglance.evaluation import plots, tables
from secondglance.evaluation.changes import changes_of, cut, differences, largest
from secondglance.evaluation.fit_report import fit_context
from secondglance.evaluation.saved import load, save, write_runs, write_tables
from secondglance.evaluation.thumbnails import Thumbnails
from secondglance.evaluation.types import Curve, Evaluation, Interval

__all__ = ["load", "render", "write_report"]

CHANGES = 10
"""Wins, and losses, of the system that the headline speaks of."""
OTHER_CHANGES = 3
"""Of each other system."""
MAX_PAIRS = 8
MAX_ROWS = 1000
"""Of the table of all queries; the rest is in `per_query.csv`."""
MAX_WARNINGS = 50
NO_VALUE = {"length": "no words"}


def write_report(
    evaluation: Evaluation, folder: Path, *, changes: int = CHANGES, system: str | None = None
) -> list[Path]:
    """Writes the page, the numbers and the runs; what was there under their names is replaced.

    Args:
        evaluation: What was found.
        folder: Is made if it is not there.
        changes: How many wins, and how many losses, the page shows.
        system: Set against the baseline; that of the headline if None.

    Returns:
        `report.html`, `evaluation.json`, `summary.csv`, `differences.csv`, `per_query.csv`, of a
        fit `fit.csv` and `fit_reliability.csv`, then `runs/NAME.trec` of each system.

    Raises:
        InputError: The folder cannot be written, there is no such system, or what the evaluation
            holds as its fit is none.
    """
    page = render(evaluation, changes=changes, system=system)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report = folder / "report.html"
        report.write_text(page, "utf-8", errors="replace")
        saved = folder / "evaluation.json"
        save(evaluation, saved)
        written = write_tables(evaluation, folder)
        return [report, saved, *written, *write_runs(evaluation, folder / "runs")]
    except OSError as error:
        raise InputError(
            f"cannot write the report to {folder}: {error.strerror}",
            remedy="name a folder that can be written",
        ) from None


def render(evaluation: Evaluation, *, changes: int = CHANGES, system: str | None = None) -> str:
    """The page as one string, without anything outside it.

    Args:
        evaluation: What was found.
        changes: How many wins, and how many losses.
        system: Set against the baseline; that of the headline if None.

    Raises:
        InputError: There is no such system, or what the evaluation holds as its fit is none.
    """
    import jinja2

    names = [run.name for run in evaluation.systems]
    if system is not None and system not in names:
        raise InputError(f"no system {system!r}", remedy=f"choose one of {', '.join(names)}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": tables.number,
        "signed": lambda value, digits=3: tables.signed(value, digits=digits).replace("-", "−"),
        "ms": tables.milliseconds,
        "cut": cut,
        "percent": lambda value: f"{100 * value:.0f} %",
    }
    page = environment.get_template("report.html.j2").render(
        **_context(evaluation, system or tables.compared_system(evaluation), changes)
    )
    return page + "\n"


def _context(evaluation: Evaluation, system: str | None, changes: int) -> dict[str, Any]:
    measure = tables.main_measure(evaluation)
    thumbnails = Thumbnails()
    found = differences(evaluation, system, measure) if system else {}
    first, *rest = tables.headline(evaluation).partition(". ")
    return {
        "evaluation": evaluation,
        "title": first + ("." if rest[0] else ""),
        "more": rest[1],
        "measure": measure,
        "measures": evaluation.measures,
        "system": system,
        "runs": evaluation.systems,
        "cells": _cells(evaluation),
        "groups": _groups(evaluation),
        "plots": _plots(evaluation, measure, system, list(found.values())),
        "curves": [(curve, plots.knee(curve, measure)) for curve in evaluation.curves],
        "pairs": _pairs(evaluation, measure, system, changes, thumbnails),
        "rows": sorted(found.items(), key=lambda item: -abs(item[1]))[:MAX_ROWS],
        "row_count": len(found),
        "warnings": evaluation.warnings[:MAX_WARNINGS],
        "more_warnings": max(0, len(evaluation.warnings) - MAX_WARNINGS),
        "without_picture": thumbnails.left_out,
        "significant": tables.SIGNIFICANT,
        "fit": fit_context(evaluation),
        "stages": sorted(
            {stage for cost in evaluation.costs for stage in cost.stages},
            key=lambda stage: (stage == "total", *plots.stage_order(stage)),
        ),
    }


def _cells(evaluation: Evaluation) -> dict[tuple[str, str, str], dict[str, Any]]:
    """By system, measure and group: summary, difference, and whether it is the best."""
    cells: dict[tuple[str, str, str], dict[str, Any]] = {}
    best: dict[tuple[str, str], float] = {}
    for summary in evaluation.summaries:
        key = (summary.system, summary.measure, summary.group)
        cells[key] = {"summary": summary, "difference": None, "mark": ""}
        best[key[1:]] = max(best.get(key[1:], summary.value.mean), summary.value.mean)
    for (_, *where), cell in cells.items():
        mean = cell["summary"].value.mean
        cell["best"] = mean >= best[where[0], where[1]] - tables.SAME
    for difference in evaluation.differences:
        key = (difference.system, difference.measure, difference.group)
        if difference.baseline == evaluation.baseline and key in cells:
            cells[key]["difference"] = difference
            if tables.is_significant(difference):
                cells[key]["mark"] = "better" if difference.value.mean > 0 else "worse"
    return cells


def _groups(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str, int]]]]:
    """By facet: the groups of queries, with their names and how many queries they have."""
    counts = {s.group: s.queries for s in evaluation.summaries if "=" in s.group}
    facets: dict[str, list[tuple[str, str, int]]] = {}
    for group, count in counts.items():
        facet, _, value = group.partition("=")
        facets.setdefault(facet, []).append(
            (group, value or NO_VALUE.get(facet, "not known"), count)
        )
    return list(facets.items())


def _plots(
    evaluation: Evaluation, measure: str, system: str | None, found: Sequence[float]
) -> list[dict[str, str]]:
    """Each with its title, its SVG and what it says, for those who do not see it too."""
    drawn: list[dict[str, str]] = []
    titles = {
        "candidates": f"{measure} by depth of the second pass",
        "budget_ms": f"{measure} by time for the second pass",
    }
    for over, title in titles.items():
        curves = [
            curve
            for curve in evaluation.curves
            if curve.over == over and any(measure in point.values for point in curve.points)
        ]
        if curves:
            svg = plots.curves_svg(evaluation, curves, measure)
            text = " ".join(_knee_text(curve, measure) for curve in curves)
            drawn.append({"title": title, "svg": svg, "text": f"{text} Bands are 95 % intervals."})
    if found and system:
        wins = sum(value > tables.SAME for value in found)
        losses = sum(value < -tables.SAME for value in found)
        drawn.append(
            {
                "title": f"Difference of each query, {system} to {evaluation.baseline}",
                "svg": plots.differences_svg(found, measure),
                "text": f"Better for {wins:,}, worse for {losses:,}, "
                f"the same for {len(found) - wins - losses:,} of {len(found):,} queries.",
            }
        )
    if evaluation.ceiling:
        drawn.append(_ceiling_plot(evaluation.ceiling))
    costs = [cost for cost in evaluation.costs if plots.stages_of(cost)]
    if costs:
        drawn.append(
            {
                "title": "Time a query, by stage",
                "svg": plots.costs_svg(costs),
                "text": "Medians of each stage. The second pass counts only where scores were "
                "not known before; “+ second pass” stands where all were.",
            }
        )
    return drawn


def _ceiling_plot(ceiling: Any) -> dict[str, str]:
    values: dict[int, Interval] = dict(sorted(ceiling.items()))
    depth, value = list(values.items())[-1]
    return {
        "title": "What the first pass finds",
        "svg": plots.ceiling_svg(values),
        "text": f"Among the first {depth}, {100 * value.mean:.0f} % of the relevant documents: "
        "what is not there, no second pass can bring up.",
    }


def _knee_text(curve: Curve, measure: str) -> str:
    best = plots.knee(curve, measure)
    if best is None:
        return ""
    depth = curve.over == "candidates"
    at = f"K = {best.x:g}" if depth else tables.milliseconds(best.x)
    took = "" if best.latency_ms is None else f", {tables.milliseconds(best.latency_ms)} a query"
    points = [point for point in curve.points if measure in point.values]
    cheapest = min(points, key=lambda point: point.x)
    if best is cheapest:
        more = "more candidates bring" if depth else "more time brings"
        return f"{curve.system}: {more} nothing over {at}{took} (ring)."
    return f"{curve.system}: {at} brings 95 % of what can be gained here (ring{took})."


def _pairs(
    evaluation: Evaluation,
    measure: str,
    system: str | None,
    changes: int,
    thumbnails: Thumbnails,
) -> list[dict[str, Any]]:
    """Wins and losses of each system, that of the headline first."""
    others = [run.name for run in evaluation.systems if run.name != evaluation.baseline]
    others.sort(key=lambda name: name != system)
    pairs = []
    for name in others[:MAX_PAIRS]:
        count = changes if name == system else min(changes, OTHER_CHANGES)
        ids = largest(differences(evaluation, name, measure), count)
        wins, losses = (changes_of(evaluation, name, measure, x, thumbnails) for x in ids)
        pairs.append({"system": name, "wins": wins, "losses": losses})
    return pairs
