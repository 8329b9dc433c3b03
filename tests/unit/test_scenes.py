"""Scenes: deterministic, split by composition, described truly, and near-misses that miss."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest

from secondglance.scenes.describe import VERBS as VERB_WORDS
from secondglance.scenes.describe import describe
from secondglance.scenes.describe_zh import describe_zh
from secondglance.scenes.drawing import CLIP_S, draw, stack
from secondglance.scenes.edit import differences, near_miss
from secondglance.scenes.examples import TASKS, Task, captioned, pairs
from secondglance.scenes.plan import Plan, contradicts, full_plan, partial_plan
from secondglance.scenes.scene import Group, Motion, Scene, composition_split, sample
from secondglance.scenes.vocabulary import DIFFERENCES, OPPOSITE, VERBS, Verb, kinds

SPLITS = ("train", "validation", "test")


def number(name: str) -> int:
    return next(place for place, kind in enumerate(kinds()) if name in kind.en)


def two(**changes: object) -> Scene:
    """A red dog on the left, a small cat on the right; a beach at night in the rain."""
    dog = Group(kind=number("dog"), colour="red", x=0.2, y=0.5)
    cat = Group(kind=number("cat"), size="small", x=0.8, y=0.5)
    scene = {"place": "beach", "time": "night", "weather": "rain", "groups": (dog, cat)}
    return Scene(**{**scene, **changes})  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_scenes() -> None:
    first, second = (captioned(20, seed=4) for _ in range(2))
    assert [c.text for c in first] == [c.text for c in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.drawing.sprites, other.drawing.sprites)
    assert [c.text for c in captioned(20, seed=5)] != [c.text for c in first]


def test_combinations_of_the_test_split_never_occur_in_training() -> None:
    rng = random.Random(1)
    seen = {split: set[tuple[int, ...]]() for split in SPLITS}
    for split in SPLITS:
        for _ in range(800):
            scene = sample(rng, split=split)  # type: ignore[arg-type]
            plan = partial_plan(scene, rng)
            options = differences(scene, plan)
            for shown in (scene, near_miss(scene, plan, options[0], rng, split="train")):
                together = tuple(sorted(group.kind for group in shown.groups))
                if shown is scene or split == "train":
                    seen[split].add(together)
                if split == "train":
                    assert composition_split(together) <= {"train"}
        if split != "train":
            assert all(split in composition_split(together) for together in seen[split])
            assert all(len(together) > 1 for together in seen[split])
    trained = {pair for some in seen["train"] for pair in itertools.combinations(some, 2)}
    for split in ("validation", "test"):
        assert not any(set(itertools.combinations(some, 2)) <= trained for some in seen[split])


def test_relations_are_what_a_viewer_sees() -> None:
    scene = two()
    assert (scene.relation(0, 1), scene.relation(1, 0)) == ("left", "right")
    slanted = two(groups=(Group(kind=0, x=0.3, y=0.3), Group(kind=1, x=0.7, y=0.7)))
    assert slanted.relation(0, 1) is None, "neither beside nor above"
    stacked = two(groups=(Group(kind=0, x=0.5, y=0.2), Group(kind=1, x=0.55, y=0.8)))
    assert (stacked.relation(0, 1), stacked.relation(1, 0)) == ("above", "below")


def test_a_full_description_tells_everything() -> None:
    rng = random.Random(0)
    scene = two()
    for _ in range(50):
        plan = full_plan(scene, rng)
        english, chinese = describe(scene, plan, rng), describe_zh(scene, plan, rng)
        for words in (("dog", "puppy"), ("red",), ("cat",), ("small", "little", "tiny")):
            assert any(word in english for word in words), english
        for words in (("狗",), ("红",), ("猫",), ("小",), ("左", "右"), ("雨",), ("夜", "晚")):
            assert any(word in chinese for word in words), chinese
        assert any(word in english for word in ("left", "right"))


def test_partial_descriptions_vary_in_length() -> None:
    rng = random.Random(0)
    lengths = {len(describe(two(), partial_plan(two(), rng, fullness=f), rng).split())
               for f in (0.3, 0.6, 1.0) for _ in range(30)}  # fmt: skip
    assert min(lengths) <= 4
    assert max(lengths) >= 14


def facts(scene: Scene) -> dict[str, object]:
    """What can be seen, by kind of difference."""
    groups = scene.groups
    return {
        "object": sorted(g.kind for g in groups),
        "colour": sorted(str(g.colour) for g in groups),
        "binding": (
            [(g.kind, g.colour, g.size) for g in groups],
            sorted((m.verb, groups[m.group].kind) for m in scene.motions),
        ),
        "relation": [(g.kind, scene.relation(0, len(groups) - 1)) for g in groups],
        "count": sorted(g.count for g in groups),
        "size": sorted(g.size for g in groups),
        "place": scene.place,
        "time": scene.time,
        "weather": scene.weather,
        "motion": sorted(m.verb for m in scene.motions),
    }


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_a_near_miss_differs_in_one_stated_fact(difference: str) -> None:
    rng = random.Random(difference)
    met = 0
    while met < 60:
        scene = sample(rng, moving=rng.random() < 0.5)
        plan = partial_plan(scene, rng, fullness=0.8)
        if difference not in differences(scene, plan):
            continue
        met += 1
        other = near_miss(scene, plan, difference, rng)
        assert other != scene
        before, after = facts(scene), facts(other)
        changed = {name for name in before if before[name] != after[name]}
        entailed = {
            "object": {"binding", "relation"},
            "colour": {"binding"},
            "binding": {"binding", "relation"},
            "relation": {"relation"},
            "count": {"relation"},
            "size": {"binding", "relation"},
            "motion": {"binding"},
        }.get(difference, set())
        assert changed <= {difference} | entailed
        if difference != "relation":
            assert difference in changed
            if plan.relation:
                first, stated, second = plan.relation
                assert other.relation(first, second) == stated
        else:
            first, stated, second = plan.relation or (0, "left", 0)
            assert other.relation(first, second) == OPPOSITE[stated]
        if difference == "object":
            assert contradicts(scene, plan, other)


def test_only_what_is_stated_can_be_missed() -> None:
    assert differences(two(), Plan(place=True)) == ("place",)
    assert not contradicts(two(), Plan(place=True), two(time="day"))
    assert contradicts(two(), Plan(place=True), two(place="city"))


@pytest.mark.parametrize("task", TASKS)
def test_pairs_are_balanced_and_have_the_sides_of_their_task(task: Task) -> None:
    made = pairs(task, 200, seed=1, hard=0.7)
    query, document = task.split("-")
    assert 0.4 < np.mean([pair.label for pair in made]) < 0.6
    assert {pair.language for pair in made} == {"en", "zh"}
    assert len({pair.kind for pair in made}) >= 6
    for pair in made:
        assert pair.label == (pair.kind == "positive")
        assert bool(pair.query.text) == (query == "text")
        assert bool(pair.document.text) == (document in ("text", "mixed"))
        if pair.document.drawing is not None:
            frames = 8 if document == "clip" else 1
            assert pair.document.drawing.sprites.shape[::2] == (frames, 8)
    easy = pairs(task, 200, seed=1, hard=0.0)
    assert {pair.kind for pair in easy} == {"positive", "random"}


def path_of(verb: Verb) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Rows of the first sprite of a clip in which the dog does something."""
    other = 1 if verb in ("meet", "part") else None
    scene = two(motions=(Motion(verb=verb, group=0, other=other),), moving=True)
    times = np.linspace(0, CLIP_S, 41)
    return draw(scene, random.Random(0), times_s=times.tolist()).sprites[:, 0]


def test_motions_are_drawn_as_told() -> None:
    x, y, size, angle, alpha = 2, 3, 4, 5, 7
    moves = {verb: path_of(verb) for verb in VERBS}
    assert moves["left"][-1, x] < moves["left"][0, x] - 0.3
    assert moves["right"][-1, x] > moves["right"][0, x] + 0.3
    assert moves["up"][-1, y] < moves["up"][0, y] - 0.3
    assert moves["down"][-1, y] > moves["down"][0, y] + 0.3
    assert moves["grow"][-1, size] > 2 * moves["grow"][0, size]
    assert moves["shrink"][-1, size] < moves["shrink"][0, size] / 2
    assert list(moves["appear"][[0, -1], alpha]) == [0, 1]
    assert list(moves["disappear"][[0, -1], alpha]) == [1, 0]
    assert np.ptp(moves["spin"][:, angle]) > 2 * np.pi
    peaks = np.diff(np.sign(np.diff(moves["jump"][:, y])))
    assert (peaks > 0).sum() == 3, "three hops"
    away = moves["return"][:, x]
    assert abs(away[-1] - away[0]) < 0.01 < np.ptp(away) - 0.3
    apart = {verb: path_of(verb)[:, x] for verb in ("meet", "part")}
    assert abs(apart["meet"][0] - 0.5) > abs(apart["meet"][-1] - 0.5)
    assert abs(apart["part"][0] - 0.5) < abs(apart["part"][-1] - 0.5)
    assert set(VERB_WORDS) == set(VERBS)


def test_counts_are_drawn() -> None:
    three = Group(kind=number("dog"), count=3)
    drawing = draw(two(groups=(three,)), random.Random(0))
    assert (drawing.sprites[0, :, 0] == number("dog")).sum() == 3
    sprites, backdrops = stack([drawing, draw(two(), random.Random(1))])
    assert sprites.shape == (2, 1, 3, 8)
    assert sprites[1, 0, 2, 0] == -1, "an empty slot"
    assert backdrops.shape == (2, 4)


def test_kinds_have_names_in_both_languages() -> None:
    assert len(kinds()) >= 150
    for kind in kinds():
        assert len(kind.en) == len(kind.en_plural)
        assert all((*kind.en, *kind.zh, kind.classifier))


@pytest.mark.parametrize("task", ["text-image", "text-clip", "text-text"])
def test_statements_are_about_what_is_there(task: Task) -> None:
    named = {name: kind for kind in kinds() for name in (*kind.en, *kind.zh)}
    told = 0
    for pair in pairs(task, 400, seed=8, queries=4)[::4]:
        assert bool(pair.statement) == bool(pair.topic)
        for topic in filter(None, re.split("; |；|, |、", pair.topic)):
            kind = named[topic]
            told += 1
            assert any(name in pair.caption for name in (*kind.en, *kind.en_plural, *kind.zh))
            assert any(name in pair.statement for name in (*kind.en, *kind.en_plural, *kind.zh))
    assert told > 60
