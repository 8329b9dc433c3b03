"""Queries, and what tables are broken down by."""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

from secondglance.errors import InputError
from secondglance.evaluation.trec import named, read_lines
from secondglance.evaluation.types import EvaluationQuery, QueryKind
from secondglance.types import Query

_ROW = '{"id": "q1", "text": "a red bus", "image": "queries/1.jpg"}'
_FIELDS = ("text", "image", "video", "not", "instruction", "language", "lang")


def read_queries(path: Path | str) -> tuple[tuple[EvaluationQuery, ...], list[str]]:
    """Reads queries: lines of JSON with `id` and at least one of `text`, `image` and `video`.

    Optional are `not`, `instruction` and `language` or `lang`; other keys are ignored. Files are
    relative to the folder of `path`. Queries whose files are missing are left out.

    Returns:
        The queries, in the order of the file, and warnings.

    Raises:
        InputError: The file cannot be read, has no queries, a malformed line or an id twice.
    """
    folder = Path(path).absolute().parent
    queries: dict[str, EvaluationQuery] = {}
    lines: dict[str, int] = {}
    repeated: list[str] = []
    missing: list[str] = []
    bad: list[str] = []
    for number, line in read_lines(path):
        try:
            query = _query(line, folder)
        except ValueError as error:
            bad.append(f"line {number}: {error}")
            continue
        if query.id in lines:
            repeated.append(f"{query.id} (lines {lines[query.id]} and {number})")
            continue
        lines[query.id] = number
        files = [Path(file) for file in (query.query.image, query.query.video) if file]
        absent = [str(file) for file in files if not file.is_file()]
        if absent:
            missing.append(f"{query.id} ({', '.join(absent)})")
        else:
            queries[query.id] = query
    if bad:
        raise InputError(
            f"{path}: {len(bad)} malformed: {named(bad)}", remedy=f"a line is like {_ROW}"
        )
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} ids come twice: {named(repeated)}",
            remedy="give each query its own id",
        )
    if not queries and missing:
        raise InputError(
            f"{path}: the files of all {len(missing)} queries are missing: {named(missing)}",
            remedy=f"their paths are relative to {folder}",
        )
    if not queries:
        raise InputError(f"{path} has no queries", remedy=f"a line is like {_ROW}")
    if missing:
        return tuple(queries.values()), [
            f"{path}: {len(missing)} queries are left out, as their files are missing: "
            f"{named(missing)}"
        ]
    return tuple(queries.values()), []


def described(id: str, query: Query, *, language: str = "") -> EvaluationQuery:
    """A query with its kind, language and length, which tables are broken down by.

    Args:
        id: As the judgments name it.
        query: What is asked.
        language: Of its words; guessed by their script if empty and the script tells.
    """
    return EvaluationQuery(
        id=id,
        query=query,
        kind=query_kind(query),
        language=(language or guessed_language(query.text)) if query.text else "",
        length=length_class(query.text),
    )


def query_kind(query: Query) -> QueryKind:
    """What a query is made of."""
    given: list[QueryKind] = ["text"] if query.text.strip() else []
    given += ["image"] if query.image is not None else []
    given += ["video"] if query.video is not None or query.clip is not None else []
    return given[0] if len(given) == 1 else "mixed"


def guessed_language(text: str) -> str:
    """The language whose script a text has: `ja`, `ko`, `zh`, `th` or `el`, else empty.

    Latin, Cyrillic or Arabic letters are those of many languages. Han without kana is taken for
    Chinese.
    """
    import regex

    scripts = {"ja": "[\\p{Hiragana}\\p{Katakana}--[ー]]", "ko": "\\p{Hangul}", "zh": "\\p{Han}"}
    scripts |= {"th": "\\p{Thai}", "el": "\\p{Greek}{2}"}
    for language, letters in scripts.items():
        if regex.search(letters, text, flags=regex.V1):
            return language
    return ""


def length_class(text: str) -> str:
    """`1-3`, `4-8` or `9+` words; empty without words.

    Two characters of Han, kana or Thai, which are written without spaces, count as a word.
    """
    import regex

    unspaced = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]"
    rest = regex.findall(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}'’-]*", regex.sub(unspaced, " ", text))
    words = len(rest) + math.ceil(len(regex.findall(unspaced, text)) / 2)
    if not words:
        return ""
    return "1-3" if words <= 3 else "4-8" if words <= 8 else "9+"


def _query(line: str, folder: Path) -> EvaluationQuery:
    """Raises ValueError with what is wrong."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    id = row.get("id")
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
        raise ValueError("no id" if id is None or id == "" else f"the id {id!r} is no text")
    said: dict[str, Any] = {name: row.get(name) or "" for name in _FIELDS}
    for name, value in (("id", str(id)), *said.items()):
        if not isinstance(value, str):
            raise ValueError(f"{name} is {value!r}, not text")
        if not value.isascii() and any(unicodedata.category(sign) == "Cs" for sign in value):
            raise ValueError(f"{name} has half of a surrogate pair")
    said = {name: value.strip() for name, value in said.items()}
    if not (said["text"] or said["image"] or said["video"]):
        raise ValueError("neither text, image nor video")
    query = Query(
        text=said["text"],
        image=folder / said["image"] if said["image"] else None,
        video=folder / said["video"] if said["video"] else None,
        not_text=said["not"],
        instruction=said["instruction"] or None,
    )
    return described(str(id), query, language=said["language"] or said["lang"])
