"""Wins and losses: the queries that another system changes most, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secondglance.evaluation.tables import SAME
from secondglance.evaluation.thumbnails import PICTURE_SUFFIXES, Thumbnails
from secondglance.evaluation.types import Evaluation, EvaluationQuery, Ranked
from secondglance.types import clock

TOP = 5
MAX_TEXT = 240
MAX_NAME = 120
QUERY_FRAME_S = 1.0
"""Of a query's video: clips often begin with black."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One result as it is shown.

    Attributes:
        ranked: The result.
        name: Its file's name.
        picture: A data URI; None for text, and where no picture can be shown.
        passage: Words that stand in for a picture.
        moment: `0:12-0:17` of a video, or empty.
        other_rank: What the other system ranks it; None if it does not.
        scores: What there is beside the rank, with names.
    """

    ranked: Ranked
    name: str
    picture: str | None
    passage: str
    moment: str
    other_rank: int | None
    scores: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One query before and after.

    Attributes:
        query: What was asked.
        text: Its words, cut if they are many.
        picture: Of the query, a data URI.
        media: Name of its picture or video.
        before: Value of the measure with the baseline.
        after: With the other system.
        old: First results of the baseline.
        new: First results of the other system.
        relevant: How many documents are.
        old_first: Rank of the first relevant document; None if it is not there.
        new_first: The same, of the other system.
    """

    query: EvaluationQuery
    text: str
    picture: str | None
    media: str
    before: float
    after: float
    old: tuple[Tile, ...]
    new: tuple[Tile, ...]
    relevant: int
    old_first: int | None
    new_first: int | None

    @property
    def difference(self) -> float:
        """Above 0 is a win."""
        return self.after - self.before


def differences(evaluation: Evaluation, system: str, measure: str) -> dict[str, float]:
    """System minus baseline, by query, where both have a value."""
    before = evaluation.values.get(evaluation.baseline, {}).get(measure, {})
    after = evaluation.values.get(system, {}).get(measure, {})
    return {
        id_: after[id_] - before[id_]
        for id_ in evaluation.queries
        if id_ in after and id_ in before
    }


def largest(found: dict[str, float], count: int) -> tuple[list[str], list[str]]:
    """Queries with the largest gains, then those with the largest losses, worst first."""
    ordered = sorted(found, key=lambda id_: found[id_])
    losses = [id_ for id_ in ordered[:count] if found[id_] < -SAME]
    wins = [id_ for id_ in reversed(ordered[-count:] if count else []) if found[id_] > SAME]
    return wins, losses


def changes_of(
    evaluation: Evaluation,
    system: str,
    measure: str,
    ids: Sequence[str],
    thumbnails: Thumbnails,
) -> list[Change]:
    """Each query with the first five of the baseline and of a system."""
    rankings = {run.name: run.rankings for run in evaluation.systems}
    changes = []
    for id_ in ids:
        query, qrels = evaluation.queries[id_], evaluation.qrels.get(id_, {})
        old = rankings.get(evaluation.baseline, {}).get(id_, ())
        new = rankings.get(system, {}).get(id_, ())
        picture, media = _query_picture(query, thumbnails)
        changes.append(
            Change(
                query=query,
                text=cut(query.query.text, MAX_TEXT),
                picture=picture,
                media=media,
                before=evaluation.values[evaluation.baseline][measure][id_],
                after=evaluation.values[system][measure][id_],
                old=_tiles(old, new, thumbnails),
                new=_tiles(new, old, thumbnails),
                relevant=sum(grade > 0 for grade in qrels.values()),
                old_first=_first_relevant(old),
                new_first=_first_relevant(new),
            )
        )
    return changes


def cut(text: str, limit: int) -> str:
    """Text in one line, with `...` where it is cut."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 3].rstrip()}..."


def _first_relevant(ranking: Sequence[Ranked]) -> int | None:
    return next((ranked.rank for ranked in ranking if (ranked.grade or 0) > 0), None)


def _query_picture(query: EvaluationQuery, thumbnails: Thumbnails) -> tuple[str | None, str]:
    if query.query.image is not None:
        path = Path(query.query.image)
        return thumbnails.picture(path), cut(path.name, MAX_NAME)
    if query.query.video is not None:
        path = Path(query.query.video)
        return thumbnails.frame(path, QUERY_FRAME_S), cut(path.name, MAX_NAME)
    return None, ""


def _tiles(
    ranking: Sequence[Ranked], other: Sequence[Ranked], thumbnails: Thumbnails
) -> tuple[Tile, ...]:
    ranks = {ranked.document: ranked.rank for ranked in other}
    return tuple(
        Tile(
            ranked=ranked,
            name=cut(Path(ranked.path or ranked.document).name or ranked.document, MAX_NAME),
            picture=_picture(ranked, thumbnails),
            passage=cut(ranked.text, MAX_TEXT) if ranked.kind == "text" else "",
            moment=_moment(ranked),
            other_rank=ranks.get(ranked.document),
            scores=_scores(ranked),
        )
        for ranked in ranking[:TOP]
    )


def _picture(ranked: Ranked, thumbnails: Thumbnails) -> str | None:
    if ranked.path is None:
        return None
    path = Path(ranked.path)
    if ranked.kind == "video":
        return thumbnails.frame(path, ranked.keyframe_s or ranked.start_s or 0.0)
    if ranked.kind == "image" or (ranked.kind is None and path.suffix.lower() in PICTURE_SUFFIXES):
        return thumbnails.picture(path)
    return None


def _scores(ranked: Ranked) -> tuple[tuple[str, float], ...]:
    named = (
        ("score", ranked.score),
        ("rerank", ranked.rerank_score),
        ("cosine", ranked.recall_score),
        ("words", ranked.lexical_score),
    )
    return tuple((name, value) for name, value in named if value is not None)


def _moment(ranked: Ranked) -> str:
    if ranked.start_s is None or ranked.end_s is None:
        return ""
    return f"{clock(ranked.start_s)}-{clock(ranked.end_s)}"
