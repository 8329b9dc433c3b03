"""What waits for the devices: the jobs of one key, and how a batch is taken out of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from secondglance.rerank.scheduler import Job

SMALLEST_TOKENS = 8_192
"""Several devices share what waits in batches no smaller than this, on which they work well."""
LIKENESS = 2
"""Pairs longer than 1/2 of a batch's longest join it first: less than half of it is padding."""


class Pick(NamedTuple):
    """A pair on its way to a device, and where its score goes."""

    job: Job
    place: int
    pair: Sized


class Lane:
    """The jobs of one key; the first is the one whose turn it is."""

    def __init__(self, due_s: float) -> None:
        self.jobs: deque[Job] = deque()
        self.due_s = due_s

    def room(self, batch_tokens: int, devices: int) -> int:
        """Pairs in the next batch, at most: as long as its longest, times their number, fits.

        With several devices it is no more than one's share of what waits (guided self-scheduling,
        Polychronopoulos and Kuck 1987), so that none stands idle while another works for long.
        """
        longest = max(1, len(self.jobs[0]._waiting[-1][1]))
        most = batch_tokens // longest
        if devices > 1:
            share = -(-self.count() // devices)
            most = min(most, max(share, SMALLEST_TOKENS // longest))
        return max(1, most)

    def fills(self, room: int) -> bool:
        """Whether so many pairs wait."""
        return self.count() >= room

    def count(self) -> int:
        """Pairs that wait."""
        return sum(len(job._waiting) for job in self.jobs)

    def form(self, room: int) -> list[Pick]:
        """Takes a batch out of the lane, longest first, and ends the first job's turn."""
        longest = len(self.jobs[0]._waiting[-1][1])
        batch: list[Pick] = []
        # First those of like length; what room is left then goes to the shorter ones.
        for shortest in (longest // LIKENESS + 1, 0):
            turns = deque(self.jobs)
            while turns and len(batch) < room:
                job = turns.popleft()
                pick = job._pop(shortest=shortest, longest=longest)
                if pick is not None:
                    batch.append(pick)
                    turns.append(job)
        self.jobs.rotate(-1)
        self.jobs = deque(job for job in self.jobs if job._waiting)
        return sorted(batch, key=lambda pick: len(pick.pair), reverse=True)
