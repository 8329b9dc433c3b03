"""How good a fitted model is on queries that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from secondglance.evaluation.fusion_model import Figures, ReliabilityBin

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.evaluation.fusion_model import Floats

BINS = 10
MATCH = 0.5
"""From this probability of its best candidate on, a query counts as matched."""

Fixed: TypeAlias = Callable[[Sequence[float], Sequence[float | None]], Sequence[float]]
"""Scores of the order that is used without a fit, higher is better, from those of the first pass
and of the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The candidates of one query as a search would see them, in the order of the first pass.

    Attributes:
        documents: Their ids.
        cosine: Of each.
        lexical: BM25; None where no word stands, or words were not searched.
        recall: What the first pass is ordered by.
        rerank: Probability of the second pass; None where it did not look.
        grades: Judgments of the query, by document.
    """

    documents: tuple[str, ...]
    cosine: tuple[float, ...]
    lexical: tuple[float | None, ...]
    recall: tuple[float, ...]
    rerank: tuple[float | None, ...]
    grades: Mapping[str, int]

    @property
    def relevant(self) -> npt.NDArray[np.bool_]:
        """Of each candidate; what nobody judged is not."""
        return np.array([self.grades.get(d, 0) > 0 for d in self.documents], dtype=bool)

    def at(self, places: Sequence[int]) -> Listed:
        """Only the candidates at these places."""
        return Listed(
            documents=tuple(self.documents[i] for i in places),
            cosine=tuple(self.cosine[i] for i in places),
            lexical=tuple(self.lexical[i] for i in places),
            recall=tuple(self.recall[i] for i in places),
            rerank=tuple(self.rerank[i] for i in places),
            grades=self.grades,
        )

    def without_relevant(self) -> Listed:
        """As if the library did not hold what is looked for."""
        return self.at([int(place) for place in np.flatnonzero(~self.relevant)])


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What a model that has not seen a query says of its candidates.

    Attributes:
        listed: The candidates.
        places: Those that the model scores.
        log_odds: Of these.
        probability: Of these.
        best_absent: Highest probability once the relevant candidates are taken away.
    """

    listed: Listed
    places: npt.NDArray[np.int64]
    log_odds: Floats
    probability: Floats
    best_absent: float


def figures(held_out: Sequence[HeldOut], *, fixed: Fixed | None) -> Figures:
    """All figures of one model.

    Args:
        held_out: One a query.
        fixed: The order without a fit; None is that of the first pass.
    """
    said = np.concatenate([each.probability for each in held_out])
    true = np.concatenate([each.listed.relevant[each.places] for each in held_out])
    share = float(true.mean())
    table = reliability(said, true)
    ndcg = {
        name: _ndcg([(each.listed, places(each)) for each in held_out])
        for name, places in _orders(fixed).items()
    }
    gains = ndcg["fitted"] - ndcg["fixed"]
    answered = [
        each for each in held_out if len(each.places) and each.listed.relevant[each.places].any()
    ]
    return Figures(
        queries=len(held_out),
        answered=len(answered),
        candidates=len(said),
        relevant=int(true.sum()),
        log_loss=_log_loss(said, true),
        base_log_loss=_log_loss(np.full(len(said), share), true),
        brier=float(np.mean((said - true) ** 2)),
        calibration_error=sum(
            row.candidates / len(said) * abs(row.probability - row.relevant) for row in table
        ),
        reliability=table,
        ndcg={name: float(values.mean()) for name, values in ndcg.items()},
        gain=float(gains.mean()),
        gain_error=float(gains.std(ddof=1) / np.sqrt(len(gains))),
        matched=float(np.mean([each.probability.max() >= MATCH for each in answered])),
        false_matches=float(np.mean([each.best_absent >= MATCH for each in answered])),
    )


def reliability(said: Floats, true: npt.NDArray[np.bool_]) -> tuple[ReliabilityBin, ...]:
    """What was said and what is true, in tenths of the probability.

    Args:
        said: Probabilities.
        true: Whether it is so; same shape.
    """
    tenth = np.minimum((said * BINS).astype(int), BINS - 1)
    found = []
    for number in range(BINS):
        here = tenth == number
        any_here = bool(here.any())
        found.append(
            ReliabilityBin(
                low=number / BINS,
                high=(number + 1) / BINS,
                candidates=int(here.sum()),
                probability=float(said[here].mean()) if any_here else 0.0,
                relevant=float(true[here].mean()) if any_here else 0.0,
            )
        )
    return tuple(found)


def _log_loss(said: Floats, true: npt.NDArray[np.bool_]) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(true, said, labels=[False, True]))


def _orders(fixed: Fixed | None) -> dict[str, Callable[[HeldOut], list[int]]]:
    """By name: what orders the candidates of a query; places, best first."""

    def recall(each: HeldOut) -> list[int]:
        return list(range(len(each.listed.documents)))

    def rerank(each: HeldOut) -> list[int]:
        scores = each.listed.rerank
        return sorted(recall(each), key=lambda i: (scores[i] is None, -(scores[i] or 0.0), i))

    def today(each: HeldOut) -> list[int]:
        assert fixed is not None
        scores = fixed(each.listed.recall, each.listed.rerank)
        return sorted(recall(each), key=lambda i: (-scores[i], i))

    def fitted(each: HeldOut) -> list[int]:
        odds = dict(zip(each.places.tolist(), each.log_odds.tolist(), strict=True))
        return sorted(recall(each), key=lambda i: (i not in odds, -odds.get(i, 0.0), i))

    if fixed is None:
        return {"recall": recall, "fixed": recall, "fitted": fitted}
    return {"recall": recall, "rerank": rerank, "fixed": today, "fitted": fitted}


def _ndcg(ordered: Sequence[tuple[Listed, list[int]]]) -> Floats:
    """nDCG@10 of each query with a relevant document, in the order given."""
    import ir_measures

    asked = [
        (listed, places)
        for listed, places in ordered
        if any(grade > 0 for grade in listed.grades.values())
    ]
    qrels = {str(n): dict(listed.grades) for n, (listed, _) in enumerate(asked)}
    run = {
        # Ranks as scores: equal scores would be put in the order of their ids.
        str(n): {listed.documents[i]: float(-at) for at, i in enumerate(places)}
        for n, (listed, places) in enumerate(asked)
    }
    found = {
        metric.query_id: metric.value
        for metric in ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run)
    }
    return np.array([found.get(str(n), 0.0) for n in range(len(asked))], dtype=np.float64)
