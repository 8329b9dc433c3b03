"""What a query asks of a candidate's groups, and what is true of them, as the scenes know it.

Yes or no about "a dog left of a cat" is one bit that depends on three things at once: which group
each word means, where these are, and what was asked. As long as none is known, none is learned. So
heads inside the language model are taught all three: which words a vision token belongs to, and,
where the answer is about to be given, what was asked and what is true. They are thrown away after
training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from secondglance.scenes.examples import Pair
from secondglance.scenes.plan import Plan
from secondglance.scenes.scene import Scene
from secondglance.scenes.vocabulary import VERBS, Relation
from tools.train_starter.reranker_seeing import IGNORED

RELATIONS: tuple[Relation, ...] = get_args(Relation)
MEANT = 4
"""Groups that a query names, at most."""
ROLES = 4
"""What a vision token is to a query: nothing, the first group of which it states a relation or a
motion, the second, or another that it names."""
FACTS = {
    "relation asked": len(RELATIONS),
    "relation": len(RELATIONS),
    "first motion asked": len(VERBS),
    "first motion": 1 + len(VERBS),
    "second motion asked": len(VERBS),
    "second motion": 1 + len(VERBS),
}
"""Number of values of each; of true motions the first is rest."""


@dataclass(slots=True)
class Facts:
    """Of a batch.

    Attributes:
        meant: (pairs, MEANT): kinds that the query names; first those of which it states a
            relation or a motion, in order; -1 where there is none.
        values: (pairs, FACTS): numbers, IGNORED where nothing is asked or known.
    """

    meant: Any
    values: Any


def facts(pairs: Sequence[Pair]) -> Facts:
    """Facts of pairs; of queries without words none."""
    meant = np.full((len(pairs), MEANT), -1, dtype=np.int64)
    values = np.full((len(pairs), len(FACTS)), IGNORED, dtype=np.int64)
    for row, pair in enumerate(pairs):
        if not pair.query.text:
            continue
        acting = _acting(pair.asked, pair.plan)
        first = [-1 if group is None else pair.asked.groups[group].kind for group in acting]
        others = [m.group for m in pair.plan.mentions if m.group not in acting]
        rest = [pair.asked.groups[group].kind for group in others][: MEANT - 2]
        meant[row, : 2 + len(rest)] = [*first, *rest]
        values[row] = _values(pair, acting)
    return Facts(meant, values)


def _acting(scene: Scene, plan: Plan) -> tuple[int | None, int | None]:
    """The groups of which a relation is stated, or one motion for both, or a motion for each."""
    if plan.relation is not None:
        return plan.relation[0], plan.relation[2]
    motions = [scene.motions[number] for number in plan.motions]
    if not motions:
        return None, None
    if motions[0].other is not None:
        return motions[0].group, motions[0].other
    return motions[0].group, motions[1].group if len(motions) > 1 else None


def _values(pair: Pair, acting: tuple[int | None, int | None]) -> list[int]:
    found = [IGNORED] * len(FACTS)
    # Of a wholly different scene nothing is known: its groups are not the candidate's.
    there = [
        group is not None
        and pair.kind != "random"
        and pair.scene.groups[group].kind == pair.asked.groups[group].kind
        for group in acting
    ]
    if pair.plan.relation is not None:
        first, asked, second = pair.plan.relation
        found[0] = RELATIONS.index(asked)
        true = pair.scene.relation(first, second) if all(there) else None
        found[1] = IGNORED if true is None else RELATIONS.index(true)
        return found
    for number, group in enumerate(acting):
        if group is None:
            continue
        motion = pair.asked.motion_of(group)
        assert motion is not None, "only groups that move are acting here"
        found[2 + 2 * number] = VERBS.index(motion.verb)
        if there[number]:
            moving = pair.scene.motion_of(group)
            found[3 + 2 * number] = 0 if moving is None else 1 + VERBS.index(moving.verb)
    return found
