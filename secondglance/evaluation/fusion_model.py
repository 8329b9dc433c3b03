"""A probability of relevance out of what the passes say: the fitted model, and how it scores.

Nothing here needs scikit-learn: `evaluation.fit` makes the numbers, numpy applies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from secondglance.evaluation.types import QueryKind

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats: TypeAlias = npt.NDArray[np.float64]

Feature = Literal["cosine", "below_best", "rank", "words", "words_share", "rerank"]
Pass = Literal["first", "second"]
Order = Literal["fitted", "fixed"]
Calibration = Literal["isotonic", "platt"]

FEATURES: tuple[Feature, ...] = get_args(Feature)
"""Columns of `features`, in this order."""

SUREST = 1e-6
"""Probabilities of the second pass are kept this far from 0 and 1, so that their odds are finite;
single precision does not tell them apart beyond."""


def columns(*, words: bool, second: bool) -> tuple[Feature, ...]:
    """The features of one model.

    Args:
        words: Whether captions, texts and names were searched, too.
        second: Whether the second pass has looked.
    """
    chosen: list[Feature] = ["cosine", "below_best", "rank"]
    chosen += ["words", "words_share"] if words else []
    chosen += ["rerank"] if second else []
    return tuple(chosen)


def features(
    cosine: Sequence[float],
    lexical: Sequence[float | None],
    rerank: Sequence[float | None],
) -> Floats:
    """What a model sees of the candidates of one query, shape (candidates, features).

    `cosine` is that of the first pass, `below_best` what it lacks to the query's best, `rank` the
    negative logarithm of the place, `words` the logarithm of 1 + BM25 (0 where no word stands),
    `words_share` BM25 as a share of the query's best, and `rerank` the log-odds of the second
    pass, 0 where there is none. All grow with relevance.

    Args:
        cosine: Of the candidates, in the order of the first pass.
        lexical: BM25; None where no word stands.
        rerank: Probability of the second pass; None where it did not look.
    """
    count = len(cosine)
    cosines = np.asarray(cosine, dtype=np.float64)
    bm25 = np.array([0.0 if score is None else score for score in lexical], dtype=np.float64)
    most = bm25.max(initial=0.0)
    sure = np.array([0.5 if score is None else score for score in rerank], dtype=np.float64)
    sure = np.clip(sure, SUREST, 1 - SUREST)
    by_name: dict[Feature, Floats] = {
        "cosine": cosines,
        "below_best": cosines - cosines.max() if count else cosines,
        "rank": -np.log(np.arange(1.0, count + 1.0)),
        "words": np.log1p(np.maximum(bm25, 0.0)),
        "words_share": bm25 / most if most > 0 else bm25,
        "rerank": np.log(sure) - np.log1p(-sure),
    }
    return np.stack([by_name[name] for name in FEATURES], axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Candidates whose probability lies in one tenth: said, and true.

    Attributes:
        low: Lowest probability.
        high: Highest.
        candidates: How many.
        probability: Mean of what was said; 0 without candidates.
        relevant: Share that is relevant; 0 without candidates.
    """

    low: float
    high: float
    candidates: int
    probability: float
    relevant: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How good one model is on queries that it was not fitted on.

    Attributes:
        queries: Judged ones with candidates.
        answered: Of these, with a relevant candidate.
        candidates: Of all queries.
        relevant: Candidates that are.
        log_loss: Mean, natural logarithm; lower is better.
        base_log_loss: Of saying the share of relevant candidates of every one.
        brier: Mean squared error of the probability.
        calibration_error: Expected calibration error over `reliability`.
        reliability: In ten tenths.
        ndcg: Mean nDCG@10 over queries with a relevant document, by order: `recall`, `rerank`
            (with a second pass), `fixed`, `fitted`.
        gain: Mean difference of `fitted` to `fixed`.
        gain_error: Its standard error.
        matched: Share of the answered queries whose best candidate has at least 0.5.
        false_matches: The same share once their relevant candidates are taken away.
    """

    queries: int
    answered: int
    candidates: int
    relevant: int
    log_loss: float
    base_log_loss: float
    brier: float
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    ndcg: Mapping[str, float]
    gain: float
    gain_error: float
    matched: float
    false_matches: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A logistic regression.

    Attributes:
        mean: Of each feature.
        scale: Standard deviation of each, 1 where it does not vary.
        weights: Of the standardised features.
        intercept: Of the log-odds.
    """

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: They do not belong together.
        """
        if not len(self.mean) == len(self.scale) == len(self.weights):
            raise ValueError("a line needs as many means and scales as weights")
        if not _finite(*self.mean, *self.scale, *self.weights, self.intercept) or 0 in self.scale:
            raise ValueError("a number of the line is not finite, or a scale is 0")

    def log_odds(self, seen: Floats) -> Floats:
        """Not calibrated; of rows of these features, shape (rows, features) to (rows,)."""
        standard = (seen - np.array(self.mean)) / np.array(self.scale)
        found: Floats = standard @ np.array(self.weights) + self.intercept
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A calibration: log-odds to probabilities, never falling.

    Attributes:
        method: `platt` is a line through the log-odds, `isotonic` a curve of straight pieces.
        slope: Of Platt's line.
        offset: Of that line.
        knots: Log-odds where the isotonic curve bends, ascending.
        heights: Probabilities there.
    """

    method: Calibration
    slope: float = 1.0
    offset: float = 0.0
    knots: tuple[float, ...] = ()
    heights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            ValueError: They make no curve.
        """
        if len(self.knots) != len(self.heights) or (self.method == "isotonic") != bool(self.knots):
            raise ValueError("an isotonic curve needs a height for each knot")
        rising = all(list(line) == sorted(line) for line in (self.knots, self.heights))
        if self.slope < 0 or not rising:
            raise ValueError("the calibration falls")
        if not _finite(self.slope, self.offset, *self.knots) or any(
            not 0 <= height <= 1 for height in self.heights
        ):
            raise ValueError("a number of the calibration is not finite, or no probability")

    def probability(self, log_odds: Floats) -> Floats:
        """Of each of the log-odds, same shape."""
        if self.method == "isotonic":
            return np.interp(log_odds, self.knots, self.heights)
        odds = np.clip(self.slope * log_odds + self.offset, -500, 500)
        found: Floats = 1 / (1 + np.exp(-odds))
        return found


def _finite(*numbers: float) -> bool:
    return bool(np.isfinite(numbers).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """Probability of relevance for one kind of query and one pass.

    Attributes:
        kind: Of the queries that it was fitted on.
        words: Whether it knows the word search.
        second: Whether it knows the second pass.
        line: Of the features that `columns` names.
        curve: Calibrates it.
        order: `fixed` where the fitted order was not better on queries that it was not fitted on.
        figures: On queries that it was not fitted on.
    """

    kind: QueryKind
    words: bool
    second: bool
    line: Line
    curve: Curve
    order: Order
    figures: Figures

    def __post_init__(self) -> None:
        """Checks that the line fits the features.

        Raises:
            ValueError: It does not.
        """
        count = len(columns(words=self.words, second=self.second))
        if len(self.line.weights) != count:
            raise ValueError(f"a model of {count} features has {len(self.line.weights)} weights")

    @property
    def name(self) -> str:
        """In words, for tables."""
        searched = "with words" if self.words else "by vector"
        return f"{self.kind} queries {searched}, {'second' if self.second else 'first'} pass"

    def log_odds(self, seen: Floats) -> Floats:
        """What candidates are ordered by.

        Args:
            seen: As `features` gives it, shape (candidates, features).

        Returns:
            Shape (candidates,), higher is better; not calibrated.
        """
        mine = [FEATURES.index(name) for name in columns(words=self.words, second=self.second)]
        return self.line.log_odds(seen[:, mine])

    def probability(self, seen: Floats) -> Floats:
        """Calibrated probability of relevance, shape (candidates,); ordered as `log_odds`."""
        return self.curve.probability(self.log_odds(seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedFusion:
    """All that was fitted for one library.

    Attributes:
        models: One a kind of query, with and without words, and a pass.
    """

    models: tuple[FittedModel, ...]

    def model(self, kind: QueryKind, *, words: bool, second: bool) -> FittedModel | None:
        """The model for such a search; None if there is none."""
        wanted = (kind, words, second)
        return next((m for m in self.models if (m.kind, m.words, m.second) == wanted), None)
