"""English descriptions, in varied wording."""

from __future__ import annotations

import random
from collections.abc import Sequence

from secondglance.scenes.plan import Mention, Plan
from secondglance.scenes.scene import Scene
from secondglance.scenes.vocabulary import Relation, Verb, kinds

NUMBERS = ("", "one", "two", "three", "four", "five")
SIZES = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge")}
PLACES = {
    "meadow": ("in a meadow", "on a green meadow", "on the grass"),
    "beach": ("on a beach", "at the beach", "on the sand by the water"),
    "desert": ("in a desert", "in the desert", "among sand dunes"),
    "snowfield": ("on a field of snow", "on snowy ground", "on a snowfield"),
    "forest": ("in a forest", "in the woods", "in front of trees"),
    "mountains": ("in the mountains", "in front of mountains", "before a mountain range"),
    "city": ("in a city", "in town", "in front of a skyline"),
    "sea": ("at sea", "on the open sea", "over the ocean"),
}
TIMES = {
    "day": ("by day", "during the day", "in daylight"),
    "sunset": ("at sunset", "at dusk", "in the evening light"),
    "night": ("at night", "by night", "under the night sky"),
}
WEATHERS = {
    "clear": ("in clear weather", "in fine weather", "in dry, clear air"),
    "rain": ("in the rain", "while it rains", "in rainy weather"),
    "snow": ("in falling snow", "while it snows", "with snow falling"),
    "fog": ("in the fog", "in the mist", "in foggy weather"),
}
RELATIONS: dict[Relation, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}
VERBS: dict[Verb, tuple[tuple[str, str, str], ...]] = {
    "left": (
        ("moves left", "move left", "moving left"),
        ("goes to the left", "go to the left", "going to the left"),
    ),
    "right": (
        ("moves right", "move right", "moving right"),
        ("goes to the right", "go to the right", "going to the right"),
    ),
    "up": (("rises", "rise", "rising"), ("moves up", "move up", "moving up")),
    "down": (("sinks", "sink", "sinking"), ("moves down", "move down", "moving down")),
    "jump": (
        ("jumps", "jump", "jumping"),
        ("hops", "hop", "hopping"),
        ("bounces up and down", "bounce up and down", "bouncing up and down"),
    ),
    "spin": (("spins", "spin", "spinning"), ("rotates", "rotate", "rotating")),
    "grow": (("grows", "grow", "growing"), ("gets bigger", "get bigger", "getting bigger")),
    "shrink": (
        ("shrinks", "shrink", "shrinking"),
        ("gets smaller", "get smaller", "getting smaller"),
    ),
    "appear": (("appears", "appear", "appearing"), ("shows up", "show up", "showing up")),
    "disappear": (
        ("disappears", "disappear", "disappearing"),
        ("vanishes", "vanish", "vanishing"),
    ),
    "return": (
        ("turns back", "turn back", "turning back"),
        ("goes away and comes back", "go away and come back", "going away and coming back"),
    ),
    "meet": (("", "meet", "meeting"), ("", "come together", "coming together")),
    "part": (("", "part", "parting"), ("", "move apart", "moving apart")),
}
PICTURES = ("a picture of", "a photo of", "an image of", "a scene with")
CLIPS = ("a video of", "a clip of", "a short film of")


def describe(scene: Scene, plan: Plan, rng: random.Random) -> str:
    """Puts what the plan states of a scene into one English line."""
    phrases = {m.group: _phrase(scene, m, rng) for m in plan.mentions}
    places = _places(scene, plan, rng)
    if not phrases:
        return " ".join([rng.choice(CLIPS if scene.moving else PICTURES), *_bare(scene, plan, rng)])
    told = _things(scene, plan, phrases, rng)
    if rng.random() < 0.15 and places:
        return f"{' '.join(places)}, {told}"
    line = " ".join([told, *places])
    if rng.random() < 0.3 and told.split(" ", 1)[0] != "there":
        line = f"{rng.choice(CLIPS if scene.moving else PICTURES)} {line}"
    return line


def _things(scene: Scene, plan: Plan, phrases: dict[int, str], rng: random.Random) -> str:
    left = dict(phrases)
    clauses: list[str] = []
    for number in plan.motions:
        motion = scene.motions[number]
        single, plural, ongoing = rng.choice(VERBS[motion.verb])
        if motion.other is not None:
            pair = [left.pop(motion.group), left.pop(motion.other)]
            rng.shuffle(pair)
            clauses.append(f"{pair[0]} and {pair[1]} {rng.choice((plural, ongoing))}")
        else:
            finite = single if scene.groups[motion.group].count == 1 else plural
            clauses.append(f"{left.pop(motion.group)} {rng.choice((finite, ongoing))}")
    if plan.relation:
        first, relation, second = plan.relation
        clauses.append(f"{left.pop(first)} {rng.choice(RELATIONS[relation])} {left.pop(second)}")
    rest = list(left.values())
    if not clauses:
        joined = _join(rest, rng)
        return f"there {_is(scene, plan)} {joined}" if rng.random() < 0.12 else joined
    if not rest:
        return _join(clauses, rng)
    if rng.random() < 0.5:
        return f"{_join(clauses, rng)}, {rng.choice(('with', 'and'))} {_join(rest, rng)}"
    return f"{_join(rest, rng)}, {rng.choice(('and', 'besides'))} {_join(clauses, rng)}"


def _is(scene: Scene, plan: Plan) -> str:
    return "is" if scene.groups[plan.mentions[0].group].count == 1 else "are"


def _join(parts: Sequence[str], rng: random.Random) -> str:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return f"{parts[0]} {rng.choice(('and', 'and', 'with'))} {parts[1]}"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _phrase(scene: Scene, mention: Mention, rng: random.Random) -> str:
    """Names a group, such as `three small red dogs`."""
    group = scene.groups[mention.group]
    kind = kinds()[group.kind]
    name = 0 if rng.random() < 0.65 else rng.randrange(len(kind.en))
    words = []
    if mention.size:
        words.append(rng.choice(SIZES[group.size]))
    if mention.colour and group.colour:
        words.append(group.colour)
    words.append(kind.en[name] if group.count == 1 else kind.en_plural[name])
    if group.count > 1:
        if mention.count:
            number = NUMBERS[group.count] if rng.random() < 0.8 else str(group.count)
        else:
            number = rng.choice(("some", "several"))
        return " ".join([number, *words])
    if mention.count:
        return " ".join(["one", *words])
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _places(scene: Scene, plan: Plan, rng: random.Random) -> list[str]:
    parts = []
    if plan.place:
        parts.append(rng.choice(PLACES[scene.place]))
    if plan.time:
        parts.append(rng.choice(TIMES[scene.time]))
    if plan.weather:
        parts.append(rng.choice(WEATHERS[scene.weather]))
    if rng.random() < 0.3:
        rng.shuffle(parts)
    return parts


def _bare(scene: Scene, plan: Plan, rng: random.Random) -> list[str]:
    """The backdrop alone: "a beach at night"."""
    nouns = {"mountains": "mountains", "sea": "the sea", "snowfield": "a snowfield"}
    noun = nouns.get(scene.place, f"a {scene.place}") if plan.place else "a place"
    rest = Plan(time=plan.time, weather=plan.weather)
    return [noun, *_places(scene, rest, rng)]
