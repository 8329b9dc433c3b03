"""Pictures that are nearly the same: resized, compressed anew, a little brighter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from secondglance.ingest.looks import BITS

if TYPE_CHECKING:
    import numpy.typing as npt

SAME_SHARE = 0.875
"""Bits of two looks that must agree: 56 of 64. See docs/decisions.md for how this was found."""

TELLING_BITS = 8
"""A look with fewer set bits, or fewer unset ones, is that of a blank picture or a plain gradient:
many pictures have it that are not alike."""

ASKED_AT_ONCE = 1024


def telling(look: int) -> bool:
    """Whether a look can tell pictures apart."""
    return TELLING_BITS <= look.bit_count() <= BITS - TELLING_BITS


def differing_bits(threshold: float) -> int:
    """How many bits may differ where a share of them must agree."""
    return int((1 - threshold) * BITS + 1e-9)


class Groups:
    """Union-find over any hashable members."""

    def __init__(self, members: Iterable[str]) -> None:
        self._parent = {member: member for member in members}

    def find(self, member: str) -> str:
        """What stands for the member's group."""
        root = member
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[member] != root:
            self._parent[member], member = root, self._parent[member]
        return root

    def join(self, one: str, other: str) -> None:
        """Makes one group of two."""
        self._parent[self.find(other)] = self.find(one)

    def all(self) -> list[list[str]]:
        """The groups, each in the order in which the members were given."""
        groups: dict[str, list[str]] = {}
        for member in self._parent:
            groups.setdefault(self.find(member), []).append(member)
        return list(groups.values())


def near_groups(looks: Mapping[str, int], *, threshold: float = SAME_SHARE) -> list[list[str]]:
    """Groups of two and more contents that look alike; a chain of likenesses is one group.

    Compares every distinct look with every other through FAISS's binary index, a thousand at a
    time, so memory grows with the number of pictures and of pairs found.

    Args:
        looks: By content.
        threshold: Share of bits that must agree.
    """
    import faiss

    known = {content: value for content, value in looks.items() if telling(value)}
    groups = Groups(known)
    first: dict[int, str] = {}
    for content, value in known.items():
        groups.join(first.setdefault(value, content), content)
    holders = list(first.values())
    codes = _codes(list(first))
    if len(codes):
        index = faiss.IndexBinaryFlat(BITS)
        index.add(codes)
        for start in range(0, len(codes), ASKED_AT_ONCE):
            asked = codes[start : start + ASKED_AT_ONCE]
            # FAISS returns what is nearer than the radius.
            limits, _, found = index.range_search(asked, differing_bits(threshold) + 1)
            counts = np.diff(limits).astype(np.int64)
            askers = np.repeat(np.arange(start, start + len(asked)), counts)
            for one, other in zip(askers[found > askers], found[found > askers], strict=True):
                groups.join(holders[one], holders[other])
    return [group for group in groups.all() if len(group) > 1]


def alike_to_earlier(looks: Sequence[int | None]) -> list[int | None]:
    """For each picture the first one before it that it is like, if that stands for itself.

    Args:
        looks: None for what is no picture, or one whose look is not known.
    """
    standing = np.zeros(len(looks), dtype=np.uint64)
    positions: list[int] = []
    answers: list[int | None] = []
    for position, value in enumerate(looks):
        answers.append(None)
        if value is None or not telling(value):
            continue
        differ = np.bitwise_count(standing[: len(positions)] ^ np.uint64(value))
        alike = np.flatnonzero(differ <= differing_bits(SAME_SHARE))
        if alike.size:
            answers[-1] = positions[alike[0]]
        else:
            standing[len(positions)] = value
            positions.append(position)
    return answers


def _codes(looks: Sequence[int]) -> npt.NDArray[np.uint8]:
    return np.array(looks, dtype=">u8").view(np.uint8).reshape(-1, BITS // 8)
