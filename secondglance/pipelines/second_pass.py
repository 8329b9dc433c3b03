"""The second pass over what recall found: with all the time it takes, or within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secondglance.rerank.base import Reranker
from secondglance.rerank.cascade import Cascade, CascadeResult
from secondglance.rerank.coarse import coarse_view
from secondglance.types import Content, Match, Moment, PairScore, Query, VideoClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What recall found: its best record, the files that hold it, and its moments if a video."""

    match: Match
    paths: tuple[str, ...]
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """Scores in recall order, None for what a time budget did not reach; and what to tell."""

    scores: list[PairScore | None]
    warnings: tuple[str, ...] = ()


def rerank(
    reranker: Reranker,
    query: Query,
    candidates: Sequence[Candidate],
    *,
    budget_ms: float | None = None,
) -> SecondPass:
    """Scores the candidates of a query.

    Args:
        reranker: What scores.
        query: At least words, a picture or a clip; what it excludes counts against a candidate.
        candidates: In recall order.
        budget_ms: Milliseconds; None takes all the time that is needed. See `Cascade` for what
            is done within a budget.

    Raises:
        MediaError: The query itself cannot be read.
        RerankError: The second pass as a whole failed.
    """
    wanted = Content(
        texts=(query.text,) if query.text.strip() else (),
        images=(Path(query.image).expanduser(),) if query.image is not None else (),
        videos=(VideoClip(path=Path(query.video).expanduser()),) if query.video else (),
    )
    if query.not_text.strip():
        reranker = _ButNot(reranker, Content(texts=(query.not_text,)))
    documents = [_document(candidate) for candidate in candidates]
    if budget_ms is None:
        scores = reranker.score(wanted, documents, instruction=query.instruction)
        return SecondPass(scores=[*scores])
    found = Cascade(reranker).score(
        wanted, documents, instruction=query.instruction, budget_ms=budget_ms
    )
    warnings = (_shortfall(found, budget_ms),) if found.used_up else ()
    return SecondPass(scores=[*found.scores], warnings=warnings)


def no_match(scores: Sequence[float | None], *, floor: float) -> str | None:
    """The warning if the second pass says no to all; None if it has said yes, or nothing.

    A small model says no to media unlike any it was trained on; what differs then is noise.

    Args:
        scores: Probabilities; None for what it did not score.
        floor: What the best must reach, `search.rerank_floor`.
    """
    best = max((score for score in scores if score is not None), default=None)
    if best is None or best >= floor:
        return None
    return (
        f"the second pass finds no match (best {best:.2f}, search.rerank_floor "
        f"{floor:g}): results are in recall order"
    )


class _ButNot:
    """A reranker for what is relevant to the query, and not to what it excludes."""

    def __init__(self, reranker: Reranker, unwanted: Content) -> None:
        self._reranker = reranker
        self._unwanted = unwanted

    @property
    def name(self) -> str:
        return self._reranker.name

    def coarse(self, share: float) -> Reranker | None:
        view = coarse_view(self._reranker, share)
        return None if view is None else _ButNot(view, self._unwanted)

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        found = self._reranker.score(query, documents, instruction=instruction)
        against = self._reranker.score(self._unwanted, documents, instruction=instruction)
        return [_but_not(*pair) for pair in zip(found, against, strict=True)]


def _but_not(wanted: PairScore, unwanted: PairScore) -> PairScore:
    if wanted.score is None or unwanted.score is None:
        return wanted if wanted.score is None else unwanted
    return PairScore(score=wanted.score * (1 - unwanted.score))


def _document(candidate: Candidate) -> Content:
    payload = candidate.match.payload
    path = Path(next((p for p in candidate.paths if Path(p).exists()), candidate.paths[0]))
    if payload["kind"] == "image":
        return Content(images=(path,))
    if payload["kind"] == "video":
        start, end = float(payload["start_s"]), float(payload["end_s"])
        return Content(videos=(VideoClip(path=path, start_s=start, end_s=end),))
    return Content(texts=(str(payload.get("text", "")),))


def _shortfall(found: CascadeResult, budget_ms: float) -> str:
    """What a budget did not allow, in plain words."""
    budget = f"the time budget of {budget_ms:g} ms"
    count = len(found.scores)
    if not found.full and not found.coarse:
        return f"{budget} allowed no second pass: results are in recall order"
    looks = f"a full look at {found.full} of {count} candidates"
    if found.coarse:
        looks += f", a quick one at {found.coarse}"
    if found.unreached:
        looks += f"; the other {found.unreached} follow in recall order"
    return f"{budget} allowed {looks}"
