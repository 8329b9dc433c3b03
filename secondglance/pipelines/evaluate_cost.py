"""What systems cost, and quality against cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from secondglance.evaluation.types import Cost, Timing
from secondglance.pipelines import second_pass
from secondglance.pipelines.evaluate_recall import Found
from secondglance.pipelines.evaluate_rerank import Judge, Looked, total_ms
from secondglance.pipelines.second_pass import SecondPass
from secondglance.pipelines.systems import System, SystemName

STAGES: dict[SystemName, tuple[str, ...]] = {
    "bm25": ("bm25",),
    "clip": ("embed", "recall"),
    "clip+bm25": ("embed", "recall", "words"),
    "rerank": ("embed", "recall"),
    "fusion": ("embed", "recall", "words"),
}
"""Stages of the first pass of each system; the second pass comes after them."""


@dataclass(slots=True)
class Tally:
    """What one system takes, query by query."""

    system: System
    lexical: bool
    spent_ms: dict[str, list[float]] = field(default_factory=dict)
    pairs: int = 0
    pairs_ms: float = 0.0

    def add(self, found: Found, looked: Looked | None = None) -> None:
        """Counts one query.

        Args:
            found: Its first passes.
            looked: Its second pass; None for systems that have none.
        """
        assert self.system.base is not None
        total = 0.0
        for stage in STAGES[self.system.base]:
            if stage == "words" and self.system.base == "fusion" and not self.lexical:
                continue
            if stage in found.spent_ms:
                ms = found.spent_ms[stage]
                self._note("words" if stage == "bm25" else stage, ms)
                total += ms
        if looked is None:
            self._note("total", total)
            return
        self.pairs += looked.pairs
        self.pairs_ms += looked.pairs_ms
        if looked.total_ms is not None:
            self._note("rerank", looked.total_ms)
            self._note("total", total + looked.total_ms)

    def _note(self, stage: str, ms: float) -> None:
        self.spent_ms.setdefault(stage, []).append(ms)

    def cost(self) -> Cost:
        """The sum of it, with the memory that the process has taken up to now."""
        return Cost(
            system=self.system.name,
            stages={stage: timing(values) for stage, values in self.spent_ms.items()},
            pairs=self.pairs,
            pairs_per_s=self.pairs / self.pairs_ms * 1e3 if self.pairs_ms else None,
            peak_memory_mb=peak_memory_mb(),
            peak_gpu_mb=peak_gpu_mb(),
        )


def timing(values_ms: Sequence[float]) -> Timing:
    """Median and 95th percentile of milliseconds; at least one."""
    return Timing(median_ms=float(np.median(values_ms)), p95_ms=float(np.percentile(values_ms, 95)))


def peak_memory_mb() -> float | None:
    """The most memory that the process has had resident, in MiB; None where no one knows."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20) if sys.platform == "darwin" else most / (1 << 10)


def peak_gpu_mb() -> float | None:
    """The most GPU memory that was allocated since `forget_gpu_peak`, in MiB; None without one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    devices = range(torch.cuda.device_count())
    return float(sum(torch.cuda.max_memory_allocated(each) for each in devices)) / (1 << 20)


def forget_gpu_peak() -> None:
    """Begins anew with the peak of the GPU memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)


def cut(looked: Looked, depth: int) -> SecondPass:
    """The second pass had it seen the first `depth` candidates only."""
    return SecondPass(
        candidates=looked.found.candidates[:depth], scores=looked.found.scores[:depth]
    )


def cut_ms(looked: Looked, depth: int) -> float | None:
    """What a second pass over the first `depth` candidates takes; None if that is not known."""
    return total_ms(looked.spent_ms[:depth])


@dataclass(frozen=True, slots=True)
class Budgeted:
    """One query's second pass within one budget."""

    query: str
    budget_ms: float
    found: SecondPass
    spent_ms: float


def within_budgets(
    judge: Judge,
    queries: Iterable[Found],
    candidates: Callable[[Found], Sequence[second_pass.Candidate]],
    budgets_ms: Sequence[float],
    *,
    on_query: Callable[[], None],
) -> list[Budgeted]:
    """Runs the second pass of some queries within each budget, with no score known before.

    Budgets take turns on each query, the largest first: it alone finds files that the operating
    system has not read, and it has the time.

    Args:
        judge: What scores; its cache of scores is not asked.
        queries: First passes.
        candidates: Of a query, as the system takes them from its first pass.
        budgets_ms: Milliseconds.
        on_query: Called after each query.

    Raises:
        MediaError: A query cannot be read.
        RerankError: The second pass as a whole failed.
    """
    done = []
    for number, found in enumerate(queries):
        some, query = candidates(found), found.query.query
        if number == 0 and some:  # the first call makes ready what all others use
            second_pass.rerank(judge.uncached, query, some[:1])
        for budget_ms in sorted(budgets_ms, reverse=True):
            started = time.perf_counter()
            passed = SecondPass(candidates=[], scores=[])
            if some:
                passed = second_pass.rerank(
                    judge.uncached,
                    query,
                    some,
                    budget_ms=budget_ms,
                    moments=judge.search.moments,
                    rerank_weight=judge.search.rerank_weight,
                )
            spent_ms = (time.perf_counter() - started) * 1e3
            done.append(Budgeted(found.query.id, budget_ms, passed, spent_ms))
        on_query()
    return done


def sample(ids: Sequence[str], count: int | None) -> list[str]:
    """`count` of the ids, evenly spread over their order; all if there are no more."""
    if count is None or count >= len(ids):
        return list(ids)
    return [ids[place * len(ids) // count] for place in range(count)]


def median_ms(values: Sequence[float | None]) -> float | None:
    """The median of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def errors(passes: Mapping[str, Looked]) -> list[str]:
    """Reasons why candidates have no score, one each, with their file's name."""
    return [
        f"{candidate.paths[0]}: {score.error}"
        for looked in passes.values()
        for candidate, score in zip(looked.found.candidates, looked.found.scores, strict=True)
        if score is not None and score.error is not None
    ]
