"""Queries and judgments, and how their names fit those of a library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from secondglance.errors import InputError
from secondglance.evaluation.captions import caption_queries
from secondglance.evaluation.queries import (
    described,
    guessed_language,
    length_class,
    read_queries,
)
from secondglance.evaluation.resolver import Resolver
from secondglance.evaluation.trec import named, read_qrels, read_run, write_qrels, write_run
from secondglance.evaluation.types import EvaluationQuery, Qrels

__all__ = [
    "Resolver",
    "Unknown",
    "caption_queries",
    "described",
    "guessed_language",
    "length_class",
    "matched",
    "named",
    "read_qrels",
    "read_queries",
    "read_run",
    "write_qrels",
    "write_run",
]

Unknown = Literal["missed", "dropped"]
"""What judged documents that are not in the library are: not found, or not judged."""


def matched(
    queries: Iterable[EvaluationQuery],
    qrels: Qrels,
    resolver: Resolver,
    *,
    unknown: Unknown = "missed",
) -> tuple[tuple[EvaluationQuery, ...], Qrels, list[str]]:
    """Brings queries and judgments together, with the library's names for documents.

    Args:
        queries: Those without judgments are left out.
        qrels: Judgments, by any names of documents that `resolver` knows.
        resolver: Of the library.
        unknown: Judged documents that are not in the library are `missed`: they keep their names
            and count as not found. Or they are `dropped`, and with them queries without any other.

    Returns:
        The queries that remain, their judgments by canonical id, and warnings. Of two judgments of
        one document, under two names, the higher grade stands.

    Raises:
        InputError: No query has judgments, or no judged document is in the library.
    """
    asked = {query.id: query for query in queries}
    common = [id for id in asked if id in qrels]
    if not common:
        raise InputError(
            f"none of the {len(asked)} queries has judgments: queries are named {_some(asked)}, "
            f"the judgments' {_some(qrels)}",
            remedy="the first column of the judgments is the id of a query",
        )
    strange: dict[str, None] = {}
    merged = 0
    canonical: dict[str, dict[str, int]] = {}
    for id in common:
        grades = canonical.setdefault(id, {})
        for document, grade in qrels[id].items():
            known = resolver.resolve(document)
            if known is None:
                strange[document] = None
                if unknown == "dropped":
                    continue
            name = known if known is not None else document
            merged += name in grades
            grades[name] = max(grade, grades.get(name, grade))
    documents = {document for id in common for document in qrels[id]}
    if len(strange) == len(documents):
        raise InputError(
            f"none of the {len(documents)} judged documents is in the library: they are named "
            f"{_some(documents)}, the library's {_some(resolver.ids)}",
            remedy="a document's id is its path below the folder that was indexed, an absolute "
            "path, or a file name that only one file has",
        )
    warnings = []
    ambiguous = [name for name in strange if name in resolver.ambiguous]
    absent = [name for name in strange if name not in resolver.ambiguous]
    fate = "count as not found" if unknown == "missed" else "are left out"
    for what, names in (
        ("are not in the library", absent),
        ("fit several files of the library", ambiguous),
    ):
        if names:
            warnings.append(
                f"{len(names)} of {len(documents)} judged documents {what} and {fate}: "
                f"{named(names)}"
            )
    if merged:
        warnings.append(
            f"{merged} judgments are of a document that is judged under another name too; "
            "the higher grade stands"
        )
    nobody = [id for id in qrels if id not in asked]
    if nobody:
        warnings.append(f"{len(nobody)} judged queries do not exist: {named(nobody)}")
    kept = [id for id in common if canonical[id]]
    silent = [id for id in asked if id not in qrels]
    if silent:
        warnings.append(f"{len(silent)} queries without judgments are left out: {named(silent)}")
    gone = [id for id in common if not canonical[id]]
    if gone:
        warnings.append(
            f"{len(gone)} queries are left out, as none of their judged documents is in the "
            f"library: {named(gone)}"
        )
    hopeless = [id for id in kept if not any(grade > 0 for grade in canonical[id].values())]
    if hopeless:
        warnings.append(
            f"{len(hopeless)} queries have no relevant document and count as 0 everywhere: "
            f"{named(hopeless)}"
        )
    return tuple(asked[id] for id in kept), {id: canonical[id] for id in kept}, warnings


def _some(ids: Iterable[str]) -> str:
    return named(sorted(ids)[:2]) or "(there are none)"
