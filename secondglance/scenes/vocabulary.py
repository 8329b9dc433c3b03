"""What scenes are made of: kinds of objects, colours, backdrops, and how they may differ."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

Colour: TypeAlias = Literal["red", "yellow", "green", "blue", "purple", "pink", "white", "black"]
Size: TypeAlias = Literal["small", "medium", "big"]
Place: TypeAlias = Literal[
    "meadow", "beach", "desert", "snowfield", "forest", "mountains", "city", "sea"
]
Time: TypeAlias = Literal["day", "sunset", "night"]
Weather: TypeAlias = Literal["clear", "rain", "snow", "fog"]
Verb: TypeAlias = Literal[
    "left", "right", "up", "down", "jump", "spin", "grow", "shrink",
    "appear", "disappear", "return", "meet", "part",
]  # fmt: skip
Relation: TypeAlias = Literal["left", "right", "above", "below"]
Difference: TypeAlias = Literal[
    "object", "colour", "binding", "relation", "count", "size", "place", "time", "weather", "motion"
]
Language: TypeAlias = Literal["en", "zh"]
Split: TypeAlias = Literal["train", "validation", "test"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
PLACES: tuple[Place, ...] = get_args(Place)
TIMES: tuple[Time, ...] = get_args(Time)
WEATHERS: tuple[Weather, ...] = get_args(Weather)
VERBS: tuple[Verb, ...] = get_args(Verb)
TOGETHER: tuple[Verb, ...] = ("meet", "part")
"""Verbs that two groups share."""
DIFFERENCES: tuple[Difference, ...] = get_args(Difference)
OPPOSITE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of object.

    Attributes:
        emoji: The character its sprite was drawn from.
        en: English names, the usual one first.
        en_plural: Their plurals, in the same order.
        zh: Chinese names, the usual one first.
        classifier: Chinese measure word.
        group: Coarse category.
    """

    emoji: str
    en: tuple[str, ...]
    en_plural: tuple[str, ...]
    zh: tuple[str, ...]
    classifier: str
    group: str


@functools.cache
def kinds() -> tuple[Kind, ...]:
    """All kinds; their places in the tuple are their numbers everywhere."""
    with (Path(__file__).parent / "kinds.csv").open(newline="", encoding="utf-8") as file:
        return tuple(
            Kind(
                emoji=row["emoji"],
                en=tuple(row["en"].split("|")),
                en_plural=tuple(row["en_plural"].split("|")),
                zh=tuple(row["zh"].split("|")),
                classifier=row["classifier"],
                group=row["group"],
            )
            for row in csv.DictReader(file)
        )
