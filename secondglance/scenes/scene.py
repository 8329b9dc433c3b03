"""Scenes: what is where, of which colour, how many, and what it does."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from secondglance.scenes.vocabulary import (
    COLOURS,
    PLACES,
    TIMES,
    TOGETHER,
    VERBS,
    WEATHERS,
    Colour,
    Place,
    Relation,
    Size,
    Split,
    Time,
    Verb,
    Weather,
    kinds,
)

if TYPE_CHECKING:
    import numpy.typing as npt

MAX_COUNT = 5
SPLIT_SHARES: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
SPLIT_SEED = 20_251
APART = 0.24
"""Two groups are beside or above each other from this distance on, in picture sides."""
STEEPNESS = 1.5
"""... and if the distance that way is so many times that across."""
EXTENT: dict[Size, float] = {"small": 0.19, "medium": 0.29, "big": 0.47}
"""Side of a single object, as a fraction of the picture's shorter side."""
CLUSTER_EXTENT = {1: 0.29, 2: 0.36, 3: 0.38, 4: 0.38, 5: 0.44}
"""The same for a group of so many."""
EDGE = 0.03
"""How far a group may reach over the edge of the picture."""
HIDING = 0.7
"""Groups nearer to each other than this, in sums of their radii, hide each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Equal objects that stand together; `x`, `y` is their middle, 0 to 1 from the top left."""

    kind: int
    colour: Colour | None = None
    size: Size = "medium"
    count: int = 1
    x: float = 0.5
    y: float = 0.5

    @property
    def extent(self) -> float:
        """Side of the square it fills."""
        return EXTENT[self.size] if self.count == 1 else CLUSTER_EXTENT[self.count]


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What a group does in a clip; `other` is the second group of `meet` and `part`.

    `direction` is -1 or 1: to which side a group that comes back sets out.
    """

    verb: Verb
    group: int
    other: int | None = None
    direction: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture, or with `moving` one clip."""

    place: Place
    time: Time
    weather: Weather
    groups: tuple[Group, ...]
    motions: tuple[Motion, ...] = ()
    moving: bool = False

    def relation(self, first: int, second: int) -> Relation | None:
        """Where the first group is as seen from the second, if that is clear."""
        a, b = self.groups[first], self.groups[second]
        across, down = a.x - b.x, a.y - b.y
        if abs(across) >= max(APART, STEEPNESS * abs(down)):
            return "left" if across < 0 else "right"
        if abs(down) >= max(APART, STEEPNESS * abs(across)):
            return "above" if down < 0 else "below"
        return None

    def motion_of(self, group: int) -> Motion | None:
        """What a group does, if anything."""
        return next((m for m in self.motions if group in (m.group, m.other)), None)


@functools.cache
def _splits() -> npt.NDArray[np.uint8]:
    """Which split each pair of kinds belongs to: 0 train, 1 validation, 2 test."""
    count = len(kinds())
    draw = np.random.default_rng(SPLIT_SEED).random((count, count))
    draw = np.triu(draw) + np.triu(draw, 1).T
    edges = np.cumsum(list(SPLIT_SHARES.values()))[:-1]
    return np.searchsorted(edges, draw, side="right").astype(np.uint8)


@functools.cache
def _partners(split: Split) -> tuple[tuple[int, ...], ...]:
    belongs = _splits() == list(SPLIT_SHARES).index(split)
    np.fill_diagonal(belongs, False)
    return tuple(tuple(np.flatnonzero(row).tolist()) for row in belongs)


def composition_split(chosen: Iterable[int]) -> set[Split]:
    """Splits of the pairs among some kinds. Training scenes hold pairs of `train` only."""
    table, names = _splits(), list(SPLIT_SHARES)
    return {names[table[a, b]] for a, b in itertools.combinations(sorted(set(chosen)), 2)}


def choose_kinds(count: int, split: Split, rng: random.Random) -> tuple[int, ...]:
    """Different kinds that may stand together in a split.

    In `train` all pairs belong to it. In the others each kind forms a pair of that split with the
    first, so that none of their combinations occurs in training.
    """
    while True:
        chosen = [rng.randrange(len(kinds()))]
        partners = _partners(split)[chosen[0]]
        while len(chosen) < count:
            options = [
                kind
                for kind in (rng.choice(partners) for _ in range(8))
                if kind not in chosen
                and (split != "train" or all(kind in _partner_set(k) for k in chosen))
            ]
            if not options:
                break
            chosen.append(options[0])
        if len(chosen) == count:
            return tuple(chosen)


@functools.cache
def _partner_set(kind: int) -> frozenset[int]:
    return frozenset(_partners("train")[kind])


def replacement(scene: Scene, group: int, split: Split, rng: random.Random) -> int:
    """A kind that is not in the scene and may take the place of a group's."""
    others = [g.kind for place, g in enumerate(scene.groups) if place != group]
    taken = {scene.groups[group].kind, *others}
    while True:
        kind = rng.randrange(len(kinds()))
        if kind in taken:
            continue
        if split != "train" or all(kind in _partner_set(other) for other in others):
            return kind


def sample(rng: random.Random, *, split: Split = "train", moving: bool = False) -> Scene:
    """Draws a scene: one to four groups in training, two to four in the other splits."""
    weights = (0.2, 0.5, 0.3, 0.0) if moving else (0.12, 0.36, 0.32, 0.2)
    first = 0 if split == "train" else 1
    count = rng.choices((1, 2, 3, 4)[first:], weights[first:])[0]
    chosen = choose_kinds(count, split, rng)
    groups = [
        Group(kind=kind, colour=rng.choice(COLOURS) if rng.random() < 0.55 else None)
        for kind in chosen
    ]
    groups = _sizes(groups, rng, moving=moving)
    motions = _motions(groups, rng) if moving else ()
    return Scene(
        place=rng.choice(PLACES),
        time=rng.choice(TIMES),
        weather=rng.choice(WEATHERS),
        groups=place_groups(groups, rng, motions=motions),
        motions=motions,
        moving=moving,
    )


def _sizes(groups: list[Group], rng: random.Random, *, moving: bool) -> list[Group]:
    """Counts and sizes, so that all have room."""
    big, crowds, result = 0, 0, []
    for group in groups:
        draw = rng.random()
        if draw < (0.15 if moving else 0.3) and crowds < 2:
            crowds += 1
            count = rng.randint(2, 3 if moving else MAX_COUNT)
            result.append(replace(group, count=count))
        elif draw < 0.5 and big < (2 if len(groups) < 3 else 1):
            big += 1
            result.append(replace(group, size="big"))
        elif draw < 0.72:
            result.append(replace(group, size="small"))
        else:
            result.append(group)
    return result


def _motions(groups: list[Group], rng: random.Random) -> tuple[Motion, ...]:
    """One motion, or two different ones of two groups."""
    order = list(range(len(groups)))
    rng.shuffle(order)
    if len(groups) > 1 and rng.random() < 0.18:
        return (Motion(verb=rng.choice(TOGETHER), group=order[0], other=order[1]),)
    alone = [verb for verb in VERBS if verb not in TOGETHER]
    movers = 2 if len(groups) > 1 and rng.random() < 0.4 else 1
    return tuple(
        Motion(verb=verb, group=group, direction=rng.choice((-1, 1)))
        for verb, group in zip(rng.sample(alone, movers), order, strict=False)
    )


def crowded(groups: Sequence[Group]) -> bool:
    """Whether two groups hide much of each other, or one reaches over the edge."""
    if any(min(g.x, g.y, 1 - g.x, 1 - g.y) < g.extent / 2 - EDGE for g in groups):
        return True
    return any(
        math.hypot(a.x - b.x, a.y - b.y) < HIDING * (a.extent + b.extent) / 2
        for a, b in itertools.combinations(groups, 2)
    )


def place_groups(
    groups: list[Group], rng: random.Random, *, motions: tuple[Motion, ...] = ()
) -> tuple[Group, ...]:
    """Gives groups positions where they hardly overlap."""
    movers = {m.group for m in motions} | {m.other for m in motions}
    best: list[tuple[float, float]] = []
    for attempt in range(12):
        spots: list[tuple[float, float]] = []
        slack = 0.9 - 0.04 * attempt
        for place, group in enumerate(groups):
            radius = group.extent / 2
            margin = max(radius + 0.01, 0.3 if place in movers else 0.0)
            for _ in range(12):
                x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
                if all(
                    math.hypot(x - u, y - v) >= slack * (radius + other.extent / 2)
                    for (u, v), other in zip(spots, groups, strict=False)
                ):
                    spots.append((x, y))
                    break
            else:
                break
        if len(spots) == len(groups):
            best = spots
            break
    if not best:  # crowded: on a circle, which always has room
        turn = rng.uniform(0, 2 * math.pi)
        angles = [turn + 2 * math.pi * i / len(groups) for i in range(len(groups))]
        best = [(0.5 + 0.27 * math.cos(a), 0.5 + 0.27 * math.sin(a)) for a in angles]
    return tuple(replace(group, x=x, y=y) for group, (x, y) in zip(groups, best, strict=True))
