"""A query, answered in two passes: recall K by vector, rerank, fuse, cut."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from secondglance.errors import (
    CatalogError,
    InputError,
    MediaError,
    SecondGlanceError,
    StoreError,
)
from secondglance.pipelines import second_pass
from secondglance.pipelines.build import Parts
from secondglance.pipelines.first_pass import (
    by_vector,
    embed_query,
    grouped,
    without_near_duplicates,
)
from secondglance.pipelines.second_pass import Candidate
from secondglance.pipelines.shown import hit_metadata
from secondglance.pipelines.word_recall import add_words
from secondglance.rerank import score_cache
from secondglance.retrieve.filters import Filter, and_, kind_is, parse_filter
from secondglance.retrieve.fusion import fuse
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.types import (
    Hit,
    Kind,
    PairScore,
    Query,
    SearchResult,
)

logger = logging.getLogger(__name__)


class _Clock:
    """Milliseconds per stage."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("load", "embed", "recall", "rerank"), 0.0)
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] += (time.perf_counter() - started) * 1e3

    def timings_ms(self) -> dict[str, float]:
        total = (time.perf_counter() - self._started) * 1e3
        return {name: round(ms, 3) for name, ms in {**self.spent, "total": total}.items()}


def search(
    parts: Parts,
    query: Query,
    *,
    k: int | None = None,
    recall: int | None = None,
    rerank: bool | None = None,
    filter: str | Filter | None = None,
    kind: Kind | None = None,
    min_score: float | None = None,
    budget_ms: float | None = None,
    group: bool = True,
    group_duplicates: bool | None = None,
    words: bool | None = None,
) -> SearchResult:
    """Answers a query.

    Args:
        parts: Of the library.
        query: At least words, a picture or a clip.
        k: Results.
        recall: Candidates that the second pass sees.
        rerank: Whether there is a second pass.
        filter: Expression, or a parsed one.
        kind: Only this kind.
        min_score: Leaves out hits whose final score is below.
        budget_ms: For the second pass, in milliseconds: if it does not allow a full look at every
            candidate, there may be quick ones, by which the best get a full one; candidates it
            does not reach keep their recall order, after those it reached.
        group: One hit a video with its best moments; otherwise each stretch is a hit.
        group_duplicates: One hit for pictures that look nearly the same; it names the others.
        words: Whether captions, texts and names are searched by the query's words, too.

    Raises:
        InputError: The query, the filter or a number cannot be used.
        StoreError: The store cannot be reached.
    """
    defaults = parts.settings.search
    k = defaults.k if k is None else k
    recall = max(k, defaults.recall if recall is None else recall)
    rerank = defaults.rerank if rerank is None else rerank
    if group_duplicates is None:
        group_duplicates = defaults.group_duplicates
    _check(query, k, recall)
    condition = _condition(filter, kind)
    clock = _Clock()
    with clock.stage("load"):
        parts.embedder()
        parts.store()
    with clock.stage("embed"):
        vector = embed_query(parts, query)
    warnings: list[str] = []
    with clock.stage("recall"):
        candidates = by_vector(
            parts, vector, recall, condition, group=group, group_duplicates=group_duplicates
        )
        if query.text.strip() and (defaults.lexical if words is None else words):
            try:
                candidates = add_words(
                    parts,
                    query,
                    vector,
                    candidates,
                    wanted=recall,
                    condition=condition,
                    kind=kind,
                    grouped=partial(grouped, parts, group=group),
                )
                if group_duplicates:
                    candidates = without_near_duplicates(parts, candidates)
            except (StoreError, CatalogError) as error:
                # It may be read-only or damaged; the vectors answer alone.
                logger.debug("word search failed", exc_info=True)
                warnings.append(f"words were not searched, only vectors: {error}")
    scores: list[PairScore | None] = [None] * len(candidates)
    cached = score_cache.CacheUse()
    if rerank and candidates and parts.settings.rerank.backend != "passthrough":
        try:
            with clock.stage("load"):
                parts.reranker()
            with clock.stage("rerank"), score_cache.counting() as cached:
                found = second_pass.rerank(
                    parts.reranker(),
                    query,
                    candidates,
                    budget_ms=budget_ms,
                    moments=defaults.moments,
                    rerank_weight=defaults.rerank_weight,
                )
            candidates, scores = found.candidates, found.scores
            warnings += found.warnings
        except MediaError:
            raise  # of the query itself: the user must know, not guess
        except Exception as error:
            logger.debug("second pass failed", exc_info=True)
            reason = str(error) if isinstance(error, SecondGlanceError) else repr(error)
            warnings.append(f"the second pass failed, results are in recall order: {reason}")
    no_match = second_pass.no_match(
        [score.score if score else None for score in scores], floor=defaults.rerank_floor
    )
    warnings += [no_match] if no_match else []
    weight = defaults.rerank_weight
    hits = _order(candidates, scores, rerank_weight=weight, trusted=no_match is None)
    if min_score is not None:
        hits = [hit for hit in hits if hit.score >= min_score]
    return SearchResult(
        query=query,
        hits=tuple(hits[:k]),
        timings_ms=clock.timings_ms(),
        warnings=tuple(warnings),
        rerank_cache_hits=cached.hits,
    )


def _check(query: Query, k: int, recall: int) -> None:
    if not (query.text.strip() or query.image or query.video):
        raise InputError(
            "the query is empty"
            if not query.not_text.strip()
            else "the query says only what it is not",
            remedy="give words, --image or --video to look for",
        )
    if k < 1:
        raise InputError(f"k is {k}; it must be at least 1")
    if recall > MAX_LIMIT:
        raise InputError(f"recall is {recall}; it may be at most {MAX_LIMIT}")


def _condition(filter: str | Filter | None, kind: Kind | None) -> Filter | None:
    condition = parse_filter(filter) if isinstance(filter, str) else filter
    return and_(condition, kind_is(kind) if kind is not None else None)


def _order(
    candidates: Sequence[Candidate],
    scores: Sequence[PairScore | None],
    *,
    rerank_weight: float,
    trusted: bool,
) -> list[Hit]:
    hits = [
        _hit(candidate, score, recall_rank=rank, trusted=trusted)
        for rank, (candidate, score) in enumerate(zip(candidates, scores, strict=True), start=1)
    ]
    if any(scores):
        fused = fuse(
            [hit.score for hit in hits],
            [hit.rerank_score if trusted else None for hit in hits],
            rerank_weight=rerank_weight,
        )
        hits = [
            dataclasses.replace(hit, score=score) for hit, score in zip(hits, fused, strict=True)
        ]
        reached = {hit.id for hit, score in zip(hits, scores, strict=True) if score is not None}
        hits.sort(key=lambda hit: (hit.id not in reached, -hit.score, hit.recall_rank))
    return [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]


def _hit(candidate: Candidate, score: PairScore | None, *, recall_rank: int, trusted: bool) -> Hit:
    match, payload = candidate.match, candidate.match.payload
    moments = candidate.moments
    if trusted:  # by the second pass; those it did not look at follow in recall order
        moments = tuple(
            sorted(moments, key=lambda m: 0.0 if m.rerank_score is None else -1 - m.rerank_score)
        )
    best = moments[0] if moments else None
    return Hit(
        rank=recall_rank,
        id=best.id if best else match.id,
        path=candidate.paths[0],
        kind=payload["kind"],  # type: ignore[arg-type]
        score=match.score if candidate.fused_score is None else candidate.fused_score,
        recall_score=match.score,
        recall_rank=recall_rank,
        start_s=best.start_s if best else None,
        end_s=best.end_s if best else None,
        keyframe_s=best.keyframe_s if best else None,
        lexical_score=candidate.lexical_score,
        rerank_score=score.score if score else None,
        error=score.error if score else None,
        text=str(payload.get("text", "")),
        moments=moments,
        copies=candidate.paths[1:],
        near_duplicates=candidate.near_duplicates,
        absent=candidate.absent,
        metadata=hit_metadata(payload),
    )
