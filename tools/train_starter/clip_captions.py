"""Everyday English captions and their Chinese like, composed at random.

They are what the text tower learns the sentence encoder's meaning from: no caption is copied from
any collection.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tools.train_starter.clip_words import (
    ACTS,
    ANIMAL_ACTS,
    ANIMALS,
    COLOURS,
    FRAMES,
    GROUPS,
    MASS,
    NUMBERS,
    PEOPLE,
    PLACES,
    QUALITIES,
    RELATIONS,
    THINGS,
    WEAR,
    ZH_ACTS,
    ZH_COLOURS,
    ZH_NUMBERS,
    ZH_PLACES,
    ZH_SUBJECTS,
)


@dataclass(slots=True, kw_only=True)
class Captions:
    """A source of texts for distillation.

    Attributes:
        lemmas: Names of things, English.
        definitions: What things are, English.
        words: Single words.
        names: (Chinese, English) names of one thing each.
        rng: Of all choices.
    """

    lemmas: list[str] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
    rng: random.Random

    def pair(self) -> tuple[str, str]:
        """(text for the student, English text of the same meaning for the teacher)."""
        lot = self.rng.random()
        if self.names and lot < 0.15:
            return self.chinese()
        if self.words and lot < 0.25:
            text = " ".join(self.rng.choices(self.words, k=self.rng.choice((1, 1, 2, 3, 5, 8))))
        elif self.lemmas and lot < 0.37:
            text = self.rng.choice(FRAMES).format(article(self.rng.choice(self.lemmas)))
        elif self.definitions and lot < 0.45:
            text = self.rng.choice(self.definitions)
        else:
            text = self.english()
        return text, text

    def english(self) -> str:
        """A caption of someone doing something somewhere, or of things."""
        rng, pick = self.rng, self.rng.choice
        lot = rng.random()
        if lot < 0.4:
            text = f"{self._people()} {pick(ACTS)}"
        elif lot < 0.65:
            text = f"{self._animals()} {pick(ANIMAL_ACTS)}"
        elif lot < 0.75:
            text = f"{self._people()} {pick(RELATIONS)} {self._thing()}"
        else:
            text = f"{self._thing()} {pick(RELATIONS)} {self._thing()}"
        if rng.random() < 0.2:
            text += f" {pick(('and', 'while', 'with', 'as'))} {self._people()} {pick(ACTS)}"
        if rng.random() < 0.65:
            text += f" {pick(PLACES)}"
        if rng.random() < 0.3:
            return text[0].upper() + text[1:] + pick((" .", ".", ""))
        return pick(FRAMES).format(text)

    def chinese(self) -> tuple[str, str]:
        """(Chinese text, English text of the same meaning)."""
        rng = self.rng
        zh, en = rng.choice(self.names)
        lot = rng.random()
        if lot < 0.3:
            return zh, en
        if lot < 0.45:
            return f"一张{zh}的照片", f"a photo of {article(en)}"
        if rng.random() < 0.45:
            en, zh = rng.choice(tuple(ZH_SUBJECTS.items()))
            act_en, act_zh = rng.choice(tuple(ZH_ACTS.items()))
            place_en, place_zh = rng.choice(tuple(ZH_PLACES.items()))
            if rng.random() < 0.4:
                return f"一个{zh}在{act_zh}", f"{article(en)} {act_en}"
            return f"一个{zh}{place_zh}{act_zh}", f"{article(en)} {act_en} {place_en}"
        colour_en, colour_zh = rng.choice(tuple(ZH_COLOURS.items()))
        if rng.random() < 0.5:
            zh, en = f"{colour_zh}的{zh}", f"{colour_en} {en}"
        if rng.random() < 0.5:
            place_en, place_zh = rng.choice(tuple(ZH_PLACES.items()))
            zh, en = f"{place_zh}的{zh}", f"{en} {place_en}"
        number_en, number_zh = rng.choice(tuple(ZH_NUMBERS.items()))
        if rng.random() < 0.4:
            return f"{number_zh}个{zh}", f"{number_en} {en}"
        return zh, article(en)

    def _people(self) -> str:
        rng, pick = self.rng, self.rng.choice
        if rng.random() < 0.3:
            text = f"{pick(NUMBERS)} {pick(GROUPS)}"
        else:
            quality = f"{pick(QUALITIES)} " if rng.random() < 0.2 else ""
            text = article(quality + pick(PEOPLE))
        if rng.random() < 0.35:
            colour = f"{pick(COLOURS)} " if rng.random() < 0.8 else ""
            text += f" {pick(('in', 'wearing', 'with'))} {article(colour + pick(WEAR))}"
        return text

    def _animals(self) -> str:
        rng, pick = self.rng, self.rng.choice
        colour = f"{pick(COLOURS + QUALITIES)} " if rng.random() < 0.4 else ""
        if rng.random() < 0.25:
            return f"{pick(NUMBERS)} {colour}{pick(ANIMALS)}s"
        return article(colour + pick(ANIMALS))

    def _thing(self) -> str:
        rng, pick = self.rng, self.rng.choice
        if rng.random() < 0.12:
            return pick(MASS)
        name = pick(self.lemmas) if self.lemmas and rng.random() < 0.3 else pick(THINGS)
        colour = f"{pick(COLOURS + QUALITIES)} " if rng.random() < 0.4 else ""
        return article(colour + name) if rng.random() < 0.8 else f"the {colour}{name}"


def article(name: str) -> str:
    """The name after "a" or "an"."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def everyday_words() -> set[str]:
    """All words that the templates use."""
    lists = (
        PEOPLE, GROUPS, ANIMALS, THINGS, MASS, COLOURS, QUALITIES, PLACES, ACTS, ANIMAL_ACTS, WEAR,
        NUMBERS, RELATIONS, FRAMES, ZH_NUMBERS, ZH_COLOURS, ZH_PLACES, ZH_ACTS, ZH_SUBJECTS,
    )  # fmt: skip
    text = " ".join(entry for entries in lists for entry in entries)
    return set(text.replace("{}", " ").replace("-", " ").replace(".", " ").split())
