"""An evaluation as JSON, CSV, TREC runs, a sentence and a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from secondglance.errors import InputError
from secondglance.evaluation.report import load, write_report
from secondglance.evaluation.saved import save
from secondglance.evaluation.tables import (
    compared_system,
    headline,
    main_measure,
    milliseconds,
    signed,
    summary_table,
)
from secondglance.evaluation.types import Difference, Evaluation, Interval, Ranked, Summary
from secondglance.types import Query
from tests.evaluations import made_up
from tests.media import write_pictures


def test_json_reads_back_equal(tmp_path: Path) -> None:
    evaluation = made_up(9, files=write_pictures(tmp_path / "p", 5), texts={"q0": '一只"猫"\n'})
    [first, second, *_] = evaluation.queries
    queries = dict(evaluation.queries)
    queries[first] = dataclasses.replace(
        queries[first], query=Query(text="NaN", image="as/text.jpg", video=Path("as/path.mp4"))
    )
    runs = list(evaluation.systems)
    odd = Ranked(document="x", rank=1, score=-math.inf, rerank_score=math.inf)
    runs[0] = dataclasses.replace(runs[0], rankings={second: (odd,)})
    evaluation = dataclasses.replace(
        evaluation,
        queries=queries,
        systems=tuple(runs),
        settings={"a": 1, "b": 1.0, "c": True, "d": None, "e": "1", "f": "true", "g": "NaN"},
    )
    path = tmp_path / "evaluation.json"
    save(evaluation, path)
    again = load(path)
    assert again == evaluation
    assert [type(v) for v in again.settings.values()] == [
        type(v) for v in evaluation.settings.values()
    ]
    assert isinstance(again.queries[first].query.image, str)
    assert isinstance(again.queries[first].query.video, Path)
    json.loads(path.read_text("utf-8"), parse_constant=pytest.fail)  # no NaN, no Infinity


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "is no saved evaluation"),
        ('{"format": 99}', "another version"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 1, "paths": [], "evaluation": {"library": "x"}}', r"is damaged at .*created"),
        ('{"format": 1, "paths": [["q", "image"]], "evaluation": {"queries": {}}}', "is damaged"),
        ('{"format": 1, "paths": 7, "evaluation": {}}', "is damaged"),
    ],
)
def test_what_is_no_saved_evaluation(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(InputError, match=message):
        load(path)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_every_number(tmp_path: Path) -> None:
    evaluation = made_up(5, texts={"q0": 'with "quotes", commas\nand lines'})
    written = write_report(evaluation, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "report.html", "evaluation.json", "summary.csv", "differences.csv", "per_query.csv",
        "runs/bm25.trec", "runs/clip.trec", "runs/clip+bm25.trec", "runs/rerank.trec",
        "runs/fusion.trec",
    ]  # fmt: skip
    assert load(written[1]) == evaluation
    summary = rows(written[2])
    assert list(summary[0]) == ["system", "measure", "group", "queries", "mean", "low", "high"]
    assert [(r["system"], r["measure"], r["group"], float(r["low"])) for r in summary] == [
        (s.system, s.measure, s.group, s.value.low) for s in evaluation.summaries
    ]
    difference = rows(written[3])
    assert list(difference[0]) == [
        "system", "baseline", "measure", "group", "queries", "mean", "low", "high", "p_value",
        "p_adjusted", "wins", "losses",
    ]  # fmt: skip
    assert [(float(r["mean"]), float(r["p_adjusted"]), int(r["losses"])) for r in difference] == [
        (d.value.mean, d.p_adjusted, d.losses) for d in evaluation.differences
    ]
    query = rows(written[4])
    assert list(query[0]) == [
        "query", "text", "kind", "language", "length", "relevant", "system", *evaluation.measures
    ]  # fmt: skip
    assert len(query) == 5 * 5
    assert query[0]["text"] == 'with "quotes", commas\nand lines'
    assert all(float(r["MRR"]) == evaluation.values[r["system"]]["MRR"][r["query"]] for r in query)


def test_runs_have_six_columns_and_names_that_are_files(tmp_path: Path) -> None:
    evaluation = made_up(2, systems=("clip", "rerank@Qwen/Qwen3 2B", "Clip"), results=3)
    spaced = Ranked(document="my photo\t100%.jpg", rank=1, score=0.1 + 0.2)
    runs = list(evaluation.systems)
    runs[0] = dataclasses.replace(runs[0], rankings={"q 1": (spaced,)})
    written = write_report(dataclasses.replace(evaluation, systems=tuple(runs)), tmp_path)
    names = [path.name for path in written[5:]]
    assert names == ["clip.trec", "rerank@Qwen%2FQwen3%202B.trec", "Clip_.trec"]
    first = written[5].read_text("utf-8")
    assert first == "q%201 Q0 my%20photo%09100%25.jpg 1 0.30000000000000004 clip\n"
    lines = written[6].read_text("utf-8").splitlines()
    assert len(lines) == 6
    assert lines[0].split() == [
        "q0", "Q0", runs[1].rankings["q0"][0].document, "1", "1.0", "rerank@Qwen/Qwen3%202B"
    ]  # fmt: skip


def finding(
    before: float,
    after: float,
    low: float,
    high: float,
    *,
    p: float = 0.001,
    queries: int = 200,
    wins: int = 80,
    losses: int = 23,
    name: str = "fusion",
) -> Evaluation:
    plain = made_up(1, systems=("clip", name))
    [query] = plain.queries.values()
    return dataclasses.replace(
        plain,
        queries={f"q{n}": query for n in range(queries)},
        summaries=tuple(
            Summary(
                system=system,
                measure="nDCG@10",
                group="all",
                queries=queries,
                value=Interval(mean=mean, low=mean - 0.05, high=mean + 0.05),
            )
            for system, mean in (("clip", before), (name, after))
        ),
        differences=(
            Difference(
                system=name,
                baseline="clip",
                measure="nDCG@10",
                group="all",
                queries=queries,
                value=Interval(mean=after - before, low=low, high=high),
                p_value=p,
                p_adjusted=p,
                wins=wins,
                losses=losses,
            ),
        ),
    )


def test_headline_of_a_gain() -> None:
    assert headline(finding(0.41, 0.58, 0.12, 0.22)) == (
        "On 200 queries, the second pass (fusion) raises nDCG@10 from 0.41 (clip) to 0.58 "
        "(+0.17, 95 % interval 0.12 to 0.22); it takes 860 ms a query (median) instead of 18 ms. "
        "It helps 80 and hurts 23 queries."
    )


def test_headline_of_a_loss() -> None:
    text = headline(finding(0.58, 0.41, -0.22, -0.12, wins=0, losses=1))
    assert "the second pass (fusion) lowers nDCG@10 from 0.58 (clip) to 0.41 (-0.17" in text
    assert "It helps 0 and hurts 1 query." in text


def test_headline_without_a_clear_difference() -> None:
    text = headline(finding(0.41, 0.43, -0.03, 0.07, p=0.4))
    assert "the second pass (fusion) makes no clear difference: nDCG@10 is 0.41 with clip" in text
    assert "raises" not in text
    assert headline(finding(0.41, 0.41, 0.0, 0.0, wins=0, losses=0)).endswith(
        "It changes no query."
    )


def test_headline_where_test_and_interval_disagree() -> None:
    text = headline(finding(0.41, 0.46, 0.01, 0.09, p=0.07, losses=0))
    assert "raises" in text
    assert "does not rule out chance (p 0.07)" in text
    assert "It helps 80 queries and hurts none." in text


def test_headline_of_one_query_claims_nothing() -> None:
    text = headline(finding(0.4, 0.6, 0.2, 0.2, queries=1))
    assert text.startswith("On 1 query, nDCG@10 is 0.40 with clip and 0.60 with fusion")
    assert "One query is too few to tell." in text
    assert "raises" not in text


def test_headline_names_small_differences_with_more_digits() -> None:
    assert "from 0.410 (clip) to 0.414 (+0.004, 95 % interval 0.001 to 0.007)" in headline(
        finding(0.41, 0.414, 0.001, 0.007)
    )


def test_headline_says_where_the_second_pass_is_not_the_best() -> None:
    evaluation = made_up(30, shift=-0.3)
    assert compared_system(evaluation) in ("rerank", "fusion")
    assert "Without a second pass, " in headline(evaluation)
    assert "Without a second pass, " not in headline(made_up(30, shift=0.4))


def test_headline_of_one_system_and_of_nothing() -> None:
    assert headline(made_up(4, systems=("clip",))).startswith("On 4 queries, clip has nDCG@10 0.")
    nothing = dataclasses.replace(made_up(1), queries={})
    assert headline(nothing) == "No query was evaluated, so there is nothing to compare."
    assert "by words" not in headline(made_up(4, systems=("clip", "bm25")))
    assert compared_system(made_up(4, systems=("clip", "bm25"))) == "bm25"
    assert main_measure(dataclasses.replace(made_up(1), measures=("MRR", "AP"))) == "MRR"


def printed(evaluation: Evaluation, *, width: int = 120, **options: tuple[str, ...]) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    table = summary_table(evaluation, **options)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_narrow_terminal_still_names_the_systems() -> None:
    names = ("clip", "replay:reranker.trec", "replay:embedding.trec")
    text = printed(made_up(30, systems=names), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for name in names:
        assert name in text


def test_the_terminal_table() -> None:
    evaluation = made_up(30)
    text = printed(evaluation)
    assert max(map(len, text.splitlines())) <= 120
    for run in evaluation.systems:
        assert run.name in text
    for summary in evaluation.summaries:
        if summary.group == "all":
            assert f"{summary.value.mean:.3f}" in text
    assert text.count(")*") == 2 * 4
    assert printed(made_up(30, p=0.2)).count(")*") == 0
    assert "nDCG@10" not in printed(evaluation, measures=("MRR",))
    with pytest.raises(InputError, match=r"not evaluated: P@7 \(choose of nDCG@10"):
        summary_table(evaluation, measures=("P@7",))


def test_the_best_of_each_measure_is_bold() -> None:
    evaluation = made_up(30)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    console.print(summary_table(evaluation, measures=("nDCG@10",)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    best = max(
        s.value.mean for s in evaluation.summaries if (s.measure, s.group) == ("nDCG@10", "all")
    )
    assert f"\x1b[1m{best:.3f}" in text


def test_words_for_numbers() -> None:
    assert [signed(x) for x in (0.1, -0.1, 0.0, -0.0001, math.nan)] == [
        "+0.100", "-0.100", "0.000", "0.000", "n/a"
    ]  # fmt: skip
    assert [milliseconds(x) for x in (0.44, 12.3, 999.7, 1340)] == [
        "0.4 ms", "12 ms", "1.0 s", "1.3 s"
    ]  # fmt: skip


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    evaluation = made_up(1, systems=("clip", "rerank"))
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    odd = Ranked(document=name, rank=1, score=0.5, path=f"/photos/{name}")
    runs = tuple(dataclasses.replace(run, rankings={"q0": (odd,)}) for run in evaluation.systems)
    written = write_report(dataclasses.replace(evaluation, systems=runs), tmp_path)
    assert "caf?.jpg" in written[0].read_text("utf-8")
    assert load(written[1]).systems[0].rankings["q0"][0].document == "caf?.jpg"
    assert written[5].read_text("utf-8") == "q0 Q0 caf%E9.jpg 1 0.5 clip\n"
