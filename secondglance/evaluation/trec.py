"""Judgments and runs in the formats of TREC, with file names as document ids."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from secondglance.errors import InputError
from secondglance.evaluation.types import Qrels, Run

NAMED = 5
"""How many ids a message names at most."""

MAX_GRADE = 1000
"""trec_eval counts the documents of every grade up to the highest."""

_UNSAFE = re.compile(r"[\x00-\x20\x7f%\ud800-\udfff]")
_SPACE = re.compile(r"[ \t]+")


def named(ids: Iterable[str]) -> str:
    """Some ids for a message: the first few, and how many more there are."""
    found = list(ids)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def read_text(path: Path | str) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: The file cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot read {path}: {reason}", remedy="check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}", remedy="save it as UTF-8") from None


def read_lines(path: Path | str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file that are not empty, numbered from 1.

    Only newlines end a line, as Unicode's other separators may stand in a file's name.

    Raises:
        InputError: The file cannot be read or is not UTF-8.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_qrels(path: Path | str) -> tuple[Qrels, list[str]]:
    """Reads judgments: lines of query id, an ignored column, document id and grade.

    Columns are separated by spaces or tabs. A document id with spaces is percent-encoded
    (`my%20photo.jpg`; a percent sign is then `%25`), or else single tabs separate all columns; in
    such a line ids are taken as they stand.

    Returns:
        Grades by query and document, and warnings. Grades below 0 are kept as they are; they count
        as not relevant.

    Raises:
        InputError: The file cannot be read, has no lines or a malformed one, or grades a document
            of a query twice and differently.
    """
    qrels: dict[str, dict[str, int]] = {}
    repeated: list[str] = []
    conflicts: list[str] = []
    bad: list[str] = []
    for number, line in read_lines(path):
        columns = _columns(line, 4)
        if len(columns) != 4:
            bad.append(f"line {number} has {len(columns)} columns")
            continue
        query, _, document, written = columns
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", written) or abs(int(written)) > MAX_GRADE:
            bad.append(f"line {number} has the grade {written!r}")
            continue
        judged = qrels.setdefault(query, {})
        if document not in judged:
            judged[document] = int(written)
        elif judged[document] == int(written):
            repeated.append(f"{query} {document}")
        else:
            conflicts.append(f"{query} {document} ({judged[document]} and {written})")
    if bad:
        raise InputError(
            f"{path}: {len(bad)} malformed: {named(bad)}",
            remedy="a line is `QUERY 0 DOCUMENT GRADE`, GRADE a whole number of at most "
            f"{MAX_GRADE}; separate the columns by tabs, or write %20, where ids have spaces",
        )
    if conflicts:
        raise InputError(
            f"{path}: {len(conflicts)} judged twice, with different grades: {named(conflicts)}",
            remedy="keep one line of each",
        )
    if not qrels:
        raise InputError(f"{path} has no judgments", remedy="a line is `QUERY 0 DOCUMENT GRADE`")
    if repeated:
        return qrels, [f"{path}: {len(repeated)} judged twice, counted once: {named(repeated)}"]
    return qrels, []


def write_qrels(path: Path | str, qrels: Qrels) -> None:
    """Writes judgments so that `read_qrels` and trec_eval read them; spaces as `%20`."""
    lines = [
        f"{_encoded(query)} 0 {_encoded(document)} {grade}\n"
        for query, judged in qrels.items()
        for document, grade in judged.items()
    ]
    Path(path).write_text("".join(lines), "utf-8", newline="\n")


def read_run(path: Path | str) -> tuple[Run, list[str]]:
    """Reads a run: lines of query id, `Q0`, document id, rank, score and the run's name.

    Columns and ids are as in `read_qrels`; what follows the sixth column is ignored. As in
    trec_eval the score orders, whatever the ranks are.

    Returns:
        Scores by query and document, and warnings.

    Raises:
        InputError: The file cannot be read, has no lines or a malformed one, or names a document
            of a query twice.
    """
    run: dict[str, dict[str, float]] = {}
    bad: list[str] = []
    repeated: list[str] = []
    for number, line in read_lines(path):
        columns = _columns(line, 6)
        if len(columns) < 6:
            bad.append(f"line {number} has {len(columns)} columns")
            continue
        query, _, document, rank, written = columns[:5]
        score = _number(written)
        if score is None or _number(rank) is None:
            wrong = f"score {written!r}" if score is None else f"rank {rank!r}"
            bad.append(f"line {number} has the {wrong}")
            continue
        if document in run.setdefault(query, {}):
            repeated.append(f"{query} {document}")
        run[query][document] = score
    if bad:
        raise InputError(
            f"{path}: {len(bad)} malformed: {named(bad)}",
            remedy="a line is `QUERY Q0 DOCUMENT RANK SCORE NAME`; separate the columns by tabs, "
            "or write %20, where ids have spaces",
        )
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} ranked twice: {named(repeated)}",
            remedy="a run names a document once a query",
        )
    if not run:
        raise InputError(
            f"{path} has no results", remedy="a line is `QUERY Q0 DOCUMENT RANK SCORE NAME`"
        )
    ties = [query for query, scores in run.items() if len(set(scores.values())) < len(scores)]
    if ties:
        return run, [
            f"{path}: {len(ties)} queries have results with the same score, which are ordered by "
            f"their ids, last first, as trec_eval does: {named(ties)}"
        ]
    return run, []


def write_run(path: Path | str, run: Run, name: str) -> None:
    """Writes a run, the best first, so that `read_run` and trec_eval read it; spaces as `%20`.

    Args:
        path: The file.
        run: Scores; equal ones keep their order in the file.
        name: Of the system.
    """
    lines = []
    for query, scores in run.items():
        ranking = sorted(scores.items(), key=lambda item: -item[1])
        for rank, (document, score) in enumerate(ranking, start=1):
            lines.append(
                f"{_encoded(query)} Q0 {_encoded(document)} {rank} {score!r} {_encoded(name)}\n"
            )
    Path(path).write_text("".join(lines), "utf-8", newline="\n")


def _columns(line: str, count: int) -> Sequence[str]:
    """The columns of a line; ids decoded unless single tabs separate all of them."""
    by_tab = line.split("\t")
    if len(by_tab) >= count and all(by_tab[:count]):
        return [by_tab[0], by_tab[1], by_tab[2], *(column.strip() for column in by_tab[3:])]
    columns = _SPACE.split(line.strip(" \t"))
    return [unquote(column, errors="surrogateescape") for column in columns[:3]] + columns[3:]


def _encoded(id: str) -> str:
    # Also the bytes that are no UTF-8 in names of files, which Python holds as lone surrogates.
    return _UNSAFE.sub(lambda found: quote(found[0], safe="", errors="surrogateescape"), id)


def _number(written: str) -> float | None:
    try:
        number = float(written)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
