"""`secondglance judge` as a user runs it, without a library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from secondglance.cli.app import app
from secondglance.errors import InputError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["judge", *map(str, arguments)])


def judgments(path: Path, annotator: str, *grades: int) -> Path:
    rows = [
        {
            "query": "q", "document": f"{n} x.jpg", "mark": "grade", "grade": grade,
            "annotator": annotator, "time": "2024-05-06T05:08:09.000Z", "asked": "a cat",
        }
        for n, grade in enumerate(grades)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_help_shows_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "Example: secondglance judge --library" in " ".join(result.output.split())


def test_combine_writes_qrels_and_says_the_agreement(tmp_path: Path) -> None:
    first = judgments(tmp_path / "a.jsonl", "ann", 0, 3, 2)
    second = judgments(tmp_path / "b.jsonl", "bob", 1, 3)
    out = tmp_path / "all.qrels"
    result = run("--combine", first, second, "--out", out)
    assert result.exit_code == 0
    assert "Krippendorff's alpha (ordinal) 0." in result.output
    assert "over 2 of 3 graded pairs" in result.output
    assert out.read_text() == "q 0 0%20x.jpg 1\nq 0 1%20x.jpg 3\nq 0 2%20x.jpg 2\n"
    assert json.loads((tmp_path / "all.json").read_text())["agreement"]["shared"] == 2


def test_one_annotator_has_no_agreement(tmp_path: Path) -> None:
    first = judgments(tmp_path / "a.jsonl", "ann", 0, 3)
    result = run("--combine", first, "--out", tmp_path / "all.qrels")
    assert result.exit_code == 0
    assert "no alpha: agreement needs two annotators; there is only ann" in result.output
    found = json.loads(run("--combine", first, "--out", tmp_path / "x.qrels", "--json").stdout)
    assert found["agreement"]["alpha"] is None


def test_what_is_missing_is_a_usage_error(tmp_path: Path) -> None:
    for arguments, missing in (
        ((), "--out"),
        (("--out", "x"), "--library"),
        (("--out", "x", "--library", "x"), "--queries"),
        (("--out", "x", "--combine"), "--combine"),
        (("--out", "x", "file"), "FILES"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert missing in result.output


def test_bad_files_and_names_are_errors(tmp_path: Path) -> None:
    empty = judgments(tmp_path / "a.jsonl", "ann")
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"id": "q", "text": "a dog"}\n')
    common = ("--library", tmp_path / "none", "--queries", queries)
    for arguments, problem in (
        (("--combine", empty, "--out", tmp_path / "all.qrels"), "there are no grades"),
        (("--combine", tmp_path / "no.jsonl", "--out", tmp_path / "all.qrels"), "cannot read"),
        ((*common, "--out", empty / "x.qrels"), "cannot write"),
        ((*common, "--out", tmp_path / "o", "--annotator", "a/b"), "annotator name 'a/b'"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, InputError)
        assert problem in str(result.exception)
    with pytest.raises(InputError, match="cannot write"):
        raise run("--combine", judgments(empty, "ann", 1), "--out", tmp_path).exception or OSError
