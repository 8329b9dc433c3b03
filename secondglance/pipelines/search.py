"""A query, answered in two passes: recall K by vector, rerank, fuse, cut."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from secondglance.errors import (
    CatalogError,
    InputError,
    MediaError,
    SecondGlanceError,
    StoppedError,
    StoreError,
)
from secondglance.pipelines import ordering, second_pass
from secondglance.pipelines.build import Parts
from secondglance.pipelines.first_pass import (
    by_vector,
    embed_query,
    grouped,
    without_near_duplicates,
)
from secondglance.pipelines.second_pass import Candidate
from secondglance.pipelines.word_recall import add_words
from secondglance.rerank import score_cache, stopping
from secondglance.retrieve.filters import Filter, and_, kind_is, parse_filter
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.types import (
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
    on_recall: Callable[[SearchResult], None] | None = None,
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
        min_score: Leaves out hits whose final score is below: where the library has a fit
            (`pipelines.fitting`) the probability that the hit is relevant, else the mixture of
            both passes, or what recall gives. None takes the setting `search.min_score`.
        budget_ms: For the second pass, in milliseconds: if it does not allow a full look at every
            candidate, there may be quick ones, by which the best get a full one; candidates it
            does not reach keep their recall order, after those it reached.
        group: One hit a video with its best moments; otherwise each stretch is a hit.
        group_duplicates: One hit for pictures that look nearly the same; it names the others.
        words: Whether captions, texts and names are searched by the query's words, too.
        on_recall: Called before the second pass, if there is one, with the answer as it would be
            without it: hits of the same ids, in the order of the first pass.

    Raises:
        InputError: The query, the filter or a number cannot be used.
        StoreError: The store cannot be reached.
        StoppedError: Whoever asked went away; see `rerank.stopping`.
    """
    defaults = parts.settings.search
    k = defaults.k if k is None else k
    recall = max(k, defaults.recall if recall is None else recall)
    rerank = defaults.rerank if rerank is None else rerank
    if group_duplicates is None:
        group_duplicates = defaults.group_duplicates
    _check(query, k, recall)
    asked = _Asked(
        query=query,
        recall=recall,
        condition=_condition(filter, kind),
        kind=kind,
        group=group,
        group_duplicates=group_duplicates,
    )
    clock = _Clock()
    warnings: list[str] = []
    words = bool(query.text.strip()) and (defaults.lexical if words is None else words)
    candidates, words = _recall(parts, asked, clock, warnings, words=words)
    scores: list[PairScore | None] = [None] * len(candidates)
    cached = score_cache.CacheUse()

    def answer() -> SearchResult:
        ordered = ordering.order(
            parts,
            query,
            candidates,
            scores,
            words=words,
            min_score=defaults.min_score if min_score is None else min_score,
        )
        return SearchResult(
            query=query,
            hits=tuple(ordered.hits[:k]),
            timings_ms=clock.timings_ms(),
            warnings=(*warnings, *ordered.warnings),
            rerank_cache_hits=cached.hits,
            message=ordered.message,
        )

    if rerank and candidates and parts.settings.rerank.backend != "passthrough":
        if on_recall is not None:
            on_recall(answer())
        stopping.check()
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
        except (MediaError, StoppedError):
            raise  # of the query itself: the user must know, not guess; or nobody asks any more
        except Exception as error:
            logger.debug("second pass failed", exc_info=True)
            reason = str(error) if isinstance(error, SecondGlanceError) else repr(error)
            warnings.append(f"the second pass failed, results are in recall order: {reason}")
    return answer()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the first pass is asked for; see `search`."""

    query: Query
    recall: int
    condition: Filter | None
    kind: Kind | None
    group: bool
    group_duplicates: bool


def _recall(
    parts: Parts, asked: _Asked, clock: _Clock, warnings: list[str], *, words: bool
) -> tuple[list[Candidate], bool]:
    """The candidates of the first pass, and whether words were searched; adds to `warnings`."""
    with clock.stage("load"):
        parts.embedder()
        parts.store()
    stopping.check()
    with clock.stage("embed"):
        vector = embed_query(parts, asked.query)
    with clock.stage("recall"):
        candidates = by_vector(
            parts,
            vector,
            asked.recall,
            asked.condition,
            group=asked.group,
            group_duplicates=asked.group_duplicates,
        )
        if not words:
            return candidates, False
        try:
            candidates = add_words(
                parts,
                asked.query,
                vector,
                candidates,
                wanted=asked.recall,
                condition=asked.condition,
                kind=asked.kind,
                grouped=partial(grouped, parts, group=asked.group),
            )
            if asked.group_duplicates:
                candidates = without_near_duplicates(parts, candidates)
        except (StoreError, CatalogError) as error:
            # It may be read-only or damaged; the vectors answer alone.
            logger.debug("word search failed", exc_info=True)
            warnings.append(f"words were not searched, only vectors: {error}")
            return candidates, False
    return candidates, True


def _check(query: Query, k: int, recall: int) -> None:
    if not (query.text.strip() or query.image or query.video or query.clip):
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
