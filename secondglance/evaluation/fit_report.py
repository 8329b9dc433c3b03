"""What a fit learned, for the page and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secondglance.errors import InputError
from secondglance.evaluation.fusion_model import FittedFusion, FittedModel
from secondglance.evaluation.plots import reliability_svg
from secondglance.evaluation.types import Evaluation

CUT_OFF = 0.5
"""At which `matched` and `false_matches` are counted."""

MODEL_COLUMNS = (
    "model", "kind", "words", "second", "order", "queries", "answered", "candidates", "relevant",
    "recall", "rerank", "fixed", "fitted", "gain", "gain_error",
    "log_loss", "base_log_loss", "brier", "calibration_error", "matched", "false_matches",
)  # fmt: skip
"""Of `fit.csv`; `recall` to `fitted` are nDCG@10."""
BIN_COLUMNS = ("model", "low", "high", "candidates", "probability", "relevant")
"""Of `fit_reliability.csv`."""


def fitted_models(evaluation: Evaluation) -> tuple[FittedModel, ...]:
    """The models that were fitted; none where nothing was.

    Raises:
        InputError: What the evaluation holds is no fit.
    """
    from pydantic import TypeAdapter

    if not evaluation.fit:
        return ()
    try:
        return TypeAdapter(FittedFusion).validate_python(evaluation.fit.get("fusion")).models
    except ValueError as error:
        said = " ".join(str(error).splitlines()[:3])
        raise InputError(f"not a fitted fusion: {said}") from error


def fit_context(evaluation: Evaluation) -> dict[str, Any] | None:
    """What the page shows of a fit; None where nothing was fitted.

    Raises:
        InputError: What the evaluation holds is no fit.
    """
    models = fitted_models(evaluation)
    if not models or evaluation.fit is None:
        return None
    return {
        "models": models,
        "meaning": min_score_meaning(models),
        "queries": evaluation.fit.get("queries"),
        "judgments": evaluation.fit.get("judgments"),
        "plots": [
            {
                "title": f"Said and true: {model.name}",
                "svg": reliability_svg(model.figures.reliability),
                "text": _reliability_text(model),
            }
            for model in models
            if any(part.candidates for part in model.figures.reliability)
        ],
    }


def min_score_meaning(models: Sequence[FittedModel]) -> str:
    """What `--min-score` does from now on, by the model that most searches use.

    That is the one with a second pass, where there is any, that most queries were judged for, and
    of these the one that knows words.

    Args:
        models: At least one.
    """
    model = max(models, key=lambda one: (one.second, one.figures.answered, one.words))
    found = model.figures
    order = (
        ""
        if model.order == "fitted"
        else " The order of results stays as it was, so scores need not fall from one to the next."
    )
    return (
        "A score is now the probability that a result is relevant, and --min-score leaves out what "
        f"is below: with --min-score {CUT_OFF}, {_share(found.matched)} of the "
        f"{found.answered:,} queries that have an answer get one, and "
        f"{_share(found.false_matches)} still would if nothing relevant were there "
        f"({model.name}).{order}"
    )


def model_rows(evaluation: Evaluation) -> list[list[Any]]:
    """Rows of `fit.csv`, one a model, in the order of `MODEL_COLUMNS`; empty: there is no value."""
    rows = []
    for model in fitted_models(evaluation):
        found = model.figures
        orders = [found.ndcg.get(name, "") for name in ("recall", "rerank", "fixed", "fitted")]
        rows.append(
            [
                model.name, model.kind, int(model.words), int(model.second), model.order,
                found.queries, found.answered, found.candidates, found.relevant,
                *orders, found.gain, found.gain_error,
                found.log_loss, found.base_log_loss, found.brier, found.calibration_error,
                found.matched, found.false_matches,
            ]
        )  # fmt: skip
    return rows


def bin_rows(evaluation: Evaluation) -> list[list[Any]]:
    """Rows of `fit_reliability.csv`, one a model and tenth, in the order of `BIN_COLUMNS`."""
    return [
        [model.name, part.low, part.high, part.candidates, part.probability, part.relevant]
        for model in fitted_models(evaluation)
        for part in model.figures.reliability
    ]


def _reliability_text(model: FittedModel) -> str:
    found = model.figures
    unsure = [part for part in found.reliability if part.low >= 0.1 - 1e-9]
    above = sum(part.candidates for part in unsure)
    return (
        f"On the dashed line, what is said is true. {found.candidates:,} candidates, {above:,} of "
        f"them said to be 0.1 or more; calibration error {found.calibration_error:.3f}. Bars count "
        "the candidates of each tenth."
    )


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
