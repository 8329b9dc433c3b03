"""What the heads inside the language model are taught, and that they can be."""

from __future__ import annotations

import pytest
import torch

from secondglance.scenes.examples import Pair, Task, pairs
from secondglance.scenes.vocabulary import OPPOSITE, VERBS
from tools.train_starter.reranker_facts import FACTS, MEANT, RELATIONS, ROLES, facts
from tools.train_starter.reranker_objective import Thoughts
from tools.train_starter.reranker_seeing import IGNORED

COUNT = 400
ASKED, TRUE = 0, 1


def rows(task: Task, kind: str) -> list[tuple[Pair, list[int], list[int]]]:
    made = pairs(task, COUNT, seed=3, hard=1.0, queries=8)
    found = facts(made)
    assert found.meant.shape == (COUNT, MEANT)
    assert found.values.shape == (COUNT, len(FACTS))
    for number, size in enumerate(FACTS.values()):
        column = found.values[:, number]
        assert ((column == IGNORED) | ((column >= 0) & (column < size))).all()
    return [
        (pair, meant.tolist(), values.tolist())
        for pair, meant, values in zip(made, found.meant, found.values, strict=True)
        if pair.kind == kind
    ]


def test_a_stated_relation_is_asked_and_true() -> None:
    stated = [row for row in rows("text-image", "positive") if row[0].plan.relation]
    assert len(stated) > 30
    for pair, meant, values in stated:
        assert pair.plan.relation is not None
        first, relation, second = pair.plan.relation
        assert meant[:2] == [pair.scene.groups[first].kind, pair.scene.groups[second].kind]
        assert values == [RELATIONS.index(relation)] * 2 + [IGNORED] * 4


def test_a_swapped_relation_is_asked_but_its_opposite_true() -> None:
    swapped = rows("text-image", "relation")
    assert len(swapped) > 20
    for _, _, values in swapped:
        assert RELATIONS[values[TRUE]] == OPPOSITE[RELATIONS[values[ASKED]]]


@pytest.mark.parametrize("kind", ["positive", "motion"])
def test_motions_are_told_as_asked_and_as_they_are(kind: str) -> None:
    told = [row for row in rows("text-clip", kind) if row[0].plan.motions]
    assert len(told) > 20
    wrong = 0
    for pair, meant, values in told:
        motion = pair.asked.motions[pair.plan.motions[0]]
        assert meant[0] == pair.asked.groups[motion.group].kind
        assert VERBS[values[2]] == motion.verb
        pairs_told = [(values[2], values[3]), (values[4], values[5])]
        wrong += any(true not in (IGNORED, asked + 1) for asked, true in pairs_told)
    assert wrong == (0 if kind == "positive" else len(told))


def test_nothing_is_true_of_a_missing_thing_or_another_scene() -> None:
    for pair, _, values in rows("text-image", "object"):
        gone = [
            g.kind for g in pair.asked.groups if g.kind not in {o.kind for o in pair.scene.groups}
        ]
        ends = pair.plan.relation
        if ends and pair.asked.groups[ends[0]].kind in gone:
            assert values[TRUE] == IGNORED
            assert values[ASKED] != IGNORED
    far = pairs("text-image", 80, seed=3, hard=0.0, queries=8)
    unlike = facts([pair for pair in far if pair.kind == "random"])
    assert (unlike.values[:, 1::2] == IGNORED).all()


def test_pictures_ask_for_nothing_in_words() -> None:
    found = facts(pairs("image-image", 16, seed=1, queries=8))
    assert (found.meant == -1).all()
    assert (found.values == IGNORED).all()


def test_twins_differ_in_one_fact_only() -> None:
    made = pairs("text-image", COUNT, seed=4, hard=1.0, queries=8)
    assert [pair.label for pair in made] == [True, False] * (COUNT // 2)
    swapped = [(a, b) for a, b in zip(made[::2], made[1::2], strict=True) if b.kind == "relation"]
    assert len(swapped) > 10
    for right, wrong in swapped:
        assert right.document is wrong.document
        assert right.query.text != wrong.query.text
        assert len(set(right.query.text.split()) ^ set(wrong.query.text.split())) <= 4 or (
            not right.query.text.isascii()
        )


def test_roles_are_read_off_the_tokens_of_what_is_meant() -> None:
    thoughts = Thoughts(ROLES)
    with torch.no_grad():
        _, read_off = thoughts._role
        assert isinstance(read_off, torch.nn.Linear)
        read_off.weight.copy_(10 * torch.eye(ROLES))
        read_off.bias.zero_()
    # Kinds 4, 7, 9, backdrop and a photograph; kinds are told from 1 on.
    kind = torch.tensor([[5, 8, 10, 0, IGNORED]])
    meant = torch.tensor([[7, 4, 9, -1]])
    states = torch.nn.functional.one_hot(torch.tensor([[2, 1, 3, 0, 0]]), ROLES).float()
    assert thoughts.roles(states, kind, meant) < 1e-3
    assert thoughts.roles(states.roll(1, dims=1), kind, meant) > 1


def test_facts_of_no_one_cost_nothing() -> None:
    thoughts = Thoughts(8)
    state, values = torch.randn(3, 8), torch.full((3, len(FACTS)), IGNORED)
    loss, right = thoughts.facts(state, values)
    assert loss == 0
    assert right.isnan()
    values[0, TRUE] = 2
    loss, right = thoughts.facts(state, values)
    assert loss > 0
    assert right in (0, 1)
