"""A second pass within a time budget: a quick look at many, a full look at the best of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from secondglance.rerank.base import Reranker
from secondglance.rerank.coarse import coarse_view
from secondglance.rerank.score_cache import counting
from secondglance.types import Content, PairScore

Stage: TypeAlias = Literal["full", "coarse"]

SHARE = 0.5
"""Of the pixels, for the quick look. The starter reranker tells as little by a quarter of its few
pixels as recall does; with half it finds nearly all that it finds with all."""
FIRST_GROUP = 4
"""Candidates of the first group: enough to measure by, few enough to waste."""
GROWTH = 3
"""So much larger may a group be than the one before. Also bounds by how much the budget can be
passed where the candidates of one group are far costlier than those before."""
REACH = 1.25
"""So many times as many candidates must come into sight for quick looks to be worth their time."""
RESERVE = 0.25
"""Of the time left, kept for full looks while quick ones are taken: quick scores alone put
candidates first that do not hold what they promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeResult:
    """What was found out in time.

    Attributes:
        scores: One a document, in the order given: from the full look if there was one, else
            from the quick look, else None.
        stages: Which look each score is from.
        used_up: Whether the budget ended before all that could be done was done.
        spent_ms: Time taken, in milliseconds.
    """

    scores: tuple[PairScore | None, ...]
    stages: tuple[Stage | None, ...]
    used_up: bool
    spent_ms: float

    @property
    def full(self) -> int:
        """How many candidates had a full look."""
        return self.stages.count("full")

    @property
    def coarse(self) -> int:
        """How many had a quick look only."""
        return self.stages.count("coarse")

    @property
    def unreached(self) -> int:
        """How many had none."""
        return self.stages.count(None)


class Cascade:
    """Spends a time budget on the candidates that deserve it.

    A first small group, in the order given, gets a full look and tells what that costs. If all
    fit in the budget, all get one. If not, and quick looks are so much cheaper that clearly more
    candidates come into sight (`REACH`), they are taken in the order given, all of them or as
    many as leave a `RESERVE` of the time; what time is left then goes to full looks, best quick
    score first, then in the order given. Nothing is begun that is predicted to end after the
    budget; the first group, whose cost is not known yet, is begun whenever there is a budget.
    Groups stay small until one was not answered from a cache.

    Scores of both looks are compared as they are: a full score replaces the quick one of the same
    candidate. So a candidate with a quick look only comes above one with a full look exactly if
    its quick score is above the other's full score.

    A candidate that cannot be read at the first look is not tried again. One whose full look
    fails after its quick look keeps its quick score.

    Args:
        reranker: Takes the full looks. The quick ones too, if it `Coarsens`; otherwise there are
            full looks only, in the order given.
        share: Of the pixels, for the quick look; above 0 and below 1.
        clock: Seconds, never decreasing.
    """

    def __init__(
        self,
        reranker: Reranker,
        *,
        share: float = SHARE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._full = reranker
        self._coarse = coarse_view(reranker, share)
        self._clock = clock

    def score(
        self,
        query: Content,
        documents: Sequence[Content],
        *,
        instruction: str | None = None,
        budget_ms: float,
    ) -> CascadeResult:
        """Looks at documents until the budget is used up.

        Args:
            query: What is looked for.
            documents: The candidates, the likeliest first.
            instruction: Replaces the reranker's default.
            budget_ms: Milliseconds; 0 or less looks at nothing.

        Raises:
            MediaError: The query itself cannot be read.
            RerankError: The second pass as a whole failed.
        """
        started = self._clock()
        run = _Run(len(documents), budget_ms / 1e3, has_coarse=self._coarse is not None)
        rerankers = {"full": self._full, "coarse": self._coarse}
        while (group := run.next_group(self._clock() - started)) is not None:
            stage, places = group
            reranker = rerankers[stage]
            assert reranker is not None  # `next_group` knows what there is
            begun = self._clock()
            with counting() as use:
                found = reranker.score(
                    query, [documents[place] for place in places], instruction=instruction
                )
            asked = use.hits + use.misses
            computed = len(places) * (use.misses / asked if asked else 1)
            run.note(stage, places, found, computed=computed, seconds=self._clock() - begun)
        return CascadeResult(
            scores=tuple(run.scores),
            stages=tuple(run.stages),
            used_up=bool(run.waiting),
            spent_ms=(self._clock() - started) * 1e3,
        )


class _Speed:
    """What a look of one kind costs, by its last group.

    The first group also warms up, and each may hold other media than the one before. Scores from a
    cache tell nothing of what others will cost.
    """

    def __init__(self) -> None:
        self.largest = 0
        self.seconds: float | None = None
        """Of one candidate; None before the first that was computed."""

    def note(self, size: int, computed: float, seconds: float) -> None:
        if computed > 0:
            self.largest = max(self.largest, size)
            self.seconds = seconds / computed


class _Run:
    """Decides what is looked at next, and keeps what was found."""

    def __init__(self, count: int, budget_s: float, *, has_coarse: bool) -> None:
        self.scores: list[PairScore | None] = [None] * count
        self.stages: list[Stage | None] = [None] * count
        self.waiting = list(range(count))
        """Places that may still get a full look, in the order given."""
        self._budget_s = budget_s
        self._has_coarse = has_coarse
        self._full = _Speed()
        self._coarse = _Speed()
        self._quick_until_s: float | None = None

    def note(
        self,
        stage: Stage,
        places: Sequence[int],
        found: Sequence[PairScore],
        *,
        computed: float,
        seconds: float,
    ) -> None:
        """Keeps the scores of a group, and what they took.

        Args:
            stage: Which look it was.
            places: At whom.
            found: Their scores.
            computed: How many were not known from a cache; a fraction where a candidate takes
                several scores.
            seconds: How long it took.
        """
        speed = self._full if stage == "full" else self._coarse
        speed.note(len(places), computed, seconds)
        over = set()
        for place, score in zip(places, found, strict=True):
            if score.score is not None or self.scores[place] is None:
                self.scores[place], self.stages[place] = score, stage
            if stage == "full" or score.score is None:
                over.add(place)
        self.waiting = [place for place in self.waiting if place not in over]

    def next_group(self, spent_s: float) -> tuple[Stage, list[int]] | None:
        """The next look and at whom; None if nothing is left to do, or no time to do it in."""
        left_s = self._budget_s - spent_s
        if not self.waiting or left_s <= 0:
            return None
        full_s = self._full.seconds
        if full_s is None:
            return "full", self.waiting[:FIRST_GROUP]
        unseen = [place for place in self.waiting if self.scores[place] is None]
        if self._has_coarse and unseen and len(self.waiting) * full_s > left_s:
            if self._quick_until_s is None:
                self._quick_until_s = spent_s + (1 - RESERVE) * left_s
            quick = self._quick_looks(len(unseen), full_s, left_s, self._quick_until_s - spent_s)
            if quick:
                return "coarse", unseen[:quick]
        size = min(_affordable(full_s, left_s), GROWTH * self._full.largest)
        return ("full", self._contenders()[:size]) if size else None

    def _quick_looks(self, unseen: int, full_s: float, left_s: float, quick_left_s: float) -> int:
        """How many quick looks come next; 0 if they are not worth their time."""
        quick_s = self._coarse.seconds
        if len(self.waiting) < REACH * (left_s / full_s):
            return 0  # nearly all can have a full look
        if quick_s is None:
            # Its cost is not known yet, but is no more than that of a full look.
            return min(FIRST_GROUP, unseen, _affordable(full_s, quick_left_s))
        ahead = min(unseen, _affordable(quick_s, quick_left_s))
        if len(self.waiting) - unseen + ahead < REACH * (left_s / full_s):
            return 0
        return min(ahead, GROWTH * max(self._coarse.largest, self._full.largest))

    def _contenders(self) -> list[int]:
        """Places to look at fully: best quick score first, then the unseen in order."""

        def promise(place: int) -> tuple[bool, float]:
            score = self.scores[place]
            if score is None or score.score is None:
                return True, 0.0
            return False, -score.score

        return sorted(self.waiting, key=promise)


def _affordable(each_s: float, seconds: float) -> int:
    """How many fit, of so many seconds each."""
    if seconds <= 0:
        return 0
    return int(seconds / each_s) if each_s > 0 else 1 << 30
