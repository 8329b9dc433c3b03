"""What annotators said, one JSON line a key press, on disk before the next candidate is shown.

    {"query": "q1", "document": "a.jpg", "mark": "grade", "grade": 2, "annotator": "ann",
     "asked": "two dogs", "time": "2024-05-06T05:08:09.123Z"}

`mark` is `grade`, `broken` (cannot be judged), `skip`, or `undo`, which takes back the last line
that is not taken back yet. The last mark of a document counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from secondglance.errors import InputError
from secondglance.evaluation.agreement import Unit
from secondglance.evaluation.trec import named

Mark: TypeAlias = Literal["grade", "broken", "skip", "undo"]
Grade: TypeAlias = Literal[0, 1, 2, 3]
GRADES: Mapping[int, str] = {0: "Not relevant", 1: "Somewhat", 2: "Relevant", 3: "Exactly"}
"""What each grade means, for the annotator."""

_NAME = re.compile(r"\w[\w.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """One line of the file; `grade` is None but for `mark="grade"`; `asked` is the query."""

    query: str
    document: str
    mark: Mark
    grade: int | None
    annotator: str
    time: str
    asked: str = ""

    @property
    def unit(self) -> Unit:
        """What was judged."""
        return self.query, self.document


def check_annotator(name: str) -> str:
    """The name, if a file can be named after it.

    Raises:
        InputError: It is empty, too long or holds other characters.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"the annotator name {name!r} cannot be used",
            remedy="use 1 to 64 letters, digits, dots, dashes and underscores, not first a dot",
        )
    return name


class JudgmentLog:
    """The judgments of one annotator, open for more. Only one process may have it open.

    A line that a killed process did not finish is dropped; nothing before it is lost.

    Attributes:
        path: The file.
        annotator: Whose they are.
        warnings: For the user.

    Raises:
        InputError: The file cannot be written, is in use, or holds lines that are no judgments.
    """

    def __init__(self, path: Path, *, annotator: str) -> None:
        self.path = path
        self.annotator = check_annotator(annotator)
        self.warnings: tuple[str, ...] = ()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}",
                remedy="name another folder with --out, on a disk with room",
            ) from error
        try:
            self._lock()
            self._file.seek(0)
            rows, torn = _read(self._file.read(), path)
            if torn is not None:
                self.warnings = (f"{path}: an unfinished line at its end was dropped",)
                self._file.truncate(torn)
        except BaseException:
            self._file.close()
            raise
        self._replay = _Replay()
        for row in rows:
            self._replay.apply(row)

    @property
    def marks(self) -> Mapping[Unit, Judgment]:
        """The mark that counts, by (query, document)."""
        return self._replay.marks

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{self.path} is in use by another judge",
                remedy="end that one, or judge under another name with --annotator",
            ) from None
        except OSError:
            pass  # a file system without locks

    def add(
        self, unit: Unit, mark: Literal["grade", "broken", "skip"], *, grade: int | None, asked: str
    ) -> Judgment:
        """Writes one mark to disk.

        Raises:
            InputError: The grade does not fit the mark, or the disk takes no more.
        """
        if (grade is None) == (mark == "grade") or (grade is not None and grade not in GRADES):
            raise InputError(f"grade {grade!r} is not one of {', '.join(map(str, GRADES))}")
        return self._write(_judgment(unit, mark, grade, self.annotator, asked))

    def undo(self) -> Judgment | None:
        """Takes back the last mark, also of an earlier run; it, or None if there is none."""
        if not self._replay.history:
            return None
        last = self._replay.history[-1][0]
        self._write(_judgment(last.unit, "undo", None, self.annotator, last.asked))
        return last

    def _write(self, judgment: Judgment) -> Judgment:
        end = self._file.seek(0, os.SEEK_END)
        line = _line(judgment)
        if end:
            self._file.seek(end - 1)
            line = line if self._file.read(1) == b"\n" else b"\n" + line  # edited by hand
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise InputError(
                f"cannot write {self.path}: {error.strerror}",
                remedy="make room on the disk; all judgments before this one are kept",
            ) from error
        self._replay.apply(judgment)
        return judgment

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        self._file.close()


def read_grades(paths: Sequence[Path]) -> tuple[dict[str, dict[Unit, int]], tuple[str, ...]]:
    """The grades that count in several files, by annotator, and warnings.

    Undone, skipped and broken ones are none. Where files of one annotator differ, the later counts.

    Raises:
        InputError: A file cannot be read, or holds lines that are no judgments.
    """
    found: dict[str, dict[Unit, Judgment]] = {}
    warnings: list[str] = []
    asked: dict[str, set[str]] = {}
    for path in paths:
        try:
            rows, torn = _read(path.read_bytes(), path)
        except OSError as error:
            raise InputError(
                f"cannot read {path}: {error.strerror}", remedy="name a judgments.NAME.jsonl file"
            ) from error
        if torn is not None:
            warnings.append(f"{path}: an unfinished line at its end was left out")
        replays: dict[str, _Replay] = {}
        for row in rows:
            replays.setdefault(row.annotator, _Replay()).apply(row)
            asked.setdefault(row.query, set()).add(row.asked)
        for annotator, replay in replays.items():
            marks = found.setdefault(annotator, {})
            for unit, mark in replay.marks.items():
                if unit not in marks or marks[unit].time <= mark.time:
                    marks[unit] = mark
    differing = sorted(query for query, texts in asked.items() if len(texts) > 1)
    if differing:
        warnings.append(
            f"{len(differing)} query ids do not ask the same everywhere "
            f"({named(differing)}): their grades are not of one question"
        )
    grades = {
        annotator: {unit: mark.grade for unit, mark in marks.items() if mark.grade is not None}
        for annotator, marks in found.items()
    }
    return grades, tuple(warnings)


class _Replay:
    """The marks that count after all lines so far."""

    def __init__(self) -> None:
        self.marks: dict[Unit, Judgment] = {}
        self.history: list[tuple[Judgment, Judgment | None]] = []

    def apply(self, judgment: Judgment) -> None:
        if judgment.mark != "undo":
            self.history.append((judgment, self.marks.get(judgment.unit)))
            self.marks[judgment.unit] = judgment
        elif self.history:
            taken_back, before = self.history.pop()
            if before is None:
                del self.marks[taken_back.unit]
            else:
                self.marks[taken_back.unit] = before


def _judgment(unit: Unit, mark: Mark, grade: int | None, annotator: str, asked: str) -> Judgment:
    now = datetime.now(timezone.utc).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return Judgment(
        query=unit[0],
        document=unit[1],
        mark=mark,
        grade=grade,
        annotator=annotator,
        time=now,
        asked=asked,
    )


def _line(judgment: Judgment) -> bytes:
    try:
        return json.dumps(asdict(judgment), ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a file name with bytes that are no text
        return json.dumps(asdict(judgment)).encode() + b"\n"


def _read(data: bytes, path: Path) -> tuple[list[Judgment], int | None]:
    """The judgments, and the offset of an unfinished last line; None if all are whole."""
    lines = data.split(b"\n")
    rest = lines.pop()
    parsed = [_parse(line) for line in lines]
    bad = [
        str(number)
        for number, (line, judgment) in enumerate(zip(lines, parsed, strict=True), start=1)
        if judgment is None and line.strip()
    ]
    if bad:
        raise InputError(
            f"{path}: {len(bad)} lines are no judgments (line {named(bad)})",
            remedy="mend or remove these lines, or name another file",
        )
    last = _parse(rest)
    torn = len(data) - len(rest) if rest.strip() and last is None else None
    return [judgment for judgment in (*parsed, last) if judgment is not None], torn


def _parse(line: bytes) -> Judgment | None:
    try:
        row = json.loads(line)
        values = {name: row.get(name) for name in Judgment.__slots__}
        judgment = Judgment(**{**values, "asked": values["asked"] or ""})
    except (ValueError, AttributeError):
        return None
    texts = (judgment.query, judgment.document, judgment.annotator, judgment.time, judgment.asked)
    graded = judgment.mark == "grade"
    # `type`, not `isinstance`: True is no grade.
    right_grade = type(judgment.grade) is int and judgment.grade in GRADES
    sound = (
        all(isinstance(text, str) for text in texts)
        and judgment.mark in get_args(Mark)
        and (right_grade if graded else judgment.grade is None)
    )
    return judgment if sound else None
