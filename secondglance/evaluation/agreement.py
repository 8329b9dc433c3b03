"""How far annotators agree, and their grades taken together.

The coefficient is Krippendorff's alpha for ordinal data: 1 is perfect agreement, 0 is what chance
gives, below 0 is worse than that. K. Krippendorff, "Computing Krippendorff's Alpha-Reliability",
2011; computed by the `krippendorff` package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from typing import TypeAlias

Unit: TypeAlias = tuple[str, str]
"""Query id, document id."""
Grades: TypeAlias = Mapping[str, Mapping[Unit, int]]
"""Annotator -> unit -> grade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """Two annotators.

    Attributes:
        first: Name of the one.
        second: Name of the other.
        overlap: Units that both graded.
        same: Of these, with the same grade.
        agreement: Share of the same; None without overlap.
    """

    first: str
    second: str
    overlap: int
    same: int
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """All annotators.

    Attributes:
        annotators: Units that each graded, by name.
        units: That anybody graded.
        shared: That two or more graded: alpha is of these.
        alpha: Krippendorff's, ordinal; None where it is not defined.
        undefined: Why there is no alpha; empty if there is one.
        pairs: Each two annotators, by name.
    """

    annotators: Mapping[str, int]
    units: int
    shared: int
    alpha: float | None
    undefined: str
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The grades of one unit: each annotator's, their mean, and the mean as a whole number."""

    grades: Mapping[str, int]
    average: float
    grade: int


def agree(grades: Grades) -> Agreement:
    """Krippendorff's alpha over all annotators, and the raw agreement of each two.

    Units that one annotator graded alone say nothing of agreement and do not count for alpha.

    Args:
        grades: By annotator; any integers whose order means something.
    """
    units = sorted({unit for graded in grades.values() for unit in graded})
    holders = {unit: [name for name in grades if unit in grades[name]] for unit in units}
    shared = [unit for unit in units if len(holders[unit]) > 1]
    alpha, undefined = _alpha(grades, shared)
    return Agreement(
        annotators={name: len(grades[name]) for name in sorted(grades)},
        units=len(units),
        shared=len(shared),
        alpha=alpha,
        undefined=undefined,
        pairs=tuple(_pair(grades, *names) for names in combinations(sorted(grades), 2)),
    )


def _alpha(grades: Grades, shared: list[Unit]) -> tuple[float | None, str]:
    graders = sorted(name for name in grades if grades[name])
    if len(graders) < 2:
        return None, "agreement needs two annotators; there is " + (
            f"only {graders[0]}" if graders else "none"
        )
    if not shared:
        return None, "no document of a query was graded by two annotators"
    if len({grades[name][unit] for name in graders for unit in shared if unit in grades[name]}) < 2:
        return None, "all shared grades are the same: alpha is not defined without differences"
    import krippendorff

    table = [[float(grades[name].get(unit, math.nan)) for unit in shared] for name in graders]
    return float(krippendorff.alpha(table, level_of_measurement="ordinal")), ""


def _pair(grades: Grades, first: str, second: str) -> PairAgreement:
    both = grades[first].keys() & grades[second].keys()
    same = sum(grades[first][unit] == grades[second][unit] for unit in both)
    return PairAgreement(
        first=first,
        second=second,
        overlap=len(both),
        same=same,
        agreement=same / len(both) if both else None,
    )


def combine(grades: Grades) -> dict[str, dict[str, Combined]]:
    """The mean grade of each unit: query id -> document id -> what all annotators say.

    Qrels hold whole numbers: the mean is rounded to the nearest, halves up, so that one "somewhat"
    of two annotators is enough to be relevant.
    """
    together: dict[str, dict[str, Combined]] = {}
    for query, document in sorted({unit for graded in grades.values() for unit in graded}):
        given = {
            name: grades[name][query, document]
            for name in sorted(grades)
            if (query, document) in grades[name]
        }
        mean = Fraction(sum(given.values()), len(given))
        together.setdefault(query, {})[document] = Combined(
            grades=given, average=float(mean), grade=math.floor(mean + Fraction(1, 2))
        )
    return together
