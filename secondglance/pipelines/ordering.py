"""Candidates become hits: by the fixed mixture of both passes, or by a fitted probability."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from secondglance.errors import InputError
from secondglance.evaluation.fusion_model import features
from secondglance.pipelines import fitting, second_pass
from secondglance.pipelines.build import Parts
from secondglance.pipelines.second_pass import Candidate
from secondglance.pipelines.shown import hit_metadata
from secondglance.retrieve.fusion import fuse
from secondglance.sections import SearchSettings
from secondglance.types import Hit, PairScore, Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """Hits, and what is to be said of them.

    Attributes:
        hits: Best first.
        warnings: For the user.
        message: That nothing matches, if a fit says so of every candidate; else empty.
    """

    hits: list[Hit]
    warnings: tuple[str, ...] = ()
    message: str = ""


def order(
    parts: Parts,
    query: Query,
    candidates: Sequence[Candidate],
    scores: Sequence[PairScore | None],
    *,
    words: bool,
    min_score: float | None,
    settings: SearchSettings | None = None,
) -> Ordered:
    """Puts candidates in their final order and leaves out those below a score.

    Args:
        parts: Of the library.
        query: What is asked.
        candidates: In recall order.
        scores: Of the second pass; None for what it did not look at.
        words: Whether words were searched, too.
        min_score: A probability where a fit is used; else a score.
        settings: Others than the library's, say for another reranker; no fit is used then.

    Raises:
        InputError: A fit is used and `min_score` is no probability.
    """
    reranked = any(score is not None for score in scores)
    chosen, warning = None, None
    if settings is None:
        settings = parts.settings.search
        chosen, warning = fitting.choose(parts, query, words=words, reranked=reranked)
    warnings = [warning] if warning else []
    no_match = second_pass.no_match(
        [score.score if score else None for score in scores], floor=settings.rerank_floor
    )
    trusted = no_match is None
    if chosen is not None:
        if min_score is not None and not 0 <= min_score <= 1:
            raise InputError(
                f"min_score is {min_score:g}; with the fit of this library it is a probability, "
                "from 0 to 1",
                remedy="or set search.fitted = false to cut by the unfitted score",
            )
        model = chosen.second or chosen.first
        hits = _in_order(
            candidates,
            scores,
            rerank_weight=settings.rerank_weight,
            trusted=trusted or model.order == "fitted",
        )
        hits = _by_probability(hits, candidates, scores, chosen)
    else:
        warnings += [no_match] if no_match else []
        hits = _in_order(candidates, scores, rerank_weight=settings.rerank_weight, trusted=trusted)
    best = max((hit.score for hit in hits), default=None)
    message = ""
    if min_score is not None:
        hits = [hit for hit in hits if hit.score >= min_score]
        if chosen is not None and best is not None and not hits:
            # Rounded down: it must not look as if it reached the limit.
            shown = math.floor(best * 100) / 100
            message = f"nothing in this library matches (best {shown:.2f}, below {min_score:g})"
    hits = [dataclasses.replace(hit, rank=rank) for rank, hit in enumerate(hits, start=1)]
    return Ordered(hits=hits, warnings=tuple(warnings), message=message)


def _by_probability(
    hits: Sequence[Hit],
    candidates: Sequence[Candidate],
    scores: Sequence[PairScore | None],
    chosen: fitting.Chosen,
) -> list[Hit]:
    """Hits with their probabilities, in the fitted order if that is the better one.

    What the second pass did not score has the probability that the first gives. What it did not
    even look at, for lack of time, stays behind, as without a fit.
    """
    if not hits:
        return []
    rerank = [score.score if score else None for score in scores]
    seen = features(
        [candidate.match.score for candidate in candidates],
        [candidate.lexical_score for candidate in candidates],
        rerank,
    )
    probability = chosen.first.probability(seen)
    if chosen.second is not None:
        scored = np.array([score is not None for score in rerank])
        probability = np.where(scored, chosen.second.probability(seen), probability)
    told = [dataclasses.replace(hit, score=float(probability[hit.recall_rank - 1])) for hit in hits]
    if (chosen.second or chosen.first).order == "fixed":
        return told
    log_odds = _log_odds(chosen, seen, rerank)
    reached = [score is not None for score in scores]

    def key(hit: Hit) -> tuple[bool, float, float, int]:
        place = hit.recall_rank - 1
        if chosen.second is not None and not reached[place]:
            return True, 0.0, 0.0, hit.recall_rank
        # The calibration is flat in places; the log-odds below it are not.
        return False, -hit.score, -log_odds[place], hit.recall_rank

    return sorted(told, key=key)


def _log_odds(
    chosen: fitting.Chosen, seen: np.ndarray, rerank: Sequence[float | None]
) -> list[float]:
    first = chosen.first.log_odds(seen)
    if chosen.second is None:
        return [float(odds) for odds in first]
    second = chosen.second.log_odds(seen)
    return [
        float(one if score is None else two)
        for one, two, score in zip(first, second, rerank, strict=True)
    ]


def _in_order(
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
    return hits


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
        item=str(payload["item"]),
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
