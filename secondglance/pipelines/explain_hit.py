"""Explanations of what a library found, by the record id of a hit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from secondglance.errors import InputError, MediaError
from secondglance.media.video import Video
from secondglance.pipelines import second_pass
from secondglance.pipelines.explain import GRID, LIMITS, MAX_WORDS, explain_pair
from secondglance.pipelines.explanation import Explanation
from secondglance.pipelines.first_pass import grouped
from secondglance.rerank.limits import Limits
from secondglance.rerank.pictures import read_picture
from secondglance.types import Content, Kind, Match, Query, SearchResult

if TYPE_CHECKING:
    from PIL import Image

    from secondglance.pipelines.build import Parts
    from secondglance.sections import RerankSettings


class ExplainOptions(TypedDict, total=False):
    """Options of `explain`, and their defaults there."""

    grid: int
    query_words: bool
    max_words: int


def explain(
    parts: Parts,
    query: Query,
    candidate: str | Content,
    *,
    grid: int = GRID,
    query_words: bool = False,
    max_words: int = MAX_WORDS,
) -> Explanation:
    """Finds what the second pass's score of a hit depends on; see `explain_pair`.

    Args:
        parts: Of the library.
        query: As it was searched. Words to move away from are left out, with a warning.
        candidate: `Hit.id`, or `Moment.id` of another moment of a video; or what the caller brings.
        grid: Cells along the longer side of a picture.
        query_words: Whether the words of the query are left out, too.
        max_words: Passes over a text at most.

    Raises:
        InputError: The query is empty, no record has this id, or there is no second pass.
        MediaError: The file of the record, or of the query, is absent or cannot be read.
        ModelError: The reranker cannot be loaded.
        StoppedError: Whoever asked went away; see `rerank.stopping`.
    """
    if parts.settings.rerank.backend == "passthrough":
        raise InputError(
            "the library has no second pass to explain: rerank.backend is passthrough",
            remedy="choose a reranker, for instance --set rerank.backend=qwen3vl",
        )
    wanted = second_pass.wanted_content(query)
    if not wanted:
        raise InputError("the query is empty", remedy="give words, --image or --video")
    document = candidate_of(parts, candidate) if isinstance(candidate, str) else candidate
    found = explain_pair(
        parts.reranker(),
        wanted,
        document,
        instruction=query.instruction,
        grid=grid,
        query_words=query_words,
        max_words=max_words,
        limits=_limits(parts.settings.rerank),
    )
    warnings = found.warnings
    if query.not_text.strip():
        warnings = (
            f"what is not wanted ({query.not_text!r}) has no part in the explanation",
            *warnings,
        )
    return replace(found, id=candidate if isinstance(candidate, str) else "", warnings=warnings)


def candidate_of(parts: Parts, record_id: str) -> Content:
    """What the second pass reads of a record.

    Raises:
        InputError: No record has this id.
        MediaError: No file of it is there now.
    """
    records = parts.store().get([record_id]) if record_id else []
    match = [Match(id=r.id, score=0.0, payload=r.payload) for r in records]
    candidates = grouped(parts, match, group=False)
    if not candidates:
        raise InputError(
            f"the library has no record {record_id!r}",
            remedy="take the id of a hit from: secondglance search ... --json",
        )
    [candidate] = candidates
    if candidate.absent and candidate.match.payload["kind"] != "text":
        raise MediaError(
            f"the file {candidate.paths[0]} is not there now", remedy="is its drive connected?"
        )
    return second_pass.document(candidate)


def shown_picture(parts: Parts, record_id: str) -> Image.Image | None:
    """The picture of a record, upright and in full size; of a video its keyframe.

    Raises:
        InputError: No record has this id.
        MediaError: The file is absent or cannot be read.

    Returns:
        None for a text.
    """
    from PIL import Image

    content = candidate_of(parts, record_id)
    if content.images:
        return read_picture(content.images[0])
    if not content.videos:
        return None
    [clip] = content.videos
    path = Path(str(clip.path))
    try:
        max_pixels = parts.settings.ingest.max_pixels
        pixels = Video(path).frame_at(clip.keyframe_s or 0.0, max_pixels=max_pixels)
    except MediaError as error:
        raise MediaError(f"{path}: {error.problem}", remedy=error.remedy) from None
    return Image.fromarray(pixels)


def _limits(settings: RerankSettings) -> Limits:
    """As much as an explanation looks at, and no more than the reranker does."""
    max_frames = min(LIMITS.max_frames, settings.max_frames)
    return Limits(
        min_pixels=settings.min_pixels,
        # The reranker reduces pictures itself, once more than from the file; from larger ones well.
        max_pixels=min(LIMITS.max_pixels, 4 * settings.max_pixels),
        total_pixels=min(LIMITS.total_pixels, settings.total_pixels),
        fps=settings.fps,
        max_frames=max_frames,
        max_listed_frames=max_frames,
    )


def hit_of_rank(
    search: Callable[..., SearchResult],
    query: Query,
    record_id: str,
    *,
    rank: int | None,
    kind: Kind | None = None,
) -> str:
    """The record id that was given, or that of the hit of a rank.

    Args:
        search: As `Library.search`.
        query: What is looked for.
        record_id: Empty where there is a rank.
        rank: From 1; None where there is a record id.
        kind: With a rank: only this kind.

    Raises:
        InputError: Neither or both are given, or there are fewer hits.
    """
    if bool(record_id) == (rank is not None):
        raise InputError(
            "both --id and --rank are given" if record_id else "neither --id nor --rank is given",
            remedy="say which hit to explain: --id ID, or --rank 1 for the best",
        )
    if rank is None:
        return record_id
    hits = search(query, k=rank, kind=kind).hits
    if len(hits) < rank:
        raise InputError(
            f"there is no hit of rank {rank}: the search has {len(hits)}",
            remedy="search first, to see the ranks",
        )
    return hits[rank - 1].id


def options(*, grid: int | None, query_words: bool) -> ExplainOptions:
    """Options of a command line, the defaults where it says nothing."""
    return {"grid": GRID if grid is None else grid, "query_words": query_words}
