"""Queries to judge, from JSON lines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from secondglance.errors import InputError
from secondglance.evaluation.types import EvaluationQuery
from secondglance.types import Query


def load_queries(path: Path) -> tuple[tuple[EvaluationQuery, ...], tuple[str, ...]]:
    """Rows of `id`, `text`, `image`, `video`, `not` and `language`, and warnings.

    All but `text`, `image` or `video` may be missing; paths are relative to the file's folder.

    Raises:
        InputError: The file cannot be read, a row is malformed, or an id occurs twice.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {path}: {reason}", remedy="check the path") from None
    rows = [
        (number, _row(line, number, path))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    queries = tuple(_query(row, number, path) for number, row in rows)
    if not queries:
        raise InputError(f"{path} has no queries", remedy='write lines like {"text": "a cat"}')
    twice = [id_ for id_, count in Counter(query.id for query in queries).items() if count > 1]
    if twice:
        raise InputError(
            f"{path}: {len(twice)} ids occur twice: {', '.join(twice[:5])}",
            remedy="give every query an id of its own",
        )
    return queries, ()


def _row(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InputError(
            f"{path}: line {number} is no JSON object", remedy='write lines like {"text": "a cat"}'
        )
    return row


def _query(row: dict[str, Any], number: int, path: Path) -> EvaluationQuery:
    values = {name: row.get(name) or "" for name in ("text", "image", "video", "not", "language")}
    bad = [name for name, value in values.items() if not isinstance(value, str)]
    if bad or not (values["text"].strip() or values["image"] or values["video"]):
        raise InputError(
            f"{path}: line {number} "
            + (f"has no string as {', '.join(bad)}" if bad else "asks for nothing"),
            remedy="give words as text, or a file as image or video",
        )
    asked = [name for name in ("text", "image", "video") if values[name].strip()]
    return EvaluationQuery(
        id=str(row.get("id") or number),
        query=Query(
            text=values["text"],
            image=path.parent / values["image"] if values["image"] else None,
            video=path.parent / values["video"] if values["video"] else None,
            not_text=values["not"],
        ),
        kind=asked[0] if len(asked) == 1 else "mixed",  # type: ignore[arg-type]
        language=values["language"],
    )
