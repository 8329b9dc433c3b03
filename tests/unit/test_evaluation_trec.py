"""Judgments and runs in the formats of TREC."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import judgments
from tests.queries import written

ODD = ["a b.jpg", "100%.jpg", "50%20off.jpg", "tab\tname", "new\nline", "全角　空白.jpg", "né.png",
       "bad\udcff.jpg", "nb\xa0sp", "line\u2028sep", "q#1", "\x1c", " x "]  # fmt: skip


def test_what_is_written_is_read_for_any_id(tmp_path: Path) -> None:
    qrels = {id: {other: place - 1 for place, other in enumerate(ODD)} for id in ODD}
    judgments.write_qrels(tmp_path / "qrels", qrels)
    assert judgments.read_qrels(tmp_path / "qrels") == (qrels, [])
    run = {id: {other: 1 / (place + 3) for place, other in enumerate(ODD)} for id in ODD}
    judgments.write_run(tmp_path / "run", run, "my system")
    assert judgments.read_run(tmp_path / "run") == (run, [])
    first = (tmp_path / "run").read_text("utf-8").split("\n")[0].split(" ")
    assert first[:4] == ["a%20b.jpg", "Q0", "a%20b.jpg", "1"]
    assert first[5] == "my%20system"


def test_a_run_is_written_the_best_first(tmp_path: Path) -> None:
    judgments.write_run(tmp_path / "run", {"q": {"a": 0.5, "b": 2, "c": 0.5}}, "x")
    assert (tmp_path / "run").read_text() == "q Q0 b 1 2 x\nq Q0 a 2 0.5 x\nq Q0 c 3 0.5 x\n"


def test_qrels_in_the_ways_people_write_them(tmp_path: Path) -> None:
    text = "\ufeffq1 0 a 1\r\n\r\nq1\t0\tmy photo 50%20.jpg\t2\n q2   0\t b%20c -1 \n"
    qrels, warnings = judgments.read_qrels(written(tmp_path / "qrels", text))
    assert qrels == {"q1": {"a": 1, "my photo 50%20.jpg": 2}, "q2": {"b c": -1}}
    assert warnings == []


def test_same_judgment_twice_is_warned_of(tmp_path: Path) -> None:
    qrels, warnings = judgments.read_qrels(written(tmp_path / "q", "q 0 a 1\nq 0 a 1\nq 0 a 1\n"))
    assert qrels == {"q": {"a": 1}}
    assert warnings == [f"{tmp_path / 'q'}: 2 judged twice, counted once: q a, q a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a 1\nq 0 a 2\n", r"1 judged twice, with different grades: q a \(1 and 2\)"),
        ("q 0 a 1\nq a 1\n", "1 malformed: line 2 has 3 columns"),
        (
            "q 0 my photo.jpg 1\n",
            "line 1 has 5 columns.*separate the columns by tabs, or write %20",
        ),
        ("q 0 a yes\n", "line 1 has the grade 'yes'"),
        ("q 0 a 0.5\n", "line 1 has the grade '0.5'"),
        ("q 0 a 99999999999999999999\n", "line 1 has the grade"),
        ("q 0 a 1001\n", "at most 1000"),
        ("\n", "has no judgments"),
    ],
)
def test_bad_qrels(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judgments.read_qrels(written(tmp_path / "qrels", text))


def test_a_run_as_systems_write_it(tmp_path: Path) -> None:
    text = "q\tQ0\ta\t414\t  1.72\tSTANDARD more junk\nq Q0 b 0 2e0 x and more\n"
    run, warnings = judgments.read_run(written(tmp_path / "run", text))
    assert (run, warnings) == ({"q": {"a": 1.72, "b": 2.0}}, [])


def test_ties_of_a_run_are_warned_of(tmp_path: Path) -> None:
    text = "q Q0 a 1 1 x\nq Q0 b 2 1 x\nr Q0 a 1 1 x\n"
    _, (warning,) = judgments.read_run(written(tmp_path / "run", text))
    assert "1 queries have results with the same score" in warning
    assert warning.endswith(": q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 0.5\n", "line 1 has 5 columns"),
        ("q Q0 a 1 high x\n", "line 1 has the score 'high'"),
        ("q Q0 a 1 nan x\n", "line 1 has the score 'nan'"),
        ("q Q0 my photo.jpg 1 0.5 x\n", "line 1 has the rank 'photo.jpg'"),
        ("q Q0 a 1 2 x\nq Q0 a 2 1 x\n", "1 ranked twice: q a"),
        ("", "has no results"),
    ],
)
def test_bad_runs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judgments.read_run(written(tmp_path / "run", text))
