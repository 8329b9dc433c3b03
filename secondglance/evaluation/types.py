"""What flows through an evaluation. All are immutable.

queries + qrels --systems--> SystemRun --measures--> Summary, Difference, Curve, Cost --> Evaluation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from secondglance.types import Kind, Query

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id -> document id -> grade; above 0 is relevant."""
Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Query id -> document id -> score, higher is better."""
PerQuery: TypeAlias = Mapping[str, float]
"""Query id -> value of one measure."""

QueryKind = Literal["text", "image", "video", "mixed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationQuery:
    """One query of an evaluation.

    Attributes:
        id: As the judgments name it.
        query: What is asked.
        kind: What it is made of; `mixed` for words and a picture, say.
        language: BCP 47 code of its words, `en`; empty if it is not known or has no words.
        length: Class of its number of words: `1-3`, `4-8`, `9+`; empty without words.
    """

    id: str
    query: Query
    kind: QueryKind
    language: str = ""
    length: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One result of one system for one query.

    Attributes:
        document: Its id as the judgments name it, or else the library's.
        rank: From 1.
        score: By which the system orders.
        kind: What it is.
        path: A file that holds it; None for a replayed run.
        start_s: Of the stretch of a video.
        end_s: Of the stretch of a video.
        keyframe_s: Time of the frame that shows it.
        text: Of a passage, or a caption.
        recall_rank: In the first pass; None if it was not in it.
        recall_score: Cosine.
        lexical_score: Of the word search.
        rerank_score: Probability that the second pass gives.
        grade: As judged; None if nobody did.
    """

    document: str
    rank: int
    score: float
    kind: Kind | None = None
    path: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    keyframe_s: float | None = None
    text: str = ""
    recall_rank: int | None = None
    recall_score: float | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    grade: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRun:
    """What one system answered.

    Attributes:
        name: As in tables: `clip`, `rerank`, `rerank@gpu`.
        description: One line: which models, how many candidates.
        rankings: By query id, best first.
    """

    name: str
    description: str
    rankings: Mapping[str, tuple[Ranked, ...]]

    def run(self) -> Run:
        """As TREC has it."""
        return {
            query: {ranked.document: ranked.score for ranked in ranking}
            for query, ranking in self.rankings.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean over queries and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One measure of one system over a group of queries.

    Attributes:
        system: Its name.
        measure: As `metrics` names it: `nDCG@10`, `Hit@1`.
        group: `all`, or `language=en`, `kind=image`, `length=1-3`.
        queries: How many.
        value: Mean and interval.
    """

    system: str
    measure: str
    group: str
    queries: int
    value: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How one system differs from another over the same queries.

    Attributes:
        system: Its name.
        baseline: The other's.
        measure: As `metrics` names it.
        group: As in `Summary`.
        queries: How many.
        value: Mean of the differences, and its paired interval.
        p_value: Two-sided, of the paired randomization test.
        p_adjusted: After Holm, over all differences of one measure and group.
        wins: Queries where the system is better.
        losses: Queries where it is worse.
    """

    system: str
    baseline: str
    measure: str
    group: str
    queries: int
    value: Interval
    p_value: float
    p_adjusted: float
    wins: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """Quality at one depth or budget.

    Attributes:
        x: Candidates that the second pass saw, or milliseconds that it had.
        values: By measure.
        latency_ms: Median of a query's second pass there; None if it was not measured.
    """

    x: float
    values: Mapping[str, Interval]
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Quality of one system against what it costs."""

    system: str
    over: Literal["candidates", "budget_ms"]
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Of one stage, in milliseconds a query."""

    median_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one system takes.

    Attributes:
        system: Its name.
        stages: By stage: `embed`, `recall`, `words`, `rerank`, `total`. Only queries whose scores
            were not known before count for `rerank` and `total`.
        pairs: That were scored, not taken from the cache.
        pairs_per_s: Of these; None if there are none.
        peak_memory_mb: Resident memory of the process, at most.
        peak_gpu_mb: Allocated GPU memory, at most; None without a GPU.
    """

    system: str
    stages: Mapping[str, Timing]
    pairs: int = 0
    pairs_per_s: float | None = None
    peak_memory_mb: float | None = None
    peak_gpu_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that was found.

    Attributes:
        library: Its folder.
        created: Time in ISO 8601, with its zone.
        settings: Models, preset, depth: what the figures depend on.
        queries: That were evaluated, by id.
        qrels: Their judgments.
        measures: In the order of the tables.
        baseline: The system that the others are compared with.
        systems: In the order of the tables.
        values: By system, measure and query id.
        summaries: Means with intervals, for all queries and by group.
        differences: Of each system to the baseline.
        ceiling: By depth: the share of relevant documents that the first pass finds, which is what
            a perfect second pass could bring up.
        curves: Quality against depth and time.
        costs: One a system that was run; none for a replayed one.
        warnings: For the user.
        fit: What was fitted to the judgments, with its figures on held-out queries; None if
            nothing was.
    """

    library: str
    created: str
    settings: Mapping[str, str | int | float | bool | None]
    queries: Mapping[str, EvaluationQuery]
    qrels: Qrels
    measures: tuple[str, ...]
    baseline: str
    systems: tuple[SystemRun, ...]
    values: Mapping[str, Mapping[str, PerQuery]]
    summaries: tuple[Summary, ...]
    differences: tuple[Difference, ...]
    ceiling: Mapping[int, Interval] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    costs: tuple[Cost, ...] = ()
    warnings: tuple[str, ...] = ()
    fit: Mapping[str, Any] | None = None
