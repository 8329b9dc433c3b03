"""What the page, its tables and its plots say of a fit."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from secondglance.errors import InputError
from secondglance.evaluation.fit_report import fit_context, min_score_meaning
from secondglance.evaluation.fusion_model import (
    Curve,
    Figures,
    FittedFusion,
    FittedModel,
    Line,
    Order,
    ReliabilityBin,
    columns,
)
from secondglance.evaluation.plots import reliability_svg
from secondglance.evaluation.report import load, render, write_report
from secondglance.evaluation.types import Evaluation, QueryKind
from tests.browser import PHONE, sideways
from tests.evaluations import made_up
from tests.unit.test_evaluation_report import Page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SAID = {0: (900, 0.013, 0.01), 4: (12_345, 0.45, 0.5), 9: (40, 0.97, 0.925)}
"""By tenth: candidates, mean of what was said, share that is relevant."""


def bins(said: Mapping[int, tuple[int, float, float]] = SAID) -> tuple[ReliabilityBin, ...]:
    made = []
    for tenth in range(10):
        count, probability, relevant = said.get(tenth, (0, 0.0, 0.0))
        made.append(
            ReliabilityBin(
                low=tenth / 10,
                high=(tenth + 1) / 10,
                candidates=count,
                probability=probability,
                relevant=relevant,
            )
        )
    return tuple(made)


def model(
    kind: QueryKind = "text",
    *,
    words: bool = True,
    second: bool = True,
    order: Order = "fitted",
    answered: int = 31,
    **changes: Any,
) -> FittedModel:
    count = len(columns(words=words, second=second))
    ndcg = {"recall": 0.611, "fixed": 0.722, "fitted": 0.777} | (
        {"rerank": 0.701} if second else {}
    )
    figures = Figures(
        queries=34, answered=answered, candidates=13_285, relevant=6_219,
        log_loss=0.1234, base_log_loss=0.2345, brier=0.0456, calibration_error=0.0067,
        reliability=bins(), ndcg=ndcg, gain=0.055, gain_error=0.021,
        matched=0.87, false_matches=0.12,
    )  # fmt: skip
    return FittedModel(
        kind=kind, words=words, second=second, order=order,
        line=Line(mean=(0.0,) * count, scale=(1.0,) * count, weights=(1.0,) * count, intercept=0.0),
        curve=Curve(method="platt"), figures=dataclasses.replace(figures, **changes),
    )  # fmt: skip


def with_fit(*models: FittedModel) -> Evaluation:
    """As `evaluate --fit` puts it together."""
    fusion = TypeAdapter(FittedFusion).dump_python(FittedFusion(models=models), mode="json")
    fit = {
        "lines": ["one"], "path": "/l/fusion.json", "warnings": [], "queries": 1234,
        "judgments": 5678, "fusion": fusion,
    }  # fmt: skip
    return dataclasses.replace(made_up(6, curves=False), fit=fit)


def said(evaluation: Evaluation) -> str:
    parsed = Page(render(evaluation))
    assert not parsed.open
    return " ".join(parsed.text.split())


def test_each_model_has_a_row_with_its_figures() -> None:
    text = said(with_fit(model(), model("image", words=False, second=False, order="fixed")))
    assert (
        "text queries with words, second pass orders results and cuts off 34 31 answered "
        "0.611 0.701 0.722 0.777 +0.055 ± 0.021 0.1234 base 0.2345 0.0456 0.0067 87 % false: 12 %"
    ) in text
    assert (
        "image queries by vector, first pass cuts off; the order stays as it was 34 31 answered "
        "0.611 - 0.722 0.777"
    ) in text
    assert "Fitted to 1,234 judged queries and 5,678 judgments" in text
    assert "0.4 to 0.5 12,345 0.450 0.500 0.5 to 0.6 0 - -" in text
    assert "What was learned" in text
    assert "fit.csv, fit_reliability.csv" in text
    assert "13,285 candidates, 12,385 of them said to be 0.1 or more" in text


def test_without_a_fit_there_is_no_section() -> None:
    nothing: tuple[dict[str, Any] | None, ...] = (None, {})
    for fit in nothing:
        evaluation = dataclasses.replace(made_up(3, curves=False), fit=fit)
        assert fit_context(evaluation) is None
        text = said(evaluation)
        assert "What was learned" not in text
        assert "fit.csv" not in text


def test_what_is_no_fit_is_an_error() -> None:
    evaluation = dataclasses.replace(made_up(3), fit={"fusion": {"models": [{"kind": "text"}]}})
    with pytest.raises(InputError, match="not a fitted fusion"):
        render(evaluation)


def test_min_score_is_told_by_the_model_that_most_searches_use() -> None:
    models = [
        model(words=False, second=False, answered=90, matched=0.1),
        model("image", words=False, answered=20, matched=0.2),
        model(words=False, answered=31, matched=0.3),
        model(words=True, answered=31, matched=0.4, false_matches=0.055),
    ]
    told = min_score_meaning(models)
    assert told == (
        "A score is now the probability that a result is relevant, and --min-score leaves out what "
        "is below: with --min-score 0.5, 40 % of the 31 queries that have an answer get one, and "
        "6 % still would if nothing relevant were there (text queries with words, second pass)."
    )
    only_first = min_score_meaning([models[0]])
    assert "10 % of the 90 queries" in only_first
    assert "(text queries by vector, first pass)" in only_first
    kept = min_score_meaning([model(order="fixed")])
    assert kept.endswith(" The order of results stays as it was, so scores need not fall from "
                         "one to the next.")  # fmt: skip
    assert told in said(with_fit(*models))


def test_only_first_passes_were_fitted() -> None:
    text = said(with_fit(model(second=False)))
    assert "text queries with words, first pass" in text
    assert "second pass)" not in text


def test_the_diagram_shows_what_was_said_and_how_often() -> None:
    svg = reliability_svg(bins())
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert {"900", "12k", "40"} <= set(texts)
    assert {"share relevant", "probability that was said", "candidates"} <= set(texts)
    assert "var(--s1)" in svg
    # Three tenths have candidates: three markers, and a line whose points are at these places.
    assert len(re.findall(r"<use [^>]*fill: var\(--s1\)", svg)) == 3
    [line] = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--s1\)[^>]*stroke-width: 2', svg)
    points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", line)]
    [dashed] = re.findall(r'<path d="([^"]*)"[^>]*stroke-dasharray', svg)
    (left, bottom), (right, top) = (
        tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", dashed)
    )
    at = [((x - left) / (right - left), (y - bottom) / (top - bottom)) for x, y in points]
    for found, (_, probability, relevant) in zip(at, SAID.values(), strict=True):
        assert found == pytest.approx((probability, relevant), abs=1e-3)


def test_a_diagram_without_candidates_is_left_out() -> None:
    context = fit_context(with_fit(model(), model("image", reliability=bins({}))))
    assert context is not None
    assert [plot["title"] for plot in context["plots"]] == [
        "Said and true: text queries with words, second pass"
    ]
    assert reliability_svg(bins({})).startswith("<svg")


def test_the_tables_hold_the_same_and_go_with_the_fit(tmp_path: Path) -> None:
    evaluation = with_fit(model(), model(second=False))
    written = [path.name for path in write_report(evaluation, tmp_path)]
    assert written[4:7] == ["per_query.csv", "fit.csv", "fit_reliability.csv"]
    with (tmp_path / "fit.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["model"] == "text queries with words, second pass"
    assert (first["recall"], first["rerank"], first["fixed"], first["fitted"]) == (
        "0.611", "0.701", "0.722", "0.777",
    )  # fmt: skip
    assert (first["gain"], first["gain_error"], first["brier"]) == ("0.055", "0.021", "0.0456")
    assert (first["matched"], first["false_matches"], first["order"]) == ("0.87", "0.12", "fitted")
    assert (second["second"], second["rerank"]) == ("0", "")
    with (tmp_path / "fit_reliability.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    assert (rows[4]["low"], rows[4]["candidates"], rows[4]["relevant"]) == ("0.4", "12345", "0.5")
    assert load(tmp_path / "evaluation.json") == evaluation
    write_report(dataclasses.replace(evaluation, fit=None), tmp_path)
    assert not (tmp_path / "fit.csv").exists()
    assert not (tmp_path / "fit_reliability.csv").exists()


def test_the_page_in_a_browser_fits_a_phone_and_turns_dark(
    browser: Browser, tmp_path: Path
) -> None:
    long = "/models/" + "an_unbroken_name" * 12
    evaluation = made_up(4, systems=("clip", "rerank", f"rerank@{long}"))
    evaluation = dataclasses.replace(
        evaluation, library=long, warnings=(long,), fit=with_fit(model()).fit
    )
    report = tmp_path / "report.html"
    report.write_text(render(evaluation), "utf-8")
    colours = []
    for scheme in ("light", "dark"):
        page = browser.new_page(
            viewport={"width": PHONE, "height": 844},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page.goto(report.as_uri())
        for part in page.locator("details").all():
            part.evaluate("part => { part.open = true }")
        assert sideways(page) == 0
        assert page.locator("#fit svg").count() == 1
        colours.append(
            page.locator("#fit svg text").last.evaluate("one => getComputedStyle(one).fill")
        )
        page.close()
    assert colours == ["rgb(29, 29, 31)", "rgb(236, 236, 238)"]
