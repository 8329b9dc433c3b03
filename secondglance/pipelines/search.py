"""A query, answered in two passes: recall K by vector, rerank, fuse, cut."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import (
    CatalogError,
    InputError,
    MediaError,
    SecondGlanceError,
    StoreError,
)
from secondglance.ingest import looks, video
from secondglance.pipelines import second_pass
from secondglance.pipelines.build import Parts
from secondglance.pipelines.near import alike_to_earlier
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
    Match,
    Moment,
    PairScore,
    Query,
    SearchResult,
)

if TYPE_CHECKING:
    from secondglance.types import Vector

logger = logging.getLogger(__name__)

QUERY_FRAMES = 8
"""Frames of a query clip that its vector is the mean of."""

MAX_MOMENTS = 5


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
        candidates = _recall(
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
                    grouped=partial(_grouped, parts, group=group),
                )
                if group_duplicates:
                    candidates = _without_near_duplicates(parts, candidates)
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


def embed_query(parts: Parts, query: Query) -> Vector:
    """The query as one unit vector, shape (dim,).

    Words, picture and clip are averaged; `not_text` is then subtracted with the weight
    `search.not_weight`.

    Raises:
        MediaError: The picture or the clip cannot be read.
    """
    embedder = parts.embedder()
    max_pixels = parts.settings.ingest.max_pixels
    found: list[Vector] = []
    if query.text.strip():
        found.append(embedder.embed_texts([query.text])[0])
    if query.image is not None:
        path = Path(query.image).expanduser()
        with _named(path):
            found.append(embedder.embed_image(path, max_pixels=max_pixels))
    if query.video is not None:
        path = Path(query.video).expanduser()
        with _named(path):
            plan = video.plan_even(
                path, step_s=1e-3, max_segments=QUERY_FRAMES, max_pixels=max_pixels
            )
            frames = video.read_frames(path, plan.frames, max_pixels=max_pixels)
            readable = [frame for frame in frames if frame is not None]
            if not readable:
                raise MediaError("no frame of it can be decoded")
            found.append(_unit(embedder.embed_pictures(readable).mean(axis=0)))
    vector = _unit(np.mean(found, axis=0))
    if query.not_text.strip():
        away = embedder.embed_texts([query.not_text])[0]
        vector = _unit(vector - parts.settings.search.not_weight * away)
    return vector


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    result: Vector = (vector / max(length, 1e-12)).astype(np.float32)
    return result


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name into errors about a query file."""
    if not path.is_file():
        raise InputError(f"there is no query file {str(path)!r}", remedy="check the path")
    try:
        yield
    except MediaError as error:
        raise MediaError(f"cannot use the query file {path}: {error.problem}") from None


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


def _recall(
    parts: Parts,
    vector: Vector,
    wanted: int,
    condition: Filter | None,
    *,
    group: bool,
    group_duplicates: bool,
) -> list[Candidate]:
    """The best `wanted` candidates; asks for more records while videos fold many into one."""
    store = parts.store()
    depth = wanted
    while True:
        matches = store.search(vector, limit=depth, filter=condition)
        candidates = _grouped(parts, matches, group=group)
        if group_duplicates:
            candidates = _without_near_duplicates(parts, candidates)
        if len(candidates) >= wanted or len(matches) < depth or depth >= MAX_LIMIT:
            return candidates[:wanted]
        depth = min(4 * depth, MAX_LIMIT)


def _grouped(parts: Parts, matches: Sequence[Match], *, group: bool) -> list[Candidate]:
    together: dict[str, list[Match]] = {}
    for match in matches:
        one_hit = group and match.payload["kind"] == "video"
        together.setdefault(str(match.payload["item"]) if one_hit else match.id, []).append(match)
    candidates = []
    for members in together.values():
        best = members[0]
        described = str(Path(str(best.payload["root"])) / str(best.payload["path"]))
        files = [file.path for file in parts.catalog.files_with(str(best.payload["item"]))]
        if not files:
            continue  # stored by a run that was killed before it finished the file
        here = {path: Path(path).exists() for path in files}
        files.sort(key=lambda path: (not here[path], path != described))
        moments = tuple(_moment(match) for match in members[:MAX_MOMENTS])
        candidates.append(
            Candidate(
                match=best,
                paths=tuple(files),
                absent=not any(here.values()),
                moments=moments if best.payload["kind"] == "video" else (),
            )
        )
    return candidates


def _without_near_duplicates(parts: Parts, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of pictures that look alike the best stays, or the first that is there now."""
    items = [str(candidate.match.payload["item"]) for candidate in candidates]
    known = looks.looks_of(parts.catalog, items)
    groups: dict[int, list[Candidate]] = {}
    likeness = alike_to_earlier([known.get(item) for item in items])
    for position, (candidate, earlier) in enumerate(zip(candidates, likeness, strict=True)):
        groups.setdefault(position if earlier is None else earlier, []).append(candidate)
    kept = []
    for members in groups.values():
        shown = next((member for member in members if not member.absent), members[0])
        others = [*shown.near_duplicates]
        for member in members:
            if member is not shown:
                others += [*member.paths, *member.near_duplicates]
        kept.append(dataclasses.replace(shown, near_duplicates=tuple(others)))
    return kept


def _moment(match: Match) -> Moment:
    payload: Mapping[str, object] = match.payload
    start, end, frame = (float(str(payload.get(f, 0))) for f in ("start_s", "end_s", "keyframe_s"))
    return Moment(start_s=start, end_s=end, keyframe_s=frame, score=match.score, id=match.id)


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
