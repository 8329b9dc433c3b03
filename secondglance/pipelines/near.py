"""Pictures that are nearly the same: resized, compressed anew, a little brighter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from secondglance.ingest.looks import BITS, Look

if TYPE_CHECKING:
    import numpy.typing as npt

    Cells = npt.NDArray[np.uint8]

SAME_SHARE = 0.875
"""Bits of two looks that must agree: 56 of 64. See docs/decisions.md for how this was found."""

COLOURS_APART = 8.0
"""Mean difference of the cells' colours, of 255, apart from a change of brightness of the whole."""

BRIGHTNESS_APART = 48.0
"""Largest change of brightness of the whole, of 255."""

ASKED_AT_ONCE = 256


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


def near_groups(looks: Mapping[str, Look], *, threshold: float = SAME_SHARE) -> list[list[str]]:
    """Groups of two and more contents that look alike; a chain of likenesses is one group.

    FAISS's binary index compares the hashes, a few hundred with all at a time, so memory grows
    with the number of pictures, not with that of pairs.

    Args:
        looks: By content.
        threshold: Share of bits that must agree.
    """
    import faiss

    groups = Groups(looks)
    standing = _join_same_bits(looks, groups)
    if not standing:
        return []
    bits = _rows([looks[content].bits for content in standing])
    colours = _rows([looks[content].colours for content in standing])
    index = faiss.IndexBinaryFlat(BITS)
    index.add(bits)
    for start in range(0, len(standing), ASKED_AT_ONCE):
        # FAISS returns what is nearer than the radius.
        limits, _, others = index.range_search(
            bits[start : start + ASKED_AT_ONCE], differing_bits(threshold) + 1
        )
        counts = np.diff(limits).astype(np.int64)
        ones = np.repeat(np.arange(start, start + len(counts)), counts)
        pairs = np.stack([ones, others])[:, others > ones]
        for one, other in pairs[:, _same_colours(colours[pairs[0]], colours[pairs[1]])].T:
            groups.join(standing[one], standing[other])
    return [group for group in groups.all() if len(group) > 1]


def _join_same_bits(looks: Mapping[str, Look], groups: Groups) -> list[str]:
    """Joins contents with equal hashes and colours; returns one for each kind of these.

    Of ten thousand frames of one test card FAISS would otherwise name fifty million pairs.
    """
    by_bits: dict[bytes, list[str]] = {}
    for content, look in looks.items():
        standing = by_bits.setdefault(look.bits, [])
        if standing:
            known = _rows([looks[each].colours for each in standing])
            alike = np.flatnonzero(_same_colours(known, _rows([look.colours])))
            if alike.size:
                groups.join(standing[int(alike[0])], content)
                continue
        standing.append(content)
    return [content for standing in by_bits.values() for content in standing]


def alike_to_earlier(looks: Sequence[Look | None]) -> list[int | None]:
    """For each picture the first one before it that it is like, if that stands for itself.

    Args:
        looks: None for what is no picture, or one whose look is not known.
    """
    standing = np.empty(0, dtype=np.int64)
    answers: list[int | None] = [None] * len(looks)
    known = [look or Look(bytes(BITS // 8), bytes(3 * BITS)) for look in looks]
    bits, colours = _rows([look.bits for look in known]), _rows([look.colours for look in known])
    for position, look in enumerate(looks):
        if look is None:
            continue
        differ = np.bitwise_count(bits[standing] ^ bits[position]).sum(axis=1)
        near = standing[differ <= differing_bits(SAME_SHARE)]
        alike = near[_same_colours(colours[near], colours[position][None])]
        if alike.size:
            answers[position] = int(alike[0])
        else:
            standing = np.append(standing, position)
    return answers


def _same_colours(some: Cells, others: Cells) -> npt.NDArray[np.bool_]:
    """Row by row; uint8 of shape (n, cells), where one side may have a single row."""
    apart = some.astype(np.float32) - others
    brighter = apart.mean(axis=1, keepdims=True)
    close: npt.NDArray[np.bool_] = np.abs(apart - brighter).mean(axis=1) <= COLOURS_APART
    close &= np.abs(brighter[:, 0]) <= BRIGHTNESS_APART
    return close


def _rows(values: Sequence[bytes]) -> Cells:
    width = len(values[0]) if values else 0
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(len(values), width)
