"""The second pass over what recall found: with all the time it takes, or within a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from secondglance.rerank.base import Reranker
from secondglance.rerank.cascade import FIRST_GROUP, Cascade, CascadeResult
from secondglance.rerank.coarse import coarse_view
from secondglance.retrieve.fusion import fuse
from secondglance.types import Content, Match, Moment, PairScore, Query, VideoClip

AWAY = "absent: the file is not there now; is its drive connected?"
CLOSER = 10
"""Videos, the best by their first moment, of which further moments are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What recall found.

    Attributes:
        match: The best record; its score is the cosine.
        paths: The files that hold it.
        moments: Of a video, in recall order; once the second pass has looked, with its scores.
        near_duplicates: Files whose pictures look nearly the same.
        absent: Whether none of `paths` is there now.
        lexical_score: Of the word search; None if no word matched.
        fused_score: What the candidates are ordered by if there was a word list; else None, and
            the cosine is it.
    """

    match: Match
    paths: tuple[str, ...]
    moments: tuple[Moment, ...]
    near_duplicates: tuple[str, ...] = ()
    absent: bool = False
    lexical_score: float | None = None
    fused_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondPass:
    """What was found out.

    Attributes:
        candidates: As given; moments that were looked at have their scores.
        scores: Of the candidates, that of its best moment for a video; None for what a time budget
            did not reach.
        warnings: For the user.
    """

    candidates: list[Candidate]
    scores: list[PairScore | None]
    warnings: tuple[str, ...] = ()


def rerank(
    reranker: Reranker,
    query: Query,
    candidates: Sequence[Candidate],
    *,
    budget_ms: float | None = None,
    moments: int = 1,
    rerank_weight: float = 1.0,
) -> SecondPass:
    """Scores the candidates of a query, a video by the clip around its best moment.

    What recall takes for the best moment of a video need not be it: of the `CLOSER` videos that
    come first then, the next moments are looked at too, and the best counts.

    Args:
        reranker: What scores.
        query: At least words, a picture or a clip; what it excludes counts against a candidate.
        candidates: In recall order.
        budget_ms: Milliseconds; None takes all the time that is needed. See `Cascade` for what
            is done within a budget.
        moments: Of one video that are looked at, at most.
        rerank_weight: Share of the second pass in the order by which videos come first.

    Raises:
        MediaError: The query itself cannot be read.
        RerankError: The second pass as a whole failed.
    """
    here = [candidate for candidate in candidates if not _is_away(candidate)]
    if len(here) < len(candidates):
        some = SecondPass(candidates=[], scores=[])
        if here:
            some = rerank(
                reranker, query, here, budget_ms=budget_ms, moments=moments,
                rerank_weight=rerank_weight,
            )  # fmt: skip
        left = iter(zip(some.candidates, some.scores, strict=True))
        away = PairScore(score=None, error=AWAY)
        told = [(each, away) if _is_away(each) else next(left) for each in candidates]
        return replace(
            some, candidates=[each for each, _ in told], scores=[score for _, score in told]
        )
    wanted = wanted_content(query)
    if query.not_text.strip():
        reranker = _ButNot(reranker, Content(texts=(query.not_text,)))
    looker = _Looker(reranker, wanted, query.instruction, budget_ms)
    scores = looker.look([document(candidate) for candidate in candidates])
    warnings = list(looker.warnings)
    seen = [{0: score} for score in scores]
    further = _further(candidates, scores, moments, rerank_weight)
    if further and not warnings:
        found = looker.look([document(candidates[c], moment) for c, moment in further])
        for (place, moment), score in zip(further, found, strict=True):
            seen[place][moment] = score
        if looker.warnings:
            reached = sum(score is not None for score in found)
            warnings.append(
                f"the time budget of {budget_ms:g} ms allowed a look at {reached} of "
                f"{len(further)} further moments of videos"
            )
    return SecondPass(
        candidates=[_told(*pair) for pair in zip(candidates, seen, strict=True)],
        scores=[_best(found) for found in seen],
        warnings=(*warnings, *_reduced([score for found in seen for score in found.values()])),
    )


def wanted_content(query: Query) -> Content:
    """What is looked for, as the second pass reads it; what it excludes is left out."""
    return Content(
        texts=(query.text,) if query.text.strip() else (),
        images=(Path(query.image).expanduser(),) if query.image is not None else (),
        videos=_clips(query),
    )


def _clips(query: Query) -> tuple[VideoClip, ...]:
    files = (VideoClip(path=Path(query.video).expanduser()),) if query.video else ()
    return files if query.clip is None else (*files, query.clip.clip)


def _is_away(candidate: Candidate) -> bool:
    # The words of a text are in the store; pixels are read again.
    return candidate.absent and candidate.match.payload["kind"] != "text"


class _Looker:
    """Scores documents until a budget, if there is one, is used up."""

    def __init__(
        self, reranker: Reranker, wanted: Content, instruction: str | None, budget_ms: float | None
    ) -> None:
        self._reranker = reranker
        self._wanted = wanted
        self._instruction = instruction
        self._budget_ms = self._left_ms = budget_ms
        self._each_ms = 0.0
        self.warnings: tuple[str, ...] = ()
        """What the budget did not allow at the last look."""

    def look(self, documents: Sequence[Content]) -> list[PairScore | None]:
        """A score for each; None for what the budget does not reach."""
        if self._budget_ms is None or self._left_ms is None:
            return [*self._reranker.score(self._wanted, documents, instruction=self._instruction)]
        # A cascade begins a first group whatever it costs; by the second look that is known.
        enough = self._left_ms >= FIRST_GROUP * self._each_ms
        found = Cascade(self._reranker).score(
            self._wanted,
            documents,
            instruction=self._instruction,
            budget_ms=self._left_ms if enough else 0.0,
        )
        self._left_ms -= found.spent_ms
        self._each_ms = found.spent_ms / max(found.full, 1)
        self.warnings = (_shortfall(found, self._budget_ms),) if found.used_up else ()
        return [*found.scores]


def _further(
    candidates: Sequence[Candidate],
    scores: Sequence[PairScore | None],
    moments: int,
    rerank_weight: float,
) -> list[tuple[int, int]]:
    """Places of candidates, and which of their moments to look at: second ones first."""
    fused = fuse(
        [c.match.score if c.fused_score is None else c.fused_score for c in candidates],
        [score.score if score else None for score in scores],
        rerank_weight=rerank_weight,
    )
    videos = [place for place, candidate in enumerate(candidates) if len(candidate.moments) > 1]
    first = sorted(videos, key=lambda place: -fused[place])[:CLOSER]
    return [
        (place, moment)
        for moment in range(1, moments)
        for place in first
        if moment < len(candidates[place].moments)
    ]


def _told(candidate: Candidate, seen: Mapping[int, PairScore | None]) -> Candidate:
    """A candidate whose moments have the scores that were found."""
    if not candidate.moments:
        return candidate
    moments = list(candidate.moments)
    for place, score in seen.items():
        moments[place] = replace(moments[place], rerank_score=score.score if score else None)
    return replace(candidate, moments=tuple(moments))


def _best(seen: Mapping[int, PairScore | None]) -> PairScore | None:
    """The highest score; an error if there are only errors."""
    found = [score for score in seen.values() if score is not None]
    return max(found, key=lambda s: -1.0 if s.score is None else s.score, default=None)


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
    shares = [pair.reduced for pair in (wanted, unwanted) if pair.reduced is not None]
    score = wanted.score * (1 - unwanted.score)
    return PairScore(score=score, reduced=min(shares, default=None))


def document(candidate: Candidate, moment: int = 0) -> Content:
    """What the second pass reads: of a video the clip of one of its moments."""
    payload = candidate.match.payload
    path = Path(next((p for p in candidate.paths if Path(p).exists()), candidate.paths[0]))
    if payload["kind"] == "image":
        return Content(images=(path,))
    if payload["kind"] == "video":
        found = candidate.moments[moment]
        clip = VideoClip(
            path=path, start_s=found.start_s, end_s=found.end_s, keyframe_s=found.keyframe_s
        )
        return Content(videos=(clip,))
    return Content(texts=(str(payload.get("text", "")),))


def _reduced(scores: Sequence[PairScore | None]) -> tuple[str, ...]:
    """What did not fit in memory as it is, in plain words."""
    shares = [score.reduced for score in scores if score and score.reduced is not None]
    if not shares:
        return ()
    return (
        f"{len(shares)} of {len(scores)} candidates did not fit in memory at full size and were "
        f"scored with fewer pixels ({min(shares):.0%} at least): lower rerank.max_pixels, or take "
        "a smaller model",
    )


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
