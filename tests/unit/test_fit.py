"""Fusion and cut-off fitted to judgments: calibration, held-out figures, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from secondglance.errors import InputError
from secondglance.evaluation import fit as fitting
from secondglance.evaluation.fit import fit_fusion
from secondglance.evaluation.fit_figures import reliability
from secondglance.evaluation.fusion_model import FEATURES, FittedFusion, columns, features
from secondglance.evaluation.signals import Signals
from secondglance.evaluation.types import QueryKind
from secondglance.retrieve.fusion import fuse

CANDIDATES = 30
JSON = TypeAdapter(FittedFusion)


def today(recall: Sequence[float], rerank: Sequence[float | None]) -> list[float]:
    return fuse(recall, rerank, rerank_weight=0.8)


def sigmoid(x: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 / (1 + np.exp(-x))
    return found


def made(
    queries: int, *, seed: int = 0, noise: bool = False, second: bool = True
) -> tuple[dict[str, Signals], dict[str, dict[str, int]], dict[str, np.ndarray]]:
    """Signals whose probability of relevance is known: by cosine and the second pass's odds."""
    rng = np.random.default_rng(seed)
    signals, qrels, truth = {}, {}, {}
    for number in range(queries):
        cosine = np.sort(rng.normal(0.2, 0.05, CANDIDATES))[::-1]
        odds = rng.normal(0, 2, CANDIDATES)
        true = sigmoid(20 * (cosine - 0.2) + 1.5 * odds - 4)
        if noise:
            true = np.full(CANDIDATES, 0.1)
        relevant = rng.random(CANDIDATES) < true
        query, documents = f"q{number}", [f"d{number}-{i}" for i in range(CANDIDATES)]
        ranks = tuple(range(1, CANDIDATES + 1))
        nothing = (None,) * CANDIDATES
        signals[query] = Signals(
            documents=tuple(documents),
            cosine=tuple(cosine.tolist()),
            recall_rank=ranks,
            lexical_score=nothing,
            fused=tuple(cosine.tolist()),
            fused_rank=ranks,
            rerank_score=tuple(sigmoid(odds).tolist()) if second else nothing,
        )
        qrels[query] = {d: int(r) for d, r in zip(documents, relevant, strict=True)}
        truth[query] = true
    return signals, qrels, truth


@pytest.fixture(scope="module")
def fitted() -> FittedFusion:
    signals, qrels, _ = made(250)
    return fit_fusion(signals, qrels, fixed=today, depth=100)[0]


def seen_of(signals: Signals) -> np.ndarray:
    return features(signals.cosine, signals.lexical_score, signals.rerank_score)


def test_known_probabilities_are_found_again(fitted: FittedFusion) -> None:
    model = fitted.model("text", words=False, second=True)
    assert model is not None
    assert model.curve.method == "isotonic"
    assert model.figures.calibration_error < 0.015
    assert model.figures.log_loss < 0.65 * model.figures.base_log_loss
    new, _, truth = made(50, seed=1)
    errors = [model.probability(seen_of(new[q])) - truth[q] for q in new]
    assert np.abs(np.concatenate(errors)).mean() < 0.025


def test_the_fitted_order_wins_where_it_is_better(fitted: FittedFusion) -> None:
    model = fitted.model("text", words=False, second=True)
    assert model is not None
    ndcg = model.figures.ndcg
    assert model.order == "fitted"
    assert ndcg["fitted"] > ndcg["fixed"] > ndcg["recall"]
    assert model.figures.gain == pytest.approx(ndcg["fitted"] - ndcg["fixed"])
    assert set(ndcg) == {"recall", "rerank", "fixed", "fitted"}


def test_taking_the_answers_away_leaves_fewer_matches(fitted: FittedFusion) -> None:
    model = fitted.model("text", words=False, second=True)
    assert model is not None
    assert model.figures.false_matches < model.figures.matched


def test_the_first_pass_has_its_own_model(fitted: FittedFusion) -> None:
    first = fitted.model("text", words=True, second=False)
    assert first is not None
    assert "rerank" not in columns(words=True, second=False)
    assert len(first.line.weights) == 5
    # Recall's order by itself cannot be improved on here: all it sees is the cosine.
    assert first.order == "fixed"
    assert set(first.figures.ndcg) == {"recall", "fixed", "fitted"}
    assert first.figures.ndcg["recall"] == first.figures.ndcg["fixed"]


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_random_labels_give_no_gain(seed: int) -> None:
    signals, qrels, _ = made(60, seed=seed, noise=True)
    fusion, _ = fit_fusion(signals, qrels, fixed=today, depth=100)
    for model in fusion.models:
        assert model.figures.log_loss > 0.99 * model.figures.base_log_loss
        assert abs(model.figures.gain) < 3 * model.figures.gain_error + 1e-9


def test_a_memorised_query_does_not_help_when_it_is_held_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line that is applied to a query never saw any of its candidates."""
    signals, qrels, _ = made(40)
    trained: list[set[float]] = []
    applied: list[tuple[set[float], set[float]]] = []
    line = fitting._line

    def spied(seen: np.ndarray, relevant: np.ndarray) -> object:
        known = set(seen[:, 0].tolist())
        trained.append(known)
        found = line(seen, relevant)

        class Spy:
            mean, scale = found.mean, found.scale
            weights, intercept = found.weights, found.intercept

            def log_odds(self, rows: np.ndarray) -> np.ndarray:
                applied.append((known, set(rows[:, 0].tolist())))
                return found.log_odds(rows)

        return Spy() if len(seen) < CANDIDATES * 40 else found

    monkeypatch.setattr(fitting, "_line", spied)
    fit_fusion(signals, qrels, fixed=today, depth=100)
    assert len(applied) >= 4 * fitting.FOLDS * (fitting.INNER_FOLDS + 2)
    for known, rows in applied:
        assert not known & rows


def test_scores_equal_those_of_scikit_learn(fitted: FittedFusion) -> None:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    signals, qrels, _ = made(250)
    mine = [FEATURES.index(name) for name in columns(words=False, second=True)]
    rows = np.concatenate([seen_of(s)[:, mine] for s in signals.values()])
    labels = np.array([qrels[q][d] > 0 for q in signals for d in signals[q].documents])
    groups = np.repeat(np.arange(250), CANDIDATES)
    whole = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    held_out = cross_val_predict(
        whole, rows, labels, groups=groups, cv=StratifiedGroupKFold(5), method="decision_function"
    )
    least = 1 / (len(labels) + 2)
    curve = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    curve.fit(held_out, labels)
    model = fitted.model("text", words=False, second=True)
    assert model is not None
    new = np.concatenate([seen_of(s) for s in made(20, seed=7)[0].values()])
    odds = whole.fit(rows, labels).decision_function(new[:, mine])
    assert model.log_odds(new) == pytest.approx(odds, abs=1e-9)
    assert model.probability(new) == pytest.approx(curve.predict(odds), abs=1e-9)


def test_few_relevant_candidates_are_calibrated_by_a_line() -> None:
    from sklearn.linear_model import LogisticRegression

    signals, qrels, _ = made(40)
    fusion, _ = fit_fusion(signals, qrels, fixed=today, depth=100)
    model = fusion.model("text", words=False, second=True)
    assert model is not None
    assert model.curve.method == "platt"
    line = LogisticRegression()
    line.coef_, line.intercept_ = np.array([[model.curve.slope]]), np.array([model.curve.offset])
    line.classes_ = np.array([0, 1])
    odds = np.linspace(-20, 20, 41)
    said = model.curve.probability(odds)
    assert said == pytest.approx(line.predict_proba(odds[:, None])[:, 1], abs=1e-9)
    assert (np.diff(said) >= 0).all()


def test_a_fit_survives_json_bit_by_bit(fitted: FittedFusion) -> None:
    again = JSON.validate_json(JSON.dump_json(fitted))
    assert again == fitted


@pytest.mark.parametrize("what", ["weights", "height", "feature", "order", "nothing"])
def test_a_damaged_fit_is_refused(fitted: FittedFusion, what: str) -> None:
    found = JSON.dump_python(fitted, mode="json")
    model = next(m for m in found["models"] if m["curve"]["method"] == "isotonic")
    if what == "weights":
        model["line"]["weights"].pop()
    elif what == "height":
        model["curve"]["heights"][0] = 2.0
    elif what == "feature":
        model["words"] = not model["words"]
    elif what == "order":
        model["order"] = "best"
    with pytest.raises(ValidationError):
        JSON.validate_python([] if what == "nothing" else found)


def test_too_few_judgments_are_refused_with_their_number() -> None:
    signals, qrels, _ = made(19)
    with pytest.raises(InputError, match=r"second pass: 1\d judged.* at least 20 are needed"):
        fit_fusion(signals, qrels, fixed=today, depth=100)


def test_no_overlap_names_both_sides() -> None:
    signals, _, _ = made(30)
    with pytest.raises(InputError, match=r"none of the 30 queries .* name other;.* are q0, q1"):
        fit_fusion(signals, {"other": {"d": 1}}, fixed=today, depth=100)


def test_without_a_second_pass_only_the_first_is_fitted() -> None:
    signals, qrels, _ = made(120, second=False)
    fusion, warnings = fit_fusion(signals, qrels, fixed=today, depth=100)
    assert {model.second for model in fusion.models} == {False}
    assert any("searches without it" in warning for warning in warnings)


def test_each_kind_of_query_is_fitted_apart_and_a_rare_one_is_named() -> None:
    signals, qrels, _ = made(60)
    kinds: dict[str, QueryKind] = dict.fromkeys(list(signals)[:5], "image")
    fusion, warnings = fit_fusion(signals, qrels, fixed=today, depth=100, kinds=kinds)
    assert {model.kind for model in fusion.models} == {"text"}
    assert max(model.figures.queries for model in fusion.models) == 55
    assert any("not fitted" in warning and "image first pass: 5" in warning for warning in warnings)


def test_a_fit_that_does_not_help_keeps_the_order_and_says_so() -> None:
    signals, qrels, _ = made(60, noise=True)
    fusion, warnings = fit_fusion(signals, qrels, fixed=today, depth=100)
    kept = [model for model in fusion.models if model.order == "fixed"]
    assert len(kept) >= 3
    assert sum("the order stays" in warning for warning in warnings) == len(kept)


def test_what_nobody_judged_counts_as_not_relevant() -> None:
    signals, qrels, _ = made(60)
    only = {q: {d: g for d, g in judged.items() if g > 0} for q, judged in qrels.items()}
    assert (
        fit_fusion(signals, only, fixed=today, depth=100)[0]
        == fit_fusion(signals, qrels, fixed=today, depth=100)[0]
    )


def test_only_what_a_search_takes_is_fitted() -> None:
    signals, qrels, _ = made(60)
    fusion, _ = fit_fusion(signals, qrels, fixed=today, depth=12)
    assert {model.figures.candidates for model in fusion.models} == {60 * 12}


def test_the_reliability_table_counts_what_was_said() -> None:
    said = np.array([0.05, 0.05, 0.55, 1.0])
    table = reliability(said, np.array([False, True, True, True]))
    assert [row.candidates for row in table] == [2, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert table[0].probability == pytest.approx(0.05)
    assert table[0].relevant == 0.5
    assert table[9].relevant == table[9].probability == 1.0


def test_features_grow_with_what_speaks_for_a_candidate() -> None:
    seen = features([0.3, 0.2], [None, 4.0], [1.0, None])
    by_name = dict(zip(FEATURES, seen.T.tolist(), strict=True))
    assert by_name["below_best"] == pytest.approx([0.0, -0.1])
    assert by_name["rank"] == pytest.approx([0.0, -np.log(2)])
    assert by_name["words"] == pytest.approx([0.0, np.log(5)])
    assert by_name["words_share"] == [0.0, 1.0]
    assert by_name["rerank"][1] == 0.0
    assert by_name["rerank"][0] == pytest.approx(np.log(999_999), rel=1e-6)
