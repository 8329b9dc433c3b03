"""One annotator at work on a pool: what is next, what was said, how far it is."""

from __future__ import annotations

import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from secondglance.errors import InputError
from secondglance.evaluation.agreement import Agreement, Combined, Unit
from secondglance.evaluation.judgment_log import Judgment, JudgmentLog, check_annotator
from secondglance.evaluation.judgments import write_qrels
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines.judge import Pool, PooledDocument, PooledQuery
from secondglance.pipelines.replacing import replacing
from secondglance.types import Query

LONGEST_S = 120.0
"""Of one judgment; a longer pause is no work."""
ENOUGH_TIMES = 3

QRELS_SUFFIXES = {".qrels", ".txt", ".trec"}

Answer: TypeAlias = Literal["grade", "broken", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One pair to judge; `number` counts from 0 over all, `place` from 1 within the query."""

    number: int
    query: EvaluationQuery
    document: PooledDocument
    query_number: int
    place: int
    of: int

    @property
    def unit(self) -> Unit:
        """As judgments name it."""
        return self.query.id, self.document.document


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an annotator is.

    Attributes:
        total: Pairs.
        graded: That have a grade.
        broken: That cannot be judged.
        skipped: That were put off.
        next: Number of the next pair; None if only skipped ones are left, or none.
        left_s: Seconds that the rest takes at the pace so far; None before there is one.
    """

    total: int
    graded: int
    broken: int
    skipped: int
    next: int | None
    left_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Files of one annotator: the qrels, and the judgments they are made of."""

    qrels: Path
    log: Path


def places(out: Path, *, annotator: str) -> Places:
    """Where judgments go: `out` names the qrels, or a folder for them.

    Raises:
        InputError: The annotator's name cannot be used, or the qrels cannot be written there.
    """
    check_annotator(annotator)
    if out.suffix.lower() in QRELS_SUFFIXES and not out.is_dir():
        found = Places(qrels=out, log=out.parent / f"judgments.{annotator}.jsonl")
    else:
        found = Places(
            qrels=out / f"judgments.{annotator}.qrels", log=out / f"judgments.{annotator}.jsonl"
        )
    check_writable(found.qrels)
    return found


def login_name() -> str:
    """The name of who is logged in, if it can be an annotator's; `me` otherwise."""
    import getpass

    try:
        return check_annotator(getpass.getuser())
    except (InputError, OSError, KeyError, ImportError):
        return "me"


def check_writable(path: Path) -> None:
    """Whether a file can be written there; known before the work, not after it.

    Raises:
        InputError: It cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        problem = "it is a folder" if path.is_dir() else None
        existing = path if path.exists() else path.parent
        if not os.access(existing, os.W_OK):
            problem = "permission denied"
    except OSError as error:
        problem = error.strerror
    if problem:
        raise InputError(
            f"cannot write {path}: {problem}", remedy="name another file or folder with --out"
        )


class Judging:
    """The state that page and terminal share. Safe to use from several threads.

    Args:
        pool: What is to be judged.
        log: The annotator's judgments; those of an earlier run count.
        qrels: File that `write` writes.
        gone: Says which judged documents the library does not know any more.
        clock: Seconds, for the pace.
    """

    def __init__(
        self,
        pool: Pool,
        log: JudgmentLog,
        *,
        qrels: Path,
        gone: Callable[[list[str]], list[str]] = lambda documents: [],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.qrels = qrels
        self.tasks = tuple(_tasks(pool))
        self._log = log
        self._clock = clock
        self._lock = threading.RLock()
        self._numbers = {task.unit: task.number for task in self.tasks}
        self._asked = {pooled.query.id: asked(pooled.query.query) for pooled in pool.queries}
        self._spent_s: list[float] = []
        self._last = clock()
        # Skipped ones of an earlier run are asked again.
        self._put_off: set[Unit] = set()
        self._left_out: dict[Unit, str] = {}
        self.warnings = (*pool.warnings, *log.warnings, *self._strangers(gone))

    def _strangers(self, gone: Callable[[list[str]], list[str]]) -> list[str]:
        """Earlier judgments that do not belong to this pool's queries and documents."""
        graded = [mark for mark in self._log.marks.values() if mark.grade is not None]
        other_query = {mark.unit for mark in graded if mark.query not in self._asked}
        other_words = {
            mark.unit
            for mark in graded
            if mark.unit not in other_query and mark.asked and mark.asked != self._asked[mark.query]
        }
        rest = {mark.unit for mark in graded} - other_query - other_words
        lost = set(gone(sorted({document for query, document in rest if (query, document)
                                not in self._numbers})))  # fmt: skip
        no_file = {unit for unit in rest if unit[1] in lost}
        warnings = []
        for units, part, why in (
            (other_query, 0, "are of queries that are not asked now"),
            (other_words, 0, "are of queries that asked something else under the same id"),
            (no_file, 1, "are of documents that are no longer in the library"),
        ):
            if units:
                some = named(sorted({unit[part] for unit in units}))
                warnings.append(
                    f"{len(units)} judgments {why} ({some}): kept in {self._log.path.name}, "
                    "not in the qrels"
                )
                self._left_out |= dict.fromkeys(units, why)
        return warnings

    def mark_of(self, number: int) -> Judgment | None:
        """What counts for a task; None if nothing does."""
        with self._lock:
            unit = self._task(number).unit
            mark = None if unit in self._left_out else self._log.marks.get(unit)
            return mark if mark is None or mark.mark != "skip" else None

    def _task(self, number: int) -> Task:
        if not 0 <= number < len(self.tasks):
            raise InputError(f"there is no pair {number}; there are {len(self.tasks)}")
        return self.tasks[number]

    def answer(self, number: int, answer: Answer, *, grade: int | None = None) -> Progress:
        """Keeps what the annotator says of a task; it is on disk afterwards.

        Skipping what is judged already leaves it so.

        Raises:
            InputError: There is no such task or grade, or the disk takes no more.
        """
        with self._lock:
            task = self._task(number)
            if not (answer == "skip" and self.mark_of(number) is not None):
                asked_now = self._asked[task.query.id]
                self._log.add(task.unit, answer, grade=grade, asked=asked_now)
                self._left_out.pop(task.unit, None)
                (self._put_off.add if answer == "skip" else self._put_off.discard)(task.unit)
            self._tick()
            return self.progress(after=number)

    def _tick(self) -> None:
        now = self._clock()
        self._spent_s.append(min(now - self._last, LONGEST_S))
        self._last = now

    def undo(self) -> int | None:
        """Takes back the last answer; the number of its task, None if there is none to take back.

        An answer of an earlier run whose task is gone is taken back, too, and 0 is returned.
        """
        with self._lock:
            taken_back = self._log.undo()
            if taken_back is None:
                return None
            self._last = self._clock()
            self._put_off.discard(taken_back.unit)
            return self._numbers.get(taken_back.unit, 0)

    def skipped_again(self) -> Progress:
        """Asks for the skipped ones again."""
        with self._lock:
            self._put_off.clear()
            return self.progress()

    def progress(self, *, after: int = -1) -> Progress:
        """How far it is; `next` is the first open task behind `after`, or else from the start."""
        with self._lock:
            marks = [self.mark_of(task.number) for task in self.tasks]
            open_ = [
                task.number
                for task, mark in zip(self.tasks, marks, strict=True)
                if mark is None and task.unit not in self._put_off
            ]
            pace = statistics.median(self._spent_s) if len(self._spent_s) >= ENOUGH_TIMES else None
            return Progress(
                total=len(self.tasks),
                graded=sum(mark is not None and mark.mark == "grade" for mark in marks),
                broken=sum(mark is not None and mark.mark == "broken" for mark in marks),
                skipped=len(self._put_off),
                next=next((n for n in open_ if n > after), open_[0] if open_ else None),
                left_s=None if pace is None else pace * len(open_),
            )

    def grades(self) -> dict[str, dict[str, int]]:
        """The grades that count, of this pool's queries: also of documents not pooled now."""
        with self._lock:
            found: dict[str, dict[str, int]] = {}
            for (query, document), mark in sorted(self._log.marks.items()):
                if mark.grade is not None and (query, document) not in self._left_out:
                    found.setdefault(query, {})[document] = mark.grade
            return found

    def write(self) -> int:
        """Writes the qrels; how many judgments they hold. Without any, nothing is written.

        Raises:
            InputError: The file cannot be written.
        """
        with self._lock:
            grades = self.grades()
            if grades:
                _write_qrels(self.qrels, grades)
            return sum(map(len, grades.values()))

    def close(self) -> None:
        """Lets go of the judgments."""
        with self._lock:
            self._log.close()


def _tasks(pool: Pool) -> list[Task]:
    tasks: list[Task] = []
    for query_number, pooled in enumerate(pool.queries):
        tasks += _of_query(pooled, query_number, first=len(tasks))
    return tasks


def _of_query(pooled: PooledQuery, query_number: int, *, first: int) -> list[Task]:
    return [
        Task(
            number=first + place,
            query=pooled.query,
            document=document,
            query_number=query_number,
            place=place + 1,
            of=len(pooled.documents),
        )
        for place, document in enumerate(pooled.documents)
    ]


def asked(query: Query) -> str:
    """The query in one line, by which judgments know it again."""
    parts = [query.text.strip()] if query.text.strip() else []
    parts += [f"[{Path(path).name}]" for path in (query.image, query.video) if path is not None]
    parts += [f"not {query.not_text.strip()}"] if query.not_text.strip() else []
    return " ".join(parts)


def write_combined(
    path: Path, combined: Mapping[str, Mapping[str, Combined]], agreement: Agreement
) -> Path:
    """Writes averaged grades as qrels, and beside them a JSON file with what they are made of.

    Returns:
        The JSON file.

    Raises:
        InputError: A file cannot be written.
    """
    check_writable(path)
    beside = path.with_suffix(".json")
    check_writable(beside)
    _write_qrels(
        path,
        {
            query: {document: found.grade for document, found in documents.items()}
            for query, documents in combined.items()
        },
    )
    found = {
        "agreement": asdict(agreement),
        "judgments": {
            query: {document: asdict(one) for document, one in documents.items()}
            for query, documents in combined.items()
        },
    }
    try:
        beside.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {beside}: {error.strerror}") from error
    return beside


def _write_qrels(path: Path, grades: Mapping[str, Mapping[str, int]]) -> None:
    try:
        with replacing(path) as temporary:
            write_qrels(temporary, grades)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}",
            remedy="make room on the disk, or name another file with --out; no judgment is lost",
        ) from error
