"""Means over queries with their intervals, and differences with their tests.

Intervals are of the percentile bootstrap over queries (Efron and Tibshirani, 1993); the test is the
paired randomization test (Fisher; for retrieval Smucker, Allan and Carterette, 2007), with the
correction of Holm (1979). All draws have a fixed seed: the same values give the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from secondglance.errors import InputError
from secondglance.evaluation.types import (
    Difference,
    EvaluationQuery,
    Interval,
    PerQuery,
    Summary,
)

RESAMPLES = 2000
FLIPS = 9999
EXACT = 13
"""So many differences have fewer sign patterns than are drawn: all are tried."""
ALL = "all"
CHUNK_ELEMENTS = 1 << 22
"""Draws held at once; 32 MB."""

Values: TypeAlias = Mapping[str, Mapping[str, PerQuery]]
"""By system, measure and query id."""
Matrix: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """How one list of values differs from another.

    Attributes:
        value: Mean of the differences and its 95 % interval.
        p_value: Two-sided, of the paired randomization test.
        wins: Pairs where the first is larger.
        losses: Pairs where it is smaller.
    """

    value: Interval
    p_value: float
    wins: int
    losses: int


def interval(values: npt.ArrayLike) -> Interval:
    """Mean of values, one a query, and its 95 % interval by the bootstrap.

    Raises:
        InputError: There are no values.
    """
    return _intervals(np.asarray(values, dtype=float).reshape(1, -1))[0]


def paired(a: npt.ArrayLike, b: npt.ArrayLike) -> Paired:
    """How values `a` differ from values `b` of the same queries, in the same order.

    Raises:
        InputError: There are no values, or not as many of both.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise InputError(f"{first.size} and {second.size} values are no pairs")
    return _paired((first - second).reshape(1, -1))[0]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold together, in the same order, by Holm's step-down correction."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def groups(queries: Mapping[str, EvaluationQuery]) -> dict[str, tuple[str, ...]]:
    """Ids of queries by group: `all`, `language=en`, `kind=image`, `length=1-3`.

    A query whose language or length is not known is in no group of that kind.
    """
    found: dict[str, list[str]] = {ALL: list(queries)}
    for name in ("language", "kind", "length"):
        values = {id: str(getattr(query, name)) for id, query in queries.items()}
        for value in sorted(set(values.values()) - {""}):
            found[f"{name}={value}"] = [id for id, own in values.items() if own == value]
    return {name: tuple(ids) for name, ids in found.items()}


def summaries(values: Values, queries: Mapping[str, EvaluationQuery]) -> tuple[Summary, ...]:
    """Mean and interval of each measure of each system, for all queries and by group.

    Args:
        values: Of every system and measure, for every query.
        queries: By id.

    Returns:
        By group, then system, then measure, in the order of `values`.

    Raises:
        InputError: There are no queries.
    """
    found = []
    for group, ids in groups(queries).items():
        columns = [(system, measure) for system in values for measure in values[system]]
        if not columns:
            continue
        matrix = np.array([[values[s][m][id] for id in ids] for s, m in columns], dtype=float)
        for (system, measure), value in zip(columns, _intervals(matrix), strict=True):
            found.append(
                Summary(system=system, measure=measure, group=group, queries=len(ids), value=value)
            )
    return tuple(found)


def differences(
    values: Values, queries: Mapping[str, EvaluationQuery], *, baseline: str
) -> tuple[Difference, ...]:
    """How each system differs from the baseline, for all queries and by group.

    P-values are adjusted over the systems, for each measure and group. Groups of fewer than two
    queries are left out.

    Args:
        values: Of every system and measure, for every query.
        queries: By id.
        baseline: A system of `values`.

    Returns:
        By group, then system, then measure, in the order of `values`.

    Raises:
        InputError: The baseline is none of the systems.
    """
    if baseline not in values:
        raise InputError(
            f"the baseline {baseline!r} is none of the systems", remedy=f"name {', '.join(values)}"
        )
    measures = [*values[baseline]]
    columns = [(system, m) for system in values if system != baseline for m in measures]
    found: list[Difference] = []
    for group, ids in groups(queries).items():
        if len(ids) < 2 or not columns:
            continue
        matrix = np.array(
            [[values[s][m][id] - values[baseline][m][id] for id in ids] for s, m in columns]
        )
        tested = dict(zip(columns, _paired(matrix), strict=True))
        adjusted: dict[tuple[str, str], float] = {}
        for measure in measures:
            own = [column for column in columns if column[1] == measure]
            together = holm([tested[column].p_value for column in own])
            adjusted |= dict(zip(own, together, strict=True))
        for (system, measure), result in tested.items():
            found.append(
                Difference(
                    system=system,
                    baseline=baseline,
                    measure=measure,
                    group=group,
                    queries=len(ids),
                    value=result.value,
                    p_value=result.p_value,
                    p_adjusted=adjusted[system, measure],
                    wins=result.wins,
                    losses=result.losses,
                )
            )
    return tuple(found)


def _intervals(matrix: Matrix) -> list[Interval]:
    """Of rows (rows, queries); all rows see the same draws, as one alone would."""
    rows, count = matrix.shape
    if not count:
        raise InputError("there are no queries to take the mean of")
    rng = np.random.default_rng(0)
    drawn = np.empty((rows, RESAMPLES))
    for start, stop in _chunks(RESAMPLES, count):
        draws = rng.integers(count, size=(stop - start, count))
        draws += np.arange(0, draws.size, count)[:, None]  # one histogram a draw, made at once
        times = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape)
        drawn[:, start:stop] = matrix @ times.T / count
    low, high = np.percentile(drawn, (2.5, 97.5), axis=1)
    # Sums in another order differ in their last bit: equal values must not look like a spread.
    flat = np.ptp(matrix, axis=1) == 0
    bounds = [np.where(flat, matrix[:, 0], found) for found in (matrix.mean(axis=1), low, high)]
    return [
        Interval(mean=float(m), low=float(a), high=float(b))
        for m, a, b in zip(*bounds, strict=True)
    ]


def _paired(matrix: Matrix) -> list[Paired]:
    """Of rows of differences (rows, queries)."""
    spans = _intervals(matrix)
    # Sums that trec_eval's values make equal may differ in their last bits.
    matrix = np.where(np.abs(matrix) < 1e-12, 0.0, matrix)
    p_values = _p_values(matrix)
    return [
        Paired(
            value=span,
            p_value=p_value,
            wins=int((row > 0).sum()),
            losses=int((row < 0).sum()),
        )
        for row, span, p_value in zip(matrix, spans, p_values, strict=True)
    ]


def _p_values(matrix: Matrix) -> list[float]:
    """Share of sign patterns whose sum is as far from 0 as that of each row, or farther.

    Queries without a difference add nothing under any sign, so they are left out. Rows with few
    others are tried exactly.
    """
    found = [1.0] * len(matrix)
    drawn = []
    for place, row in enumerate(matrix):
        moved = row[row != 0]
        if len(moved) > EXACT:
            drawn.append(place)
        elif len(moved):
            patterns = np.arange(1 << len(moved))[:, None] >> np.arange(len(moved)) & 1
            found[place] = float(_as_far((1 - 2 * patterns) @ moved, abs(moved.sum())).mean())
    if drawn:
        rows = matrix[drawn]
        observed = np.abs(rows.sum(axis=1))
        beyond = np.zeros(len(drawn))
        rng = np.random.default_rng(0)
        for start, stop in _chunks(FLIPS, matrix.shape[1]):
            flips = rng.integers(2, size=(stop - start, matrix.shape[1]), dtype=np.int8)
            beyond += _as_far((1.0 - 2.0 * flips) @ rows.T, observed).sum(axis=0)
        for place, count in zip(drawn, beyond, strict=True):
            found[place] = float((count + 1) / (FLIPS + 1))
    return found


def _as_far(sums: Matrix, observed: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.abs(sums) >= np.asarray(observed) * (1 - 1e-9)
    return found


def _chunks(total: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_ELEMENTS // width)
    for start in range(0, total, step):
        yield start, min(total, start + step)
