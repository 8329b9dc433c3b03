"""Recall by vector and by words together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from secondglance.pipelines.build import Parts
from secondglance.pipelines.second_pass import Candidate
from secondglance.retrieve.filters import Filter, and_, is_in
from secondglance.retrieve.fusion import RANK_CONSTANT, reciprocal_ranks, shared_ranks
from secondglance.retrieve.lexical import WordMatch
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.types import Kind, Match, Query

if TYPE_CHECKING:
    from secondglance.types import Vector

FULL_SHARE = 1 / 3
"""From this share of a query's words on, the word list counts in full for a document, as two people
describe one picture with about a third of their words alike; below, it counts in proportion."""

DEPTH = 2_000
FILTERED_DEPTH = 10_000
"""Documents with words of a query that are looked at, best first, without and with a filter."""


def add_words(
    parts: Parts,
    query: Query,
    vector: Vector,
    candidates: Sequence[Candidate],
    *,
    wanted: int,
    condition: Filter | None,
    kind: Kind | None,
    grouped: Callable[[Sequence[Match]], list[Candidate]],
) -> list[Candidate]:
    """The best `wanted` of the vector list and the word list, fused by reciprocal rank.

    The word list counts for a candidate by how much of the query its words say (`FULL_SHARE`), so
    that a chance word in a file's name does not outrank what the vector knows. A video is one
    document; the vector says which of its moments is meant.

    Args:
        parts: Of the library.
        query: With words.
        vector: Of the query, unit length, shape (dim,).
        candidates: The vector list, best first.
        wanted: Candidates.
        condition: What every candidate meets.
        kind: Part of `condition`; known here, to look at less.
        grouped: Makes candidates of matches, best first.

    Raises:
        StoreError: The word index or the store cannot be used.
        CatalogError: The catalog cannot be used.
    """
    words = parts.words()
    words.sync(parts.store)
    depth = max(4 * wanted, DEPTH if condition is None else FILTERED_DEPTH)
    hits = words.index.search(query.text, limit=depth, kind=kind, without=query.not_text)
    if not hits:
        return list(candidates)
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(document_of(candidate), candidate)
    added: list[Candidate] = []
    full, filtered = len(candidates) >= wanted, condition is not None
    for chunk in _chunks(_hopeful(hits, found, wanted, full=full, filtered=filtered), wanted):
        added += grouped(resolve(parts, chunk, vector, condition))
        if len(added) >= wanted:
            break
    for candidate in added:
        found.setdefault(document_of(candidate), candidate)
    if condition is not None:
        hits = [hit for hit in hits if _document(hit) in found]
    return _fused([*candidates, *added], len(candidates), found, hits)[:wanted]


def weight(hit: WordMatch) -> float:
    """How much the word list counts for a document, 0..1."""
    return min(1.0, hit.share / FULL_SHARE)


def _document(hit: WordMatch) -> str:
    return hit.record if hit.kind == "text" else hit.content


def document_of(candidate: Candidate) -> str:
    """What the word index calls a candidate: a passage's record, or else the content."""
    match = candidate.match
    return match.id if match.payload["kind"] == "text" else str(match.payload["item"])


def _hopeful(
    hits: Sequence[WordMatch],
    found: dict[str, Candidate],
    wanted: int,
    *,
    full: bool,
    filtered: bool,
) -> list[WordMatch]:
    """Hits outside the vector list that may come among the wanted."""
    if not full:
        return [hit for hit in hits if _document(hit) not in found]
    last = 1 / (RANK_CONSTANT + wanted)
    ranks = shared_ranks([hit.score for hit in hits])
    return [
        hit
        for hit, rank in zip(hits, ranks, strict=True)
        if _document(hit) not in found
        # A filter may take away everything before it.
        and weight(hit) / (RANK_CONSTANT + (1 if filtered else rank)) > last
    ]


def _chunks(hits: Sequence[WordMatch], wanted: int) -> Iterator[Sequence[WordMatch]]:
    """Growing stretches; the first goes on while hits tie, for the cosine tells those apart."""
    end = min(wanted, len(hits))
    while 0 < end < min(4 * wanted, len(hits)) and hits[end].score == hits[end - 1].score:
        end += 1
    start = 0
    while start < len(hits):
        yield hits[start:end]
        start, end = end, end + 4 * (end - start)


def resolve(
    parts: Parts, hits: Sequence[WordMatch], vector: Vector, condition: Filter | None
) -> list[Match]:
    """The records of hits that meet the condition, with their cosines, best first."""
    single = [hit.record for hit in hits if hit.kind != "video"]
    matches = [
        Match(id=record.id, score=float(record.vector @ vector), payload=record.payload)
        for record in (parts.store().get(single) if single else ())
        if condition is None or condition.matches(record.payload)
    ]
    if videos := [hit.content for hit in hits if hit.kind == "video"]:
        records = sum(len(parts.catalog.record_ids(content)) for content in videos)
        if records:
            within = and_(is_in("item", videos), condition)
            limit = min(records, MAX_LIMIT)
            matches += parts.store().search(vector, limit=limit, filter=within)
    return sorted(matches, key=lambda match: (-match.score, match.id))


def _fused(
    candidates: Sequence[Candidate],
    by_vector: int,
    found: dict[str, Candidate],
    hits: Sequence[WordMatch],
) -> list[Candidate]:
    """Candidates, the first `by_vector` of which are the vector list, in their common order."""
    ranks = shared_ranks([hit.score for hit in hits])
    places = {
        id(found[_document(hit)]): (rank, hit)
        for rank, hit in zip(ranks, hits, strict=True)
        if _document(hit) in found
    }
    mine = [places.get(id(candidate)) for candidate in candidates]
    scores = reciprocal_ranks(
        [place + 1 if place < by_vector else None for place in range(len(candidates))],
        [place[0] if place else None for place in mine],
        weights=[weight(place[1]) if place else 0.0 for place in mine],
    )
    fused = [
        dataclasses.replace(
            candidate, fused_score=score, lexical_score=place[1].score if place else None
        )
        for candidate, score, place in zip(candidates, scores, mine, strict=True)
    ]
    return sorted(fused, key=lambda c: (-(c.fused_score or 0.0), -c.match.score, c.match.id))
