"""Near-misses: a scene changed in one fact that a description states."""

from __future__ import annotations

import random
from dataclasses import replace

from secondglance.scenes.plan import Plan
from secondglance.scenes.scene import (
    MAX_COUNT,
    Group,
    Motion,
    Scene,
    crowded,
    place_groups,
    replacement,
)
from secondglance.scenes.vocabulary import (
    COLOURS,
    OPPOSITE,
    PLACES,
    TIMES,
    TOGETHER,
    VERBS,
    WEATHERS,
    Difference,
    Split,
)

MOVES = 20


def differences(scene: Scene, plan: Plan) -> tuple[Difference, ...]:
    """Facts the plan states in which a near-miss may differ."""
    found: list[Difference] = []
    if plan.mentions:
        found.append("object")
    if any(m.colour for m in plan.mentions):
        found.append("colour")
    if _swaps(scene, plan):
        found.append("binding")
    if plan.relation:
        found.append("relation")
    if any(m.count for m in plan.mentions if _countable(scene.groups[m.group])):
        found.append("count")
    if any(m.size for m in plan.mentions):
        found.append("size")
    if plan.place:
        found.append("place")
    if plan.time:
        found.append("time")
    if plan.weather:
        found.append("weather")
    if plan.motions:
        found.append("motion")
    return tuple(found)


def near_miss(
    scene: Scene, plan: Plan, difference: Difference, rng: random.Random, *, split: Split = "train"
) -> Scene:
    """The scene with one stated fact changed, so that the plan is no longer true of it.

    Groups that would now hide each other find new places; what the plan says of these stays true.

    Args:
        scene: The scene.
        plan: What is said of it.
        difference: One of `differences(scene, plan)`.
        rng: Draws the new value.
        split: Split that new combinations of kinds must belong to.
    """
    changed = _changed(scene, plan, difference, rng, split)
    candidate = changed
    for _ in range(MOVES):
        if not crowded(candidate.groups) and _as_stated(candidate, plan, difference):
            return candidate
        groups = place_groups(list(changed.groups), rng, motions=changed.motions)
        candidate = replace(changed, groups=groups)
    return changed


def _as_stated(scene: Scene, plan: Plan, difference: Difference) -> bool:
    """Whether the two groups of a stated relation stand as they should."""
    if plan.relation is None:
        return True
    first, stated, second = plan.relation
    wanted = OPPOSITE[stated] if difference == "relation" else stated
    return scene.relation(first, second) == wanted


def _changed(
    scene: Scene, plan: Plan, difference: Difference, rng: random.Random, split: Split
) -> Scene:
    groups = scene.groups
    match difference:
        case "object":
            place = rng.choice(plan.mentions).group
            kind = replacement(scene, place, split, rng)
            return _with(scene, place, replace(groups[place], kind=kind))
        case "colour":
            place = rng.choice([m.group for m in plan.mentions if m.colour])
            colour = rng.choice([c for c in COLOURS if c != groups[place].colour])
            return _with(scene, place, replace(groups[place], colour=colour))
        case "binding":
            return rng.choice(_swaps(scene, plan))
        case "relation":
            assert plan.relation is not None
            first, _, second = plan.relation
            a, b = groups[first], groups[second]
            swapped = _with(scene, first, replace(a, x=b.x, y=b.y))
            # Unless they are of one size they may now reach over the edge; then all move.
            return _with(swapped, second, replace(b, x=a.x, y=a.y))
        case "count":
            place = rng.choice(
                [m.group for m in plan.mentions if m.count and _countable(groups[m.group])]
            )
            limit = 3 if scene.moving else MAX_COUNT
            count = rng.choice([n for n in range(1, limit + 1) if n != groups[place].count])
            return _with(scene, place, _inside(replace(groups[place], count=count)))
        case "size":
            place = rng.choice([m.group for m in plan.mentions if m.size])
            group = groups[place]
            other = replace(group, size="small" if group.size == "big" else "big")
            return _with(scene, place, _inside(other))
        case "place":
            return replace(scene, place=rng.choice([p for p in PLACES if p != scene.place]))
        case "time":
            return replace(scene, time=rng.choice([t for t in TIMES if t != scene.time]))
        case "weather":
            return replace(scene, weather=rng.choice([w for w in WEATHERS if w != scene.weather]))
        case "motion":
            return _other_motion(scene, rng.choice(plan.motions), rng)


def _countable(group: Group) -> bool:
    """Single objects of medium size only: the members of a group are all of one size."""
    return group.count > 1 or group.size == "medium"


def _with(scene: Scene, place: int, group: Group) -> Scene:
    groups = (*scene.groups[:place], group, *scene.groups[place + 1 :])
    return replace(scene, groups=groups)


def _inside(group: Group) -> Group:
    margin = group.extent / 2
    return replace(
        group, x=min(max(group.x, margin), 1 - margin), y=min(max(group.y, margin), 1 - margin)
    )


def _swaps(scene: Scene, plan: Plan) -> list[Scene]:
    """Scenes in which two named groups have exchanged a stated property."""
    found = []
    for number, one in enumerate(plan.mentions):
        for two in plan.mentions[number + 1 :]:
            a, b = scene.groups[one.group], scene.groups[two.group]
            if one.colour and two.colour and a.colour != b.colour:
                changed = _with(scene, one.group, replace(a, colour=b.colour))
                found.append(_with(changed, two.group, replace(b, colour=a.colour)))
            if one.size and two.size and a.size != b.size:
                changed = _with(scene, one.group, _inside(replace(a, size=b.size)))
                found.append(_with(changed, two.group, _inside(replace(b, size=a.size))))
    if len(plan.motions) == 2:
        first, second = scene.motions
        swapped = (
            replace(first, group=second.group),
            replace(second, group=first.group),
        )
        found.append(replace(scene, motions=swapped))
    return found


def _other_motion(scene: Scene, number: int, rng: random.Random) -> Scene:
    """Another verb for one motion; `meet` and `part` become each other, or one group acts."""
    old = scene.motions[number]
    used = {m.verb for m in scene.motions}
    if old.verb in TOGETHER and rng.random() < 0.6:
        new = replace(old, verb="part" if old.verb == "meet" else "meet")
    else:
        verbs = [v for v in VERBS if v not in used and v not in TOGETHER]
        new = Motion(verb=rng.choice(verbs), group=old.group, direction=rng.choice((-1, 1)))
    motions = (*scene.motions[:number], new, *scene.motions[number + 1 :])
    return replace(scene, motions=motions)
