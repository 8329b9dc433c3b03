"""The second pass of an evaluation: every pair scored once, and what each took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from secondglance.config import PRESET_NAMES, read_preset
from secondglance.errors import ConfigError, InputError
from secondglance.pipelines import second_pass
from secondglance.pipelines.build import Parts, close_reranker, open_cached_reranker, open_reranker
from secondglance.pipelines.second_pass import Candidate, SecondPass
from secondglance.rerank.base import Reranker
from secondglance.rerank.score_cache import FILE_NAME, CachedReranker, ScoreCache
from secondglance.sections import RerankSettings, SearchSettings
from secondglance.types import Content, PairScore, Query

OF_THE_MODEL = ("rerank_weight", "rerank_floor")
"""Settings of a search that a preset gives for its reranker."""

Key: TypeAlias = tuple[Content, Content]


@dataclass(slots=True)
class Ledger:
    """What was asked of a reranker, and what it had to work out.

    Attributes:
        asked: Pairs of query and document.
        spent_ms: Milliseconds of each pair that no cache knew; pairs scored together share their
            time evenly.
        known: Scores of pairs that were asked for.
    """

    asked: set[Key] = field(default_factory=set)
    spent_ms: dict[Key, float] = field(default_factory=dict)
    known: dict[Key, PairScore] = field(default_factory=dict)


class _Noting:
    """Around a reranker, with its name."""

    def __init__(self, inner: Reranker, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger

    @property
    def name(self) -> str:
        return self._inner.name


class _Meter(_Noting):
    """Behind the cache: notes what is really scored, and how long it takes."""

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        started = time.perf_counter()
        found = self._inner.score(query, documents, instruction=instruction)
        share = (time.perf_counter() - started) * 1e3 / max(len(documents), 1)
        for document in documents:
            self._ledger.spent_ms[query, document] = share
        return found


class _Once(_Noting):
    """In front of the cache: systems that ask for the same pair get the same score.

    One query at a time, whose instruction is the same in all of its pairs.
    """

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        known = self._ledger.known
        missing = list(dict.fromkeys(d for d in documents if (query, d) not in known))
        if missing:
            found = self._inner.score(query, missing, instruction=instruction)
            known.update({(query, d): s for d, s in zip(missing, found, strict=True)})
        self._ledger.asked.update((query, document) for document in documents)
        return [known[query, document] for document in documents]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """The second pass of one query, as one system has it.

    Attributes:
        found: Candidates and scores, in the order of the first pass.
        spent_ms: Milliseconds of each candidate; None where some of its scores were known before.
        pairs: That were scored, not taken from the cache.
        pairs_ms: What these took.
    """

    found: SecondPass
    spent_ms: tuple[float | None, ...]
    pairs: int
    pairs_ms: float

    @property
    def total_ms(self) -> float | None:
        """What the whole second pass takes; None if that is not known."""
        return total_ms(self.spent_ms)


def total_ms(spent_ms: Sequence[float | None]) -> float | None:
    """The sum; None if a part of it is not known."""
    known = [ms for ms in spent_ms if ms is not None]
    return sum(known) if len(known) == len(spent_ms) else None


class Judge:
    """One reranker during an evaluation.

    Args:
        reranker: As the library opened it, with its cache of scores if there is one.
        search: How its scores are used.
    """

    def __init__(self, reranker: Reranker, search: SearchSettings) -> None:
        self.search = search
        self.is_cached = isinstance(reranker, CachedReranker)
        self._outer = reranker
        self._ledger = Ledger()

    @property
    def name(self) -> str:
        """Of the model."""
        return self._outer.name

    @property
    def uncached(self) -> Reranker:
        """The reranker without its cache, for times that are true."""
        outer = self._outer
        return outer.inner if isinstance(outer, CachedReranker) else outer

    def next_query(self) -> None:
        """Forgets the pairs of the query before; the cache on disk keeps them."""
        self._ledger = Ledger()

    def look(self, query: Query, candidates: Sequence[Candidate]) -> Looked:
        """Scores candidates as `search` does with all the time it takes.

        Raises:
            MediaError: The query itself cannot be read.
            RerankError: The second pass as a whole failed.
        """
        if not candidates:
            return Looked(
                found=SecondPass(candidates=[], scores=[]), spent_ms=(), pairs=0, pairs_ms=0
            )
        ledger, outer = self._ledger, self._outer
        ledger.asked = set()
        if isinstance(outer, CachedReranker):
            metered: Reranker = outer.around(lambda inner: _Meter(inner, ledger))
        else:
            metered = _Meter(outer, ledger)
        found = second_pass.rerank(
            _Once(metered, ledger),
            query,
            candidates,
            moments=self.search.moments,
            rerank_weight=self.search.rerank_weight,
        )
        pairs: dict[Content, list[Key]] = {}
        for key in ledger.asked:
            pairs.setdefault(key[1], []).append(key)
        fresh = {key: ms for key, ms in ledger.spent_ms.items() if key in ledger.asked}
        return Looked(
            found=found,
            spent_ms=tuple(_spent(candidate, pairs, ledger) for candidate in candidates),
            pairs=len(fresh),
            pairs_ms=sum(fresh.values()),
        )


def _spent(
    candidate: Candidate, pairs: Mapping[Content, Sequence[Key]], ledger: Ledger
) -> float | None:
    moments = range(max(len(candidate.moments), 1))
    documents = {second_pass.document(candidate, moment) for moment in moments}
    return total_ms([ledger.spent_ms.get(key) for each in documents for key in pairs.get(each, ())])


@contextmanager
def opened(parts: Parts, model: str) -> Iterator[Judge]:
    """A reranker, loaded for this block; the library's own, which stays, if `model` is empty.

    Args:
        parts: Of the library.
        model: A preset, whose settings of the second pass hold then, or a reranker's folder or hub
            id.

    Raises:
        ModelError: It cannot be found, fetched or loaded.
        InputError: The second pass is switched off by `rerank.backend`.
    """
    rerank, search = settings_of(parts, model)
    if rerank.backend == "passthrough":
        raise InputError(
            "rerank.backend is passthrough: there is no second pass to evaluate",
            remedy="leave out the systems rerank and fusion, or name a model: rerank@MODEL",
        )
    if not model:
        yield Judge(parts.reranker(), search)
        return
    cache = None
    if rerank.score_cache_mb:
        cache = ScoreCache(parts.folder / FILE_NAME, max_mb=rerank.score_cache_mb)
    try:
        reranker = open_reranker(rerank) if cache is None else open_cached_reranker(rerank, cache)
        try:
            yield Judge(reranker, search)
        finally:
            close_reranker(reranker)
    finally:
        if cache is not None:
            cache.close()


def settings_of(parts: Parts, model: str) -> tuple[RerankSettings, SearchSettings]:
    """How a reranker is made and used; see `opened`.

    Raises:
        ConfigError: The preset's file cannot be read.
    """
    own, search = parts.settings.rerank, parts.settings.search
    if not model:
        return own, search
    machine = {"device": own.device, "score_cache_mb": own.score_cache_mb}
    if model not in PRESET_NAMES:
        chosen = {"model": model, "revision": None, "sha256": None, "backend": "qwen3vl"}
        return own.model_copy(update=chosen), search
    preset = read_preset(model)
    standard = {name: SearchSettings.model_fields[name].default for name in OF_THE_MODEL}
    named = {k: v for k, v in preset.get("search", {}).items() if k in OF_THE_MODEL}
    try:
        rerank = RerankSettings(**{**machine, **preset.get("rerank", {})})
    except ValueError as error:
        raise ConfigError(f"the preset {model} cannot be used: {error}") from error
    return rerank, search.model_copy(update={**standard, **named})
