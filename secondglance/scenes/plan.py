"""What a description says of a scene, before it is put into words."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from secondglance.scenes.scene import Scene
from secondglance.scenes.vocabulary import Relation

ONE = 0.2
"""How often "one dog" rather than "a dog", which says nothing of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """One group as a description tells of it; `count` gives its number in words."""

    group: int
    colour: bool = False
    size: bool = False
    count: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which facts of a scene a description states.

    Attributes:
        mentions: The groups it names, in order of mention.
        relation: (first, relation, second): where the first group is, seen from the second.
        place: Whether it names the place; `time` and `weather` alike.
        motions: Numbers of the scene's motions that it tells.
    """

    mentions: tuple[Mention, ...] = ()
    relation: tuple[int, Relation, int] | None = None
    place: bool = False
    time: bool = False
    weather: bool = False
    motions: tuple[int, ...] = ()

    def mention(self, group: int) -> Mention | None:
        """What it says of a group."""
        return next((m for m in self.mentions if m.group == group), None)


def full_plan(scene: Scene, rng: random.Random, *, keep: Plan | None = None) -> Plan:
    """States everything, in random order; of the relations one, that of `keep` if it has one."""
    order = list(range(len(scene.groups)))
    rng.shuffle(order)
    mentions = tuple(_mention(scene, group, rng) for group in order)
    relation = keep.relation if keep and keep.relation else _relation(scene, order, rng)
    return Plan(
        mentions=mentions,
        relation=relation,
        place=True,
        time=True,
        weather=True,
        motions=tuple(range(len(scene.motions))),
    )


def partial_plan(scene: Scene, rng: random.Random, *, fullness: float = 0.55) -> Plan:
    """States each fact with probability `fullness`, and at least one.

    A colour, size or count is told of named groups only, a motion of groups that are named.
    """
    full = full_plan(scene, rng)

    def told() -> bool:
        return rng.random() < fullness

    motions = tuple(m for m in full.motions if rng.random() < max(fullness, 0.8))
    acting = {g for m in motions for g in (scene.motions[m].group, scene.motions[m].other)}
    relation = full.relation if full.relation and told() else None
    acting |= {relation[0], relation[2]} if relation else set()
    named = tuple(
        replace(m, colour=m.colour and told(), size=m.size and told(), count=m.count and told())
        for m in full.mentions
        if m.group in acting or rng.random() < max(fullness, 0.6)
    )
    plan = Plan(
        mentions=named,
        relation=relation,
        place=rng.random() < fullness * 0.7,
        time=rng.random() < fullness * 0.6,
        weather=rng.random() < fullness * 0.6,
        motions=motions,
    )
    if named or (plan.place and rng.random() < 0.5):
        return plan
    return replace(plan, mentions=full.mentions[:1])


def contradicts(scene: Scene, plan: Plan, other: Scene) -> bool:
    """Whether `other` surely lacks something that the plan says of `scene`.

    Only what cannot be argued about counts: a kind that is not there, or another backdrop.
    """
    there = {group.kind for group in other.groups}
    if any(scene.groups[m.group].kind not in there for m in plan.mentions):
        return True
    return bool(
        (plan.place and scene.place != other.place)
        or (plan.time and scene.time != other.time)
        or (plan.weather and scene.weather != other.weather)
    )


def _mention(scene: Scene, number: int, rng: random.Random) -> Mention:
    group, motion = scene.groups[number], scene.motion_of(number)
    resized = motion is not None and motion.verb in ("grow", "shrink")
    return Mention(
        group=number,
        colour=group.colour is not None,
        size=group.size != "medium" and not resized,
        count=group.count > 1 or rng.random() < ONE,
    )


def _relation(
    scene: Scene, order: list[int], rng: random.Random
) -> tuple[int, Relation, int] | None:
    """A relation that is clear; none in clips, where places change."""
    if scene.moving:
        return None
    clear = [
        (first, relation, second)
        for first in order
        for second in order
        if first != second and (relation := scene.relation(first, second)) is not None
    ]
    return rng.choice(clear) if clear else None
