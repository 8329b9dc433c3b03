"""Judgments outlive the program that takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from secondglance.errors import InputError
from secondglance.evaluation.judgment_log import JudgmentLog, check_annotator, read_grades

GRADER = """
import sys
from pathlib import Path
from secondglance.evaluation.judgment_log import JudgmentLog
log = JudgmentLog(Path(sys.argv[1]), annotator="ann")
for number in range(1000):
    log.add(("q", f"{number}.jpg"), "grade", grade=number % 4, asked="a cat")
    print(number, flush=True)
    sys.stdin.readline()
"""


def open_log(path: Path) -> JudgmentLog:
    return JudgmentLog(path, annotator="ann")


def grade(log: JudgmentLog, document: str, value: int) -> None:
    log.add(("q", document), "grade", grade=value, asked="a cat")


def grades(log: JudgmentLog) -> dict[str, int | None]:
    return {document: mark.grade for (_, document), mark in log.marks.items()}


def test_a_kill_loses_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "judgments.ann.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", GRADER, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(6):
            process.stdout.readline()
            process.stdin.write("\n")
            process.stdin.flush()
        process.stdout.readline()
        process.kill()
    log = open_log(path)
    assert grades(log) == {f"{number}.jpg": number % 4 for number in range(7)}
    assert log.warnings == ()
    log.close()


def test_an_unfinished_line_is_dropped_and_told(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = open_log(path)
    grade(log, "a.jpg", 3)
    log.close()
    with path.open("a") as file:
        file.write('{"query": "q", "docu')
    log = open_log(path)
    assert "unfinished" in log.warnings[0]
    grade(log, "b.jpg", 1)
    log.close()
    log = open_log(path)
    assert grades(log) == {"a.jpg": 3, "b.jpg": 1}
    assert log.warnings == ()
    log.close()


def test_a_file_without_last_newline_keeps_its_last_answer(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = open_log(path)
    grade(log, "a.jpg", 3)
    log.close()
    path.write_bytes(path.read_bytes().rstrip())
    log = open_log(path)
    grade(log, "b.jpg", 1)
    log.close()
    log = open_log(path)
    assert grades(log) == {"a.jpg": 3, "b.jpg": 1}
    log.close()


def test_undo_brings_back_what_was_before_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = open_log(path)
    grade(log, "a.jpg", 3)
    grade(log, "b.jpg", 1)
    grade(log, "a.jpg", 0)
    log.close()
    log = open_log(path)
    assert grades(log) == {"a.jpg": 0, "b.jpg": 1}
    for expected in ({"a.jpg": 3, "b.jpg": 1}, {"a.jpg": 3}, {}):
        assert log.undo() is not None
        assert grades(log) == expected
    assert log.undo() is None
    log.close()
    assert len(path.read_text().splitlines()) == 6  # nothing is ever removed


def test_two_programs_cannot_write_to_one_file(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="in use by another judge"):
        open_log(tmp_path / "log.jsonl")
    log.close()
    open_log(tmp_path / "log.jsonl").close()


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.jsonl")
    grade(log, "bad\udcff.jpg", 2)
    grade(log, "狗.jpg", 1)
    log.close()
    log = open_log(tmp_path / "log.jsonl")
    assert grades(log) == {"bad\udcff.jpg": 2, "狗.jpg": 1}
    log.close()


@pytest.mark.parametrize("value", [-1, 4, None])
def test_a_grade_that_does_not_exist_is_refused(tmp_path: Path, value: int | None) -> None:
    log = open_log(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="not one of 0, 1, 2, 3"):
        log.add(("q", "a.jpg"), "grade", grade=value, asked="")
    assert not log.marks
    log.close()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 65, "a\n"])
def test_annotators_that_name_no_file_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        check_annotator(name)


@pytest.mark.parametrize("name", ["ann", "Ann-2", "j.doe_1", "李"])
def test_other_annotators_are_welcome(name: str) -> None:
    assert check_annotator(name) == name


def row(annotator: str, document: str, value: int | None, **more: object) -> str:
    found = {
        "query": "q", "document": document, "mark": "grade", "grade": value,
        "annotator": annotator, "time": "2024-05-06T05:08:09.000Z", "asked": "a cat",
    }  # fmt: skip
    return json.dumps({**found, **more})


def test_grades_of_several_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(
        "\n".join(
            [
                row("ann", "1", 3),
                row("ann", "2", 1),
                row("ann", "2", None, mark="undo"),
                row("ann", "3", None, mark="broken"),
                row("bob", "1", 2),
            ]
        )
    )
    second.write_text(row("ann", "1", 0, time="2024-05-07T00:00:00.000Z", asked="a dog") + "\n")
    grades, warnings = read_grades([second, first])
    assert grades == {"ann": {("q", "1"): 0}, "bob": {("q", "1"): 2}}
    assert len(warnings) == 1
    assert "1 query ids do not ask the same everywhere (q)" in warnings[0]


@pytest.mark.parametrize(
    "line",
    ["no json", "[]", row("ann", "1", 4), row("ann", "1", None), row("ann", "1", 1, mark="maybe")],
)
def test_lines_that_are_no_judgments_are_counted_and_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{row('ann', '1', 3)}\n{line}\n{row('ann', '2', 3)}\n")
    with pytest.raises(InputError, match=r"1 lines are no judgments \(line 2\)"):
        read_grades([path])
