"""What is to be judged: for each query, the top results of several systems in one pool.

Pooling as TREC does it: K. Sparck Jones and C. J. van Rijsbergen, "Report on the need for and
provision of an 'ideal' information retrieval test collection", 1975. Only what some system finds is
looked at; what none finds counts as not relevant.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from secondglance.errors import InputError
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines.build import Parts
from secondglance.pipelines.evaluate_documents import Documents
from secondglance.pipelines.search import search
from secondglance.types import Hit, Kind

PoolSystem: TypeAlias = Literal["clip", "clip+bm25", "fusion"]
POOL_SYSTEMS: tuple[PoolSystem, ...] = get_args(PoolSystem)
WORDS: frozenset[PoolSystem] = frozenset({"clip+bm25", "fusion"})
"""Systems that search captions, texts and names by words, too."""
RERANKED: frozenset[PoolSystem] = frozenset({"fusion"})
"""Systems with a second pass."""

MAX_DEPTH = 1000
MAX_EXCERPTS = 3
"""Passages or stretches of one file that an annotator sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Of a video, in seconds."""

    start_s: float
    end_s: float
    keyframe_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledDocument:
    """One candidate of one query; nothing in it tells which system found it, or how high.

    Attributes:
        document: Its id in judgments: the path below its root, with slashes.
        path: A file that is there.
        kind: What it is.
        stretches: Of a video, that systems found; in the order of time.
        passages: Of a text, that systems found.
        caption: Words that go with a picture or a video.
    """

    document: str
    path: Path
    kind: Kind
    stretches: tuple[Stretch, ...] = ()
    passages: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledQuery:
    """A query and its candidates, in an order that depends on their ids alone."""

    query: EvaluationQuery
    documents: tuple[PooledDocument, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Queries with something to judge, in their order, and what the user should know."""

    queries: tuple[PooledQuery, ...]
    systems: tuple[PoolSystem, ...]
    depth: int
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Pairs of query and document."""
        return sum(len(pooled.documents) for pooled in self.queries)


def pool(
    parts: Parts,
    queries: Sequence[EvaluationQuery],
    *,
    systems: Sequence[PoolSystem] = POOL_SYSTEMS,
    depth: int = 10,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pool:
    """The union of the systems' top results, each content once.

    Args:
        parts: Of the library.
        queries: What is asked.
        systems: Whose results.
        depth: Results of each system for each query.
        on_progress: Called with queries done and all.

    Raises:
        InputError: A system or the depth is not allowed, or no query has anything to judge.
        StoreError: The store cannot be reached.
    """
    _check(systems, depth)
    known = Documents(parts.catalog)
    pooled: list[PooledQuery] = []
    said: Counter[str] = Counter()
    empty: list[str] = []
    unusable: list[str] = []
    away: set[str] = set()
    for done, asked in enumerate(queries):
        on_progress(done, len(queries))
        found: dict[str, list[Hit]] = {}
        try:
            for system in systems:
                result = search(
                    parts,
                    asked.query,
                    k=depth,
                    words=system in WORDS,
                    rerank=system in RERANKED,
                    group_duplicates=False,
                )
                # What stands in brackets differs from query to query.
                said.update({warning.split(" (")[0] for warning in result.warnings})
                for hit in result.hits:
                    found.setdefault(_content(parts, hit), []).append(hit)
        except InputError as error:
            unusable.append(f"{asked.id}: {error}")
            continue
        documents = []
        for content, hits in found.items():
            document = known.name(content)
            there = [hit for hit in hits if not hit.absent and Path(hit.path).is_file()]
            if there:
                documents.append(_pooled(document, there))
            else:
                away.add(document)
        documents.sort(key=lambda document: _order(asked.id, document.document))
        if documents:
            pooled.append(PooledQuery(query=asked, documents=tuple(documents)))
        else:
            empty.append(asked.id)
    on_progress(len(queries), len(queries))
    warnings = [f"{message} ({count} times)" for message, count in said.items()]
    if unusable:
        warnings.append(
            f"{len(unusable)} queries cannot be asked and are left out: {named(unusable)}"
        )
    if empty:
        warnings.append(f"{len(empty)} queries have no results to judge: {named(empty)}")
    if away:
        warnings.append(
            f"{len(away)} documents are not there now and cannot be judged: {named(sorted(away))}"
        )
    if not pooled:
        raise InputError(
            f"none of {len(queries)} queries has anything to judge"
            + "".join(f"; {warning}" for warning in warnings),
            remedy="check the library with: secondglance status",
        )
    return Pool(
        queries=tuple(pooled), systems=tuple(systems), depth=depth, warnings=tuple(warnings)
    )


def _check(systems: Sequence[str], depth: int) -> None:
    unknown = [system for system in systems if system not in POOL_SYSTEMS]
    if unknown or not systems:
        raise InputError(
            f"unknown systems {', '.join(unknown)}" if unknown else "no system is named",
            remedy=f"choose among {', '.join(POOL_SYSTEMS)}",
        )
    if not 1 <= depth <= MAX_DEPTH:
        raise InputError(f"the depth is {depth}; it must be from 1 to {MAX_DEPTH}")


def _order(query: str, document: str) -> str:
    """Looks shuffled, is the same every time, and stays when other documents come or go."""
    return hashlib.sha256(f"{query}\0{document}".encode("utf-8", "surrogatepass")).hexdigest()


def _pooled(document: str, hits: Sequence[Hit]) -> PooledDocument:
    first = hits[0]
    stretches = {
        Stretch(start_s=hit.start_s, end_s=hit.end_s, keyframe_s=hit.keyframe_s)
        for hit in hits
        if hit.start_s is not None and hit.end_s is not None and hit.keyframe_s is not None
    }
    texts = tuple(dict.fromkeys(hit.text for hit in hits if hit.text))
    is_text = first.kind == "text"
    return PooledDocument(
        document=document,
        path=Path(first.path),
        kind=first.kind,
        stretches=tuple(sorted(stretches, key=lambda s: s.start_s)[:MAX_EXCERPTS]),
        passages=texts[:MAX_EXCERPTS] if is_text else (),
        caption="" if is_text else next(iter(texts), ""),
    )


def _content(parts: Parts, hit: Hit) -> str:
    """The content of a hit, by which its copies are one; its path if no file of it is known."""
    row = parts.catalog.file(hit.path)
    return row.hash if row is not None and row.hash else hit.path


def unknown_documents(parts: Parts, documents: Sequence[str]) -> list[str]:
    """Those of some judged documents that the library does not know any more."""
    roots = [Path(root) for root in parts.catalog.roots()]
    return [
        document
        for document in documents
        # An absolute path stays as it is behind a root.
        if not any(parts.catalog.file(root / document) for root in roots)
    ]
