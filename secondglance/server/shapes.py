"""Results as the HTTP interface shows them: without the server's own paths."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from secondglance.server.problems import without_paths
from secondglance.server.schemas import HitOut, MomentOut, SearchResponse
from secondglance.types import Hit, Moment, SearchResult

if TYPE_CHECKING:
    from secondglance.library import Library

ROOTS_FOR_S = 5.0
"""How long the roots of a library are taken for known, in seconds."""
READ_AGAIN_S = 0.1
"""How soon they are read again for a path that lies in none of them."""


class Shapes:
    """Writes results for clients.

    Args:
        library: Whose results.
        folder: Before the addresses of its interface.
    """

    def __init__(self, library: Library, *, folder: str = "") -> None:
        self._library = library
        self._folder = folder
        self._roots: list[str] = []
        self._until = 0.0

    def search(self, result: SearchResult, *, request_id: str, queue_ms: float) -> SearchResponse:
        """An answer.

        Args:
            result: Of the library.
            request_id: As in the log.
            queue_ms: How long the request waited.
        """
        query = result.query
        said = {"text": query.text, "not": query.not_text, "instruction": query.instruction or ""}
        said |= {
            "image": "given" if query.image else "",
            "video": "given" if query.video or query.clip else "",
        }
        return SearchResponse(
            id=request_id,
            query={key: value for key, value in said.items() if value},
            hits=[self.hit(hit) for hit in result.hits],
            timings_ms=with_queue(result.timings_ms, queue_ms),
            rerank_cache_hits=result.rerank_cache_hits,
            warnings=[without_paths(warning) for warning in result.warnings],
            message=result.message,
        )

    def hit(self, hit: Hit) -> HitOut:
        """One result."""
        return HitOut(
            rank=hit.rank,
            id=hit.id,
            item=hit.item,
            path=self.path(hit.path),
            kind=hit.kind,
            score=hit.score,
            recall_score=hit.recall_score,
            recall_rank=hit.recall_rank,
            lexical_score=hit.lexical_score,
            rerank_score=hit.rerank_score,
            start_s=hit.start_s,
            end_s=hit.end_s,
            keyframe_s=hit.keyframe_s,
            error=None if hit.error is None else without_paths(hit.error),
            text=hit.text,
            moments=[self._moment(moment) for moment in hit.moments],
            copies=[self.path(path) for path in hit.copies],
            near_duplicates=[self.path(path) for path in hit.near_duplicates],
            absent=hit.absent,
            metadata=dict(hit.metadata),
            media_url=self._folder + media_url(hit.id),
            thumbnail_url=self._folder + thumbnail_url(hit.id),
        )

    def _moment(self, moment: Moment) -> MomentOut:
        fields: dict[str, Any] = {
            name: getattr(moment, name)
            for name in ("id", "start_s", "end_s", "keyframe_s", "score", "rerank_score")
        }
        return MomentOut(**fields, thumbnail_url=self._folder + thumbnail_url(moment.id))

    def path(self, path: str) -> str:
        """The way from the folder that was indexed down to a file; its name if there is none."""
        if time.monotonic() >= self._until:
            self._read_roots()
        below = self._below(path)
        if below is None and time.monotonic() >= self._until - ROOTS_FOR_S + READ_AGAIN_S:
            self._read_roots()  # a job may have added one
            below = self._below(path)
        return PurePath(path).name if below is None else below

    def _read_roots(self) -> None:
        # Longest first: a root may lie in another.
        self._roots = sorted(self._library.roots(), key=len, reverse=True)
        self._until = time.monotonic() + ROOTS_FOR_S

    def _below(self, path: str) -> str | None:
        pure = PurePath(path)
        for root in self._roots:
            if pure.is_relative_to(root) and pure != PurePath(root):
                return pure.relative_to(root).as_posix()
        return None


def media_url(id: str) -> str:
    """Where the file of a record is, below the library's folder."""
    return f"/v1/media/{id}"


def thumbnail_url(id: str) -> str:
    """Where the small picture of a record is, below the library's folder."""
    return f"/v1/thumbnails/{id}"


def with_queue(timings_ms: Mapping[str, float], queue_ms: float) -> dict[str, float]:
    """Timings with the wait before."""
    return {"queue": round(queue_ms, 3), **timings_ms}
