"""What is compared: systems by name, and how each orders a query's candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from secondglance.errors import InputError
from secondglance.evaluation.types import Ranked, Run
from secondglance.pipelines.second_pass import Candidate
from secondglance.types import Hit, Moment, PairScore

SystemName = Literal["bm25", "clip", "clip+bm25", "rerank", "fusion"]
SYSTEMS: tuple[SystemName, ...] = get_args(SystemName)
RERANKING: tuple[SystemName, ...] = ("rerank", "fusion")
REPLAY = "replay:"
STEP = 1e-6
"""By which a score must be lower than the one before, relative to it: trec_eval keeps scores in
single precision and orders equal ones by their document's name."""

NameOf: TypeAlias = Callable[[str], str]
"""The judgments' name of a content."""


@dataclass(frozen=True, slots=True)
class System:
    """One system to run.

    Attributes:
        name: As the user wrote it; of a replayed run, `replay:` and the file's name.
        base: What it does; None for a replayed run.
        model: The reranker: a preset, a folder or a hub id; empty for the library's own.
        file: Of a replayed run.
    """

    name: str
    base: SystemName | None
    model: str = ""
    file: Path | None = None

    @property
    def reranks(self) -> bool:
        """Whether it needs a second pass."""
        return self.base in RERANKING

    @property
    def reads_words(self) -> bool:
        """Whether it looks at captions, texts and names."""
        return self.base in ("bm25", "clip+bm25", "fusion")


def parse_systems(names: Sequence[str]) -> tuple[System, ...]:
    """Systems by name, in their order.

    Raises:
        InputError: There is none, one is unknown or stands there twice, a run file is not there.
    """
    systems = [_parse(name.strip()) for name in names if name.strip()]
    if not systems:
        raise InputError("there is no system to evaluate", remedy=_ALLOWED)
    seen = [system.name for system in systems]
    if twice := sorted({name for name in seen if seen.count(name) > 1}):
        raise InputError(
            f"systems named more than once: {', '.join(twice)}",
            remedy="name each once; of replayed runs, give each file a name of its own",
        )
    return tuple(systems)


_ALLOWED = (
    f"allowed are {', '.join(SYSTEMS)}; rerank@MODEL and fusion@MODEL for another reranker (a "
    "preset, a folder or a hub id); replay:FILE for a TREC run"
)


def _parse(name: str) -> System:
    if name.startswith(REPLAY):
        file = Path(name.removeprefix(REPLAY)).expanduser()
        if not file.is_file():
            raise InputError(f"there is no run file {str(file)!r}", remedy=_ALLOWED)
        return System(f"{REPLAY}{file.stem}", None, file=file)
    base, at, model = name.partition("@")
    known = next((system for system in SYSTEMS if system == base), None)
    if known is None:
        raise InputError(f"unknown system {name!r}", remedy=_ALLOWED)
    if at and (not model or known not in RERANKING):
        problem = "has no second pass" if model else "names no model after @"
        raise InputError(f"the system {name!r} {problem}", remedy=_ALLOWED)
    return System(name, known, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A candidate where one system puts it."""

    candidate: Candidate
    score: float
    recall_rank: int | None
    rerank_score: float | None = None
    moment: Moment | None = None


def by_cosine(candidates: Sequence[Candidate]) -> list[Place]:
    """The vector list as it is."""
    return [
        _place(candidate, candidate.match.score, rank)
        for rank, candidate in enumerate(candidates, start=1)
    ]


def by_words(candidates: Sequence[Candidate], vector_list: Sequence[Candidate]) -> list[Place]:
    """The word list as it is."""
    ranks = _ranks(vector_list)
    return [_place(c, c.lexical_score or 0.0, ranks.get(_key(c))) for c in candidates]


def by_both(candidates: Sequence[Candidate]) -> list[Place]:
    """The fused list as it is."""
    return [
        _place(candidate, _first_score(candidate), rank)
        for rank, candidate in enumerate(candidates, start=1)
    ]


def by_probability(
    candidates: Sequence[Candidate],
    scores: Sequence[PairScore | None],
    rest: Sequence[Candidate],
) -> list[Place]:
    """What the second pass saw, by its probability alone; then what it could not score, the rest.

    Args:
        candidates: In the order of the first pass, with their moments' scores.
        scores: Of these.
        rest: What the first pass found beyond.
    """
    scored = [
        _place(candidate, score.score, rank, score.score)
        for rank, (candidate, score) in enumerate(zip(candidates, scores, strict=True), start=1)
        if score is not None and score.score is not None
    ]
    scored.sort(key=lambda place: (-place.score, place.recall_rank))
    done = {place.candidate.match.id for place in scored}
    left = [
        _place(candidate, _first_score(candidate), rank)
        for rank, candidate in enumerate([*candidates, *rest], start=1)
        if candidate.match.id not in done
    ]
    return [*scored, *left]


def by_hits(
    hits: Sequence[Hit], candidates: Sequence[Candidate], rest: Sequence[Candidate]
) -> list[Place]:
    """What `search` shows; then the rest of the first pass.

    Args:
        hits: Of all candidates.
        candidates: In the order of the first pass.
        rest: What it found beyond.
    """
    places = [
        Place(
            candidate=candidates[hit.recall_rank - 1],
            score=hit.score,
            recall_rank=hit.recall_rank,
            rerank_score=hit.rerank_score,
            moment=hit.moments[0] if hit.moments else None,
        )
        for hit in hits
    ]
    left = [
        _place(candidate, _first_score(candidate), rank)
        for rank, candidate in enumerate(rest, start=len(candidates) + 1)
    ]
    return [*places, *left]


def beyond(listed: Iterable[Candidate], taken: Iterable[Candidate]) -> list[Candidate]:
    """What of a list was not taken, in its order."""
    known = {_key(candidate) for candidate in taken}
    return [candidate for candidate in listed if _key(candidate) not in known]


def ranked(
    places: Sequence[Place], *, name: NameOf, grades: Mapping[str, int], depth: int
) -> tuple[Ranked, ...]:
    """The ranking of documents: each once, where its best passage stands, at most `depth`.

    Scores fall from rank to rank, if only by a hair, so that whoever orders by them finds this
    order again.
    """
    found: dict[str, Ranked] = {}
    last: float | None = None
    for place in places:
        candidate, payload = place.candidate, place.candidate.match.payload
        document = name(str(payload["item"]))
        if document in found:
            continue
        last = _below(place.score, last)
        moment = place.moment
        found[document] = Ranked(
            document=document,
            rank=len(found) + 1,
            score=last,
            kind=payload["kind"],  # type: ignore[arg-type]
            path=candidate.paths[0],
            start_s=moment.start_s if moment else None,
            end_s=moment.end_s if moment else None,
            keyframe_s=moment.keyframe_s if moment else None,
            text=str(payload.get("text", "")),
            recall_rank=place.recall_rank,
            recall_score=candidate.match.score,
            lexical_score=candidate.lexical_score,
            rerank_score=place.rerank_score,
            grade=grades.get(document),
        )
        if len(found) == depth:
            break
    return tuple(found.values())


def replayed(
    run: Run, *, name: NameOf, qrels: Mapping[str, Mapping[str, int]], depth: int
) -> dict[str, tuple[Ranked, ...]]:
    """The rankings of a TREC run, ordered as trec_eval does: by score, equal ones by name.

    Args:
        run: By query id; queries without judgments are left out.
        name: The judgments' name of any name of a document, or that name itself.
        qrels: The judgments.
        depth: Documents of a ranking.
    """
    rankings = {}
    for query, grades in qrels.items():
        scores: dict[str, float] = {}
        for document, score in run.get(query, {}).items():
            known = name(document)
            scores[known] = max(score, scores.get(known, score))
        # trec_eval puts the later name first.
        order = sorted(scores, key=lambda document: (scores[document], document), reverse=True)
        last: float | None = None
        ranking = []
        for rank, document in enumerate(order[:depth], start=1):
            last = _below(scores[document], last)
            ranking.append(
                Ranked(document=document, rank=rank, score=last, grade=grades.get(document))
            )
        rankings[query] = tuple(ranking)
    return rankings


def _below(score: float, last: float | None) -> float:
    return score if last is None else min(score, last - STEP * max(1.0, abs(last)))


def _place(
    candidate: Candidate, score: float, rank: int | None, rerank_score: float | None = None
) -> Place:
    moments = candidate.moments
    if rerank_score is not None and moments:
        seen = [moment for moment in moments if moment.rerank_score is not None]
        moments = tuple(sorted(seen, key=lambda moment: -(moment.rerank_score or 0.0))) or moments
    return Place(
        candidate=candidate,
        score=score,
        recall_rank=rank,
        rerank_score=rerank_score,
        moment=moments[0] if moments else None,
    )


def _first_score(candidate: Candidate) -> float:
    return candidate.match.score if candidate.fused_score is None else candidate.fused_score


def _key(candidate: Candidate) -> str:
    # Lists may know one video by different moments.
    payload = candidate.match.payload
    return str(payload["item"]) if payload["kind"] == "video" else candidate.match.id


def _ranks(candidates: Sequence[Candidate]) -> dict[str, int]:
    return {_key(candidate): rank for rank, candidate in enumerate(candidates, start=1)}
