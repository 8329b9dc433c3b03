"""Captioned scenes and judged pairs, for training and measuring the two passes."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import numpy as np

from secondglance.scenes.describe import describe
from secondglance.scenes.describe_zh import describe_zh
from secondglance.scenes.drawing import CLIP_S, Drawing, draw, stack
from secondglance.scenes.edit import differences, near_miss
from secondglance.scenes.plan import Mention, Plan, contradicts, full_plan, partial_plan
from secondglance.scenes.scene import Scene, sample
from secondglance.scenes.vocabulary import Difference, Language, Split, kinds

__all__ = ["Captioned", "Pair", "Side", "captioned", "pairs", "say", "stack"]

Task: TypeAlias = Literal[
    "text-image", "text-clip", "text-text", "image-image", "image-clip", "image-text", "text-mixed"
]
TASKS: tuple[Task, ...] = get_args(Task)
FAMILY = 4
"""Scenes of a family of near-misses, at most."""
CLIP_FRAMES = 8
STATEMENTS = 3
"""Relations or motions in a statement, at most."""
BARE = 0.2
"""How often a query that states a relation states nothing else."""
DIFFICULTY: dict[Difference, int] = {
    "object": 4,
    "binding": 4,
    "relation": 3,
    "count": 3,
    "motion": 3,
}
"""How much more often a near-miss differs in this than in another fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """A picture and what is said of it."""

    drawing: Drawing
    text: str
    language: Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A query or a candidate: a text, a picture (one frame), a clip, or a picture with text."""

    text: str = ""
    drawing: Drawing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A query, a candidate, and whether it matches.

    Attributes:
        query: What is looked for.
        document: The candidate.
        label: Whether all that the query states is true of the candidate.
        kind: `positive`, `random`, or in what a near-miss differs.
        language: Of the texts and the caption.
        caption: Everything about the candidate's scene.
        statement: How groups of the candidate stand to each other, or what they do, as far as it
            shows or says so; may be empty.
        topic: Names of the groups that the statement is about.
        scene: What the candidate shows.
        asked: What the query shows or describes.
        plan: What the query says of it.
    """

    query: Side
    document: Side
    label: bool
    kind: str
    language: Language
    caption: str
    statement: str
    topic: str
    scene: Scene
    asked: Scene
    plan: Plan


def say(scene: Scene, plan: Plan, language: Language, rng: random.Random) -> str:
    """Puts a plan into words."""
    return (describe if language == "en" else describe_zh)(scene, plan, rng)


def captioned(count: int, *, seed: int, split: Split = "train") -> list[Captioned]:
    """Captioned pictures: families of near-misses, one after the other.

    Args:
        count: How many pictures.
        seed: The same seed gives the same pictures.
        split: Whose combinations of kinds.
    """
    rng = random.Random(f"captioned {split} {seed}")
    found: list[Captioned] = []
    while len(found) < count:
        scene = sample(rng, split=split)
        plan = partial_plan(scene, rng, fullness=rng.choice((0.5, 0.75, 1.0)))
        options = list(differences(scene, plan))
        rng.shuffle(options)
        family = [scene]
        for difference in options[: rng.randrange(FAMILY)]:
            family.append(near_miss(scene, plan, difference, rng, split=split))
        for member in family:
            language: Language = rng.choice(("en", "zh"))
            text = say(member, true_plan(plan, member), language, rng)
            found.append(Captioned(drawing=draw(member, rng), text=text, language=language))
    return found[:count]


def pairs(
    task: Task,
    count: int,
    *,
    seed: int,
    split: Split = "train",
    hard: float = 0.5,
    queries: int = 1,
) -> list[Pair]:
    """Judged pairs, about half of which match.

    Args:
        task: What is on either side.
        count: How many pairs.
        seed: The same seed gives the same pairs.
        split: Whose combinations of kinds.
        hard: Share of near-misses among the pairs that do not match; the others are wholly
            different scenes.
        queries: So many consecutive pairs share one candidate (the same `Side` object).
    """
    rng = random.Random(f"pairs {task} {split} {seed}")
    found: list[Pair] = []
    while len(found) < count:
        found += _family(task, rng, split=split, hard=hard, queries=queries)
    return found[:count]


def _family(
    task: Task, rng: random.Random, *, split: Split, hard: float, queries: int
) -> list[Pair]:
    """Queries to one candidate: true ones, and such as ask for a near-miss or another scene."""
    query_is, document_is = task.split("-")
    scene = sample(rng, split=split, moving="clip" in task or rng.random() < _moving(task))
    language: Language = rng.choice(("en", "zh"))
    whole = full_plan(scene, rng)
    caption = say(scene, whole, language, rng)
    topic, statement = _statement(scene, whole, language, rng, told=document_is == "text")
    document = _document(document_is, scene, whole, language, rng)
    made: list[Pair] = []
    while len(made) < queries:
        plan = _stated(task, scene, whole, rng)
        # In the candidate's language, but for every other text that must be read across.
        own = language if document_is != "text" or rng.random() < 0.7 else _other(language)
        wording = rng.random()
        # Where a candidate has several queries, a true one and a wrong one come in twins that
        # differ in one fact and in no other word.
        for match in (True, False) if queries - len(made) > 1 else (rng.random() < 0.5,):
            if match:
                asked, told, kind = scene, plan, "positive"
            else:
                asked, told, kind = _wrong(scene, plan, rng, split=split, hard=hard)
            if query_is == "text":
                query = Side(text=say(asked, told, own, random.Random(wording)))
            else:
                query = Side(drawing=_still(asked, rng))
            made.append(
                Pair(
                    query=query,
                    document=document,
                    label=match,
                    kind=kind,
                    language=language,
                    caption=caption,
                    statement=statement,
                    topic=topic,
                    scene=scene,
                    asked=asked,
                    plan=told,
                )
            )
    return made


def _statement(
    scene: Scene, whole: Plan, language: Language, rng: random.Random, *, told: bool
) -> tuple[str, str]:
    """See `Pair.topic` and `Pair.statement`; of a `told` candidate, only what the plan states."""
    plans = []
    for number, motion in enumerate(scene.motions):
        acting = [group for group in (motion.group, motion.other) if group is not None]
        mentions = tuple(Mention(group=group) for group in acting)
        plans.append(Plan(mentions=mentions, motions=(number,)))
    couples = list(itertools.combinations(range(len(scene.groups)), 2))
    if told or scene.moving:
        couples = [(whole.relation[0], whole.relation[2])] if whole.relation else []
    for couple in couples:
        first, second = rng.sample(couple, 2)
        seen = scene.relation(first, second)
        if seen is not None:
            mentions = Mention(group=first), Mention(group=second)
            plans.append(Plan(mentions=mentions, relation=(first, seen, second)))
    chosen = rng.sample(plans, min(STATEMENTS, len(plans)))
    between = "; " if language == "en" else "；"
    topics, statements = [], []
    for plan in chosen:
        named = [kinds()[scene.groups[mention.group].kind] for mention in plan.mentions]
        names = [rng.choice(kind.en if language == "en" else kind.zh) for kind in named]
        topics.append((", " if language == "en" else "、").join(names))
        statements.append(say(scene, plan, language, rng))
    return between.join(topics), between.join(statements)


def _stated(task: Task, scene: Scene, whole: Plan, rng: random.Random) -> Plan:
    """What a query says of the candidate's scene."""
    query_is, document_is = task.split("-")
    if query_is == "text":
        plan = partial_plan(scene, rng, fullness=rng.choice((0.4, 0.65, 0.9, 1.0)))
        if plan.relation is not None and rng.random() < BARE:
            ends = Mention(group=plan.relation[0]), Mention(group=plan.relation[2])
            plan = Plan(mentions=ends, relation=plan.relation)
    else:
        plan = whole
    if document_is == "text":
        # The candidate must say what the query asks for.
        stated = whole.relation
        named = stated and plan.mention(stated[0]) and plan.mention(stated[2])
        plan = replace(plan, relation=stated if named else None)
    if query_is == "image" and document_is != "text":
        # A picture shows all at once; how things stand to each other, and move, may differ.
        # In clips, where sizes change, size is not judged either.
        sized = tuple(replace(m, size=m.size and not scene.moving) for m in plan.mentions)
        plan = replace(plan, mentions=sized, relation=None, motions=())
    return plan


def _wrong(
    scene: Scene, plan: Plan, rng: random.Random, *, split: Split, hard: float
) -> tuple[Scene, Plan, str]:
    """Another scene, what is said of it, and how it differs: a near-miss, or wholly."""
    if rng.random() < hard:
        options = differences(scene, plan)
        difference = rng.choices(options, [DIFFICULTY.get(option, 1) for option in options])[0]
        other = near_miss(scene, plan, difference, rng, split=split)
        return other, true_plan(plan, other), str(difference)
    while True:
        other = sample(rng, split=split, moving=scene.moving)
        plan = partial_plan(other, rng, fullness=rng.choice((0.4, 0.65, 0.9, 1.0)))
        if contradicts(other, plan, scene):
            return other, plan, "random"


def _other(language: Language) -> Language:
    return "zh" if language == "en" else "en"


def _moving(task: Task) -> float:
    return 0.25 if task == "text-text" else 0.0


def _document(kind: str, scene: Scene, whole: Plan, language: Language, rng: random.Random) -> Side:
    if kind == "image":
        return Side(drawing=draw(scene, rng))
    if kind == "clip":
        return Side(drawing=draw(scene, rng, times_s=clip_times(rng)))
    if kind == "mixed":
        mentioned = partial_plan(scene, rng, fullness=0.5)
        return Side(drawing=draw(scene, rng), text=say(scene, mentioned, language, rng))
    return Side(text=say(scene, whole, language, rng))


def clip_times(rng: random.Random, *, frames: int = CLIP_FRAMES) -> tuple[float, ...]:
    """Times of frames, evenly spread; the last lies up to half a second before the end."""
    last = CLIP_S - rng.uniform(0.04, 0.5)
    return tuple(float(time_s) for time_s in np.linspace(0.0, last, frames))


def _still(scene: Scene, rng: random.Random) -> Drawing:
    """A picture of a scene; of a clip one of its later frames, where all is seen."""
    if not scene.moving:
        return draw(scene, rng)
    shown = [m for m in scene.motions if m.verb not in ("appear", "disappear")]
    still = replace(scene, motions=tuple(shown))
    return draw(still, rng, times_s=(rng.uniform(0.2, 0.8) * CLIP_S,))


def true_plan(plan: Plan, scene: Scene) -> Plan:
    """The plan as far as it can be said of another scene of the same groups."""
    relation = plan.relation
    if relation is not None:
        seen = scene.relation(relation[0], relation[2])
        relation = (relation[0], seen, relation[2]) if seen else None
    return replace(plan, relation=relation)
