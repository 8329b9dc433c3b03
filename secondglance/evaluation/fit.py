"""Fits a probability of relevance to judgments, and says how good it is on other queries.

For each kind of query, with and without words, and for each pass: a regularised logistic
regression on a few standardised features, then a calibration. All figures are out of fold: whole
queries are held out, from the regression and from its calibration.

Candidates that nobody judged count as not relevant. Classes are not weighted, which would distort
the probability.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secondglance.errors import InputError
from secondglance.evaluation.fit_figures import Fixed, HeldOut, Listed, figures
from secondglance.evaluation.fusion_model import (
    FEATURES,
    Calibration,
    Curve,
    FittedFusion,
    FittedModel,
    Line,
    Order,
    columns,
    features,
)
from secondglance.evaluation.signals import Signals
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import Qrels, QueryKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.evaluation.fusion_model import Floats

    Places: TypeAlias = npt.NDArray[np.int64]
    Flags: TypeAlias = npt.NDArray[np.bool_]

MIN_QUERIES = 20
"""Judged queries with a relevant candidate that one model needs."""
FOLDS = 5
INNER_FOLDS = 3
"""Within the queries of a fold, for the calibration."""
ISOTONIC_FROM = 300
"""Relevant candidates from which the calibration is isotonic; with fewer it would fit noise, and
Platt's line has but two numbers (Niculescu-Mizil and Caruana, "Predicting good probabilities with
supervised learning", ICML 2005, find the crossing at some hundreds to a thousand examples)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Candidates of all queries, one below the other.

    Attributes:
        seen: As `features` gives it, shape (rows, features).
        relevant: Shape (rows,), as the others.
        query: Number of the query.
        place: In the query's list, from 0.
        looked: Whether the second pass scored it.
    """

    seen: Floats
    relevant: Flags
    query: Places
    place: Places
    looked: Flags

    @staticmethod
    def of(lists: Sequence[Listed]) -> _Rows:
        sizes = [len(listed.documents) for listed in lists]
        return _Rows(
            seen=np.concatenate([features(x.cosine, x.lexical, x.rerank) for x in lists]),
            relevant=np.concatenate([listed.relevant for listed in lists]),
            query=np.repeat(np.arange(len(lists)), sizes),
            place=np.concatenate([np.arange(size) for size in sizes]),
            looked=np.array([s is not None for x in lists for s in x.rerank], dtype=bool),
        )

    def scored(self) -> _Rows:
        return _Rows(**{f.name: getattr(self, f.name)[self.looked] for f in fields(self)})


def fit_fusion(
    signals: Mapping[str, Signals],
    qrels: Qrels,
    *,
    fixed: Fixed,
    depth: int,
    kinds: Mapping[str, QueryKind] | None = None,
) -> tuple[FittedFusion, tuple[str, ...]]:
    """Fits every model that the judgments allow.

    Args:
        signals: By query id.
        qrels: Judgments; queries without any are left out.
        fixed: The order without a fit, with a second pass.
        depth: Candidates that a search takes from the first pass.
        kinds: Of the queries, by id; those not named are `text`.

    Returns:
        The models, and warnings.

    Raises:
        InputError: No kind of query has enough judgments.
    """
    judged = [query for query in signals if query in qrels]
    if not judged:
        raise InputError(
            f"none of the {len(signals)} queries has judgments (those name "
            f"{named(qrels) or 'none'}; the queries are {named(signals) or 'none'})",
            remedy="the first column of the judgments must hold the queries' ids",
        )
    by_kind: dict[QueryKind, list[str]] = {}
    for query in judged:
        by_kind.setdefault((kinds or {}).get(query, "text"), []).append(query)
    models: list[FittedModel] = []
    warnings: list[str] = []
    short: list[str] = []
    for kind, queries in by_kind.items():
        chosen = {query: signals[query] for query in queries}
        for words in (False, True) if kind in ("text", "mixed") else (False,):
            lists = _lists(chosen, qrels, words=words, depth=depth)
            looked = _reranked(lists)
            for second in (False, True) if looked else (False,):
                used = looked if second else lists
                answered = sum(bool(listed.relevant.any()) for listed in used)
                if answered < MIN_QUERIES:
                    short.append(f"{kind} {'second' if second else 'first'} pass: {answered}")
                    continue
                models.append(_fit_model(used, kind, words=words, second=second, fixed=fixed))
        if not looked:
            warnings.append(
                f"the second pass looked at none of the {kind} queries' candidates: the fit is for "
                "searches without it"
            )
    if not models:
        raise InputError(
            f"too few judgments to fit: {'; '.join(dict.fromkeys(short))} judged queries with a "
            f"relevant document among their candidates, at least {MIN_QUERIES} are needed",
            remedy="judge more queries with: secondglance judge",
        )
    if short:
        warnings.append(
            f"not fitted, for fewer than {MIN_QUERIES} judged queries have a relevant document "
            f"among their candidates ({'; '.join(dict.fromkeys(short))})"
        )
    for model in models:
        if model.order == "fixed":
            warnings.append(_not_better(model))
    if not any(not any(grade > 0 for grade in qrels[query].values()) for query in judged):
        warnings.append(
            "every judged query has a relevant document: how low the probability falls for a query "
            "without any was not learned; judge some of those, too"
        )
    return FittedFusion(models=tuple(models)), tuple(warnings)


def _not_better(model: FittedModel) -> str:
    ndcg, figures = model.figures.ndcg, model.figures
    return (
        f"{model.name}: the fitted order is not clearly better on held-out queries (nDCG@10 "
        f"{ndcg['fitted']:.3f}, today's {ndcg['fixed']:.3f}, difference {figures.gain:+.3f} with "
        f"standard error {figures.gain_error:.3f}): the order stays, the probability is used for "
        "the cut-off"
    )


def _lists(
    signals: Mapping[str, Signals], qrels: Qrels, *, words: bool, depth: int
) -> list[Listed]:
    """What a search with or without words takes from the first pass, of each query."""
    found = []
    for query, known in signals.items():
        ranks = known.fused_rank if words else known.recall_rank
        order = sorted((rank, place) for place, rank in enumerate(ranks) if rank is not None)
        taken = [place for _, place in order[:depth]]
        if not taken:
            continue
        fused = {place: known.fused[place] if words else None for place in taken}
        found.append(
            Listed(
                documents=tuple(known.documents[place] for place in taken),
                cosine=tuple(known.cosine[place] for place in taken),
                lexical=tuple(known.lexical_score[p] if words else None for p in taken),
                recall=tuple(
                    known.cosine[place] if score is None else score
                    for place, score in fused.items()
                ),
                rerank=tuple(known.rerank_score[place] for place in taken),
                grades=qrels[query],
            )
        )
    return found


def _reranked(lists: Sequence[Listed]) -> list[Listed]:
    """The head of each list that the second pass looked at; in search it sees all candidates."""
    heads = []
    for listed in lists:
        seen = [place for place, score in enumerate(listed.rerank) if score is not None]
        if seen:
            heads.append(listed.at(range(seen[-1] + 1)))
    return heads


def _fit_model(
    lists: Sequence[Listed], kind: QueryKind, *, words: bool, second: bool, fixed: Fixed
) -> FittedModel:
    rows, absent = _Rows.of(lists), _Rows.of([listed.without_relevant() for listed in lists])
    if second:  # in a search, what it could not score is scored by the first pass's model
        rows, absent = rows.scored(), absent.scored()
    mine = [FEATURES.index(name) for name in columns(words=words, second=second)]
    seen, relevant, query = rows.seen[:, mine], rows.relevant, rows.query
    method: Calibration = "isotonic" if relevant.sum() >= ISOTONIC_FROM else "platt"

    log_odds, probability = np.zeros(len(seen)), np.zeros(len(seen))
    best_absent = np.zeros(len(lists))
    for train, test in _folds(seen, relevant, query, FOLDS):
        line = _line(seen[train], relevant[train])
        inner = _held_out(seen[train], relevant[train], query[train])
        curve = _curve(inner, relevant[train], method)
        log_odds[test] = line.log_odds(seen[test])
        probability[test] = curve.probability(log_odds[test])
        tested = np.isin(absent.query, query[test])
        said = curve.probability(line.log_odds(absent.seen[tested][:, mine]))
        np.maximum.at(best_absent, absent.query[tested], said)

    found = figures(
        [
            HeldOut(
                listed=listed,
                places=rows.place[query == number],
                log_odds=log_odds[query == number],
                probability=probability[query == number],
                best_absent=float(best_absent[number]),
            )
            for number, listed in enumerate(lists)
        ],
        fixed=fixed if second else None,
    )
    # One standard error, as Breiman, Friedman, Olshen and Stone choose trees (1984): the simpler
    # one stays unless the other is better by more than chance easily makes it.
    order: Order = "fitted" if found.gain > max(found.gain_error, 1e-9) else "fixed"
    return FittedModel(
        kind=kind,
        words=words,
        second=second,
        line=_line(seen, relevant),
        curve=_curve(log_odds, relevant, method),
        order=order,
        figures=found,
    )


def _folds(
    seen: Floats, relevant: Flags, query: Places, count: int
) -> Iterator[tuple[Places, Places]]:
    """Whole queries are held out; relevant candidates are spread evenly over the folds."""
    from sklearn.model_selection import StratifiedGroupKFold

    yield from StratifiedGroupKFold(n_splits=count).split(seen, relevant, groups=query)


def _line(seen: Floats, relevant: Flags) -> Line:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(seen)
    made = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(seen), relevant)
    return Line(
        mean=tuple(map(float, scaler.mean_)),
        scale=tuple(map(float, scaler.scale_)),
        weights=tuple(map(float, made.coef_[0])),
        intercept=float(made.intercept_[0]),
    )


def _held_out(seen: Floats, relevant: Flags, query: Places) -> Floats:
    """Log-odds of each candidate by a regression that has not seen its query."""
    found = np.zeros(len(seen))
    for train, test in _folds(seen, relevant, query, INNER_FOLDS):
        found[test] = _line(seen[train], relevant[train]).log_odds(seen[test])
    return found


def _curve(log_odds: Floats, relevant: Flags, method: Calibration) -> Curve:
    if method == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        # No finite number of candidates shows a probability of 0 or 1.
        least = 1 / (len(relevant) + 2)
        made = IsotonicRegression(y_min=least, y_max=1 - least).fit(log_odds, relevant)
        return Curve(
            method=method,
            knots=tuple(map(float, made.X_thresholds_)),
            heights=tuple(map(float, made.y_thresholds_)),
        )
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression(C=1.0, max_iter=1000).fit(log_odds[:, None], relevant)
    slope, offset = float(line.coef_[0, 0]), float(line.intercept_[0])
    if slope < 0:  # only noise makes better candidates less likely
        share = float(relevant.mean())
        slope, offset = 0.0, float(np.log(share / (1 - share)))
    return Curve(method=method, slope=slope, offset=offset)
