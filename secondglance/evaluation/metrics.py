"""Measures of rankings, by ir-measures and trec_eval."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.evaluation.types import PerQuery, Qrels, Run

if TYPE_CHECKING:
    import ir_measures

DEFAULT_MEASURES = (
    "nDCG@5",
    "nDCG@10",
    "Hit@1",
    "Recall@1",
    "Recall@5",
    "Recall@10",
    "Recall@50",
    "Recall@100",
    "MRR",
    "MAP",
)
"""As users know them, and as the tables show them."""

MAX_CUTOFF = 10_000

_FAMILIES = {
    # Shown: (as ir-measures calls it, has it a cut-off, other names)
    "nDCG": ("nDCG", "optional", ()),
    "Hit": ("Success", "needed", ("Success", "HitRate", "Hits")),
    "Recall": ("R", "needed", ("R",)),
    "Precision": ("P", "needed", ("P",)),
    "MRR": ("RR", "optional", ("RR",)),
    "MAP": ("AP", "optional", ("AP",)),
    "Rprec": ("Rprec", "none", ("RPrecision",)),
    "Bpref": ("Bpref", "none", ()),
}
_NAMES = {
    other.lower(): shown
    for shown, (_, _, others) in _FAMILIES.items()
    for other in (shown, *others)
}
_WRITTEN = re.compile(r"\s*([a-z_-]+)\s*(?:@\s*([0-9]+))?\s*", re.IGNORECASE)


def known_measure(name: str) -> str:
    """A measure's name as the tables show it: `Success@1` is `Hit@1`, `ap` is `MAP`.

    Raises:
        InputError: There is no such measure, or its cut-off is missing or out of range.
    """
    written = _WRITTEN.fullmatch(name)
    key = re.sub("[_-]", "", written[1].lower()) if written else name.lower()
    if written is None or key not in _NAMES:
        raise InputError(f"there is no measure {name!r}", remedy=_advice(key))
    shown = _NAMES[key]
    cutoff = _FAMILIES[shown][1]
    if cutoff == "none" and written[2]:
        raise InputError(f"{name!r}: {shown} has no cut-off", remedy=f"write {shown}")
    if cutoff == "needed" and not written[2]:
        raise InputError(f"{name!r}: {shown} needs a cut-off", remedy=f"write {shown}@10")
    if written[2] is None:
        return shown
    if not 1 <= int(written[2]) <= MAX_CUTOFF:
        raise InputError(f"{name!r}: the cut-off must be in 1..{MAX_CUTOFF}")
    return f"{shown}@{int(written[2])}"


def known_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Names of measures as the tables show them, each once.

    Raises:
        InputError: As for `known_measure`.
    """
    return tuple(dict.fromkeys(known_measure(name) for name in names))


def compute(names: Sequence[str], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Values of measures for every judged query, as trec_eval -q -c has them.

    A judged query without results, or without a relevant document, has 0. Queries of the run that
    nobody judged do not count. Equal scores, after rounding to single precision, are ordered by
    document id, last first; `falling` keeps a system's own order. Grades above 0 are relevant, and
    nDCG takes a grade as its gain.

    Args:
        names: Of measures, in any spelling that `known_measure` takes.
        qrels: Judgments.
        run: Scores.

    Returns:
        By measure, as shown, and query id.

    Raises:
        InputError: There is no such measure.
    """
    import ir_measures

    shown = known_measures(names)
    asked: dict[ir_measures.Measure, list[str]] = {}
    for name in shown:
        asked.setdefault(_measure(name), []).append(name)
    # Scores and ids go to C, which knows no lone surrogates; grades below 0 are not relevant.
    judged = {
        _plain(query): {_plain(document): max(grade, 0) for document, grade in grades.items()}
        for query, grades in qrels.items()
    }
    scores = {
        _plain(query): {_plain(document): float(score) for document, score in ranked.items()}
        for query, ranked in run.items()
        if query in qrels
    }
    values = {name: dict.fromkeys(qrels, 0.0) for name in shown}
    if not judged or not shown:
        return values
    ids = {_plain(query): query for query in qrels}
    evaluator = ir_measures.pytrec_eval.evaluator(list(asked), judged)
    for metric in evaluator.iter_calc(scores):
        for name in asked[metric.measure]:
            values[name][ids[metric.query_id]] = _within(name, float(metric.value))
    return values


def ceiling(qrels: Qrels, run: Run, depths: Iterable[int]) -> dict[int, dict[str, float]]:
    """Recall at depths: what an ideal second pass over that many candidates could bring up.

    Args:
        qrels: Judgments.
        run: Scores of the first pass.
        depths: Numbers of candidates.

    Returns:
        By depth and query id.

    Raises:
        InputError: A depth is out of range.
    """
    names = {depth: f"Recall@{depth}" for depth in sorted(set(depths))}
    values = compute(list(names.values()), qrels, run)
    return {depth: values[name] for depth, name in names.items()}


def falling(ranking: Sequence[str]) -> dict[str, float]:
    """Scores for a ranking, best first, that fall strictly, so that nothing is a tie.

    A system's own scores may be equal, or so near that trec_eval, which has them in single
    precision, takes them for equal and orders by name. A document that comes again keeps its first
    place.
    """
    ids = list(dict.fromkeys(ranking))
    return {id: float(len(ids) - place) for place, id in enumerate(ids)}


def means(values: Mapping[str, PerQuery]) -> dict[str, float]:
    """Mean over queries of each measure; 0 without queries."""
    return {
        name: sum(found.values()) / len(found) if found else 0.0 for name, found in values.items()
    }


def _measure(shown: str) -> ir_measures.Measure:
    import ir_measures

    family, _, cutoff = shown.partition("@")
    measure = ir_measures.parse_measure(_FAMILIES[family][0])
    return measure @ int(cutoff) if cutoff and family != "MRR" else measure


def _within(shown: str, value: float) -> float:
    """0 for a reciprocal rank beyond the cut-off of `MRR@10`.

    trec_eval has no such cut-off, and other programs order equal scores otherwise; its value says
    the rank.
    """
    family, _, cutoff = shown.partition("@")
    if family != "MRR" or not cutoff or value == 0:
        return value
    return value if round(1 / value) <= int(cutoff) else 0.0


def _advice(key: str) -> str:
    near = difflib.get_close_matches(key, _NAMES, n=3, cutoff=0.5)
    examples = {shown: shown + ("@10" if has == "needed" else "") for shown, (_, has, _) in
                _FAMILIES.items()}  # fmt: skip
    close = dict.fromkeys(examples[_NAMES[name]] for name in near)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are {', '.join(examples.values())}"


def _plain(id: str) -> str:
    return id if id.isascii() else id.encode("utf-8", "backslashreplace").decode()
