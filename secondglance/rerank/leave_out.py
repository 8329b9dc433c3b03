"""What a score depends on in a text, found by leaving out its words, or stretches of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from secondglance.rerank.occlusion import mean_cost

NOTHING = "NULL"
"""What the reranker's recipe writes for an empty side of a pair."""
SPLIT = 8
"""Into so many stretches a stretch is split that is too long for its single words."""
DIRECT = 12
"""Words of a stretch that are left out one by one."""

_JOINED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー"
_CLUSTERED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_JOINED}{_CLUSTERED}]]"
_PIECES = regex.compile(
    rf"(?P<joined>[{_JOINED}]+)|(?P<clustered>[{_CLUSTERED}]+)"
    rf"|(?P<word>{_LETTER}+(?:['’._-]{_LETTER}+)*)",
    regex.V1,
)
_REACH = {"joined": 2, "clustered": 4}
"""Characters left out together, in scripts without spaces: about a word."""


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a text; `run` numbers stretches without a space between words."""

    start: int
    end: int
    run: int = 0
    reach: int = 1


@dataclass(frozen=True, slots=True)
class Leave:
    """What is left out at once: parts [first, stop) of a list."""

    first: int
    stop: int


def spans(text: str) -> list[Span]:
    """The words of a text, in order; characters where the script has no spaces between words.

    Chinese and Japanese are taken apart into characters, Thai, Lao, Khmer and Burmese into
    user-perceived ones.
    """
    found: list[Span] = []
    for run, piece in enumerate(_PIECES.finditer(text)):
        kind = piece.lastgroup or "word"
        if kind == "word":
            found.append(Span(piece.start(), piece.end(), run))
            continue
        for cluster in regex.finditer(r"\X", piece.group()):
            start, end = (piece.start() + at for at in cluster.span())
            found.append(Span(start, end, run, _REACH[kind]))
    return found


def leaves(parts: Sequence[Span]) -> list[Leave]:
    """One for each word; in scripts without spaces one for each `reach` neighbours of a run."""
    found: list[Leave] = []
    first = 0
    while first < len(parts):
        stop = first
        while stop < len(parts) and parts[stop].run == parts[first].run:
            stop += 1
        reach = min(parts[first].reach, stop - first)
        found += [Leave(at, at + reach) for at in range(first, stop - reach + 1)]
        first = stop
    return found


def blocks(first: int, stop: int, count: int) -> list[Leave]:
    """Parts [first, stop) in at most `count` stretches of nearly equal length."""
    count = max(1, min(count, stop - first))
    edges = np.linspace(first, stop, count + 1).round().astype(int)
    return [Leave(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def without(text: str, start: int, end: int) -> str:
    """The text without characters [start, end); `NOTHING` if nothing is left."""
    before, after = text[:start], text[end:]
    if not _PIECES.search(before + after):
        return NOTHING
    if before.endswith((" ", "\n", "\t")) or not before:
        after = after.lstrip(" ")
    return before + after


@dataclass(frozen=True, slots=True)
class Stretch:
    """Words [first, stop) of text number `part`, and what leaving them out costs."""

    part: int
    first: int
    stop: int
    cost: float = 0.0


Cost = Callable[[Sequence[tuple[int, int, int]]], Sequence[float]]
"""What leaving out characters [start, end) of text `part` costs, for each (part, start, end); NaN
where it is not known."""


def word_costs(texts: Sequence[str], cost: Cost, *, most: int) -> list[tuple[int, int, int, float]]:
    """What each word costs, or in long texts each stretch: finer where it costs more.

    Args:
        texts: Any number.
        cost: Scores texts without some of their words.
        most: Stretches that are tried, at most, but at least one a text.

    Returns:
        (part, start, end, cost) in the order of the texts; together they cover all words.
    """
    words = [spans(text) for text in texts]
    whole = [Stretch(part, 0, len(found)) for part, found in enumerate(words) if found]
    tried = 0

    def split(stretch: Stretch, *, by_word: bool) -> list[Leave]:
        if by_word:
            inside = leaves(words[stretch.part][stretch.first : stretch.stop])
            return [Leave(stretch.first + a.first, stretch.first + a.stop) for a in inside]
        return blocks(stretch.first, stretch.stop, SPLIT)

    def refine(chosen: Sequence[tuple[Stretch, list[Leave], bool]]) -> list[Stretch]:
        asked = [
            (at.part, words[at.part][leave.first].start, words[at.part][leave.stop - 1].end)
            for at, left_out, _ in chosen
            for leave in left_out
        ]
        found = iter(cost(asked))
        result = []
        for at, left_out, by_word in chosen:
            costs = [next(found) for _ in left_out]
            if by_word:
                masks = np.zeros((len(left_out), at.stop - at.first), dtype=np.bool_)
                for row, leave in zip(masks, left_out, strict=True):
                    row[leave.first - at.first : leave.stop - at.first] = True
                each = mean_cost(masks, costs).tolist()
                result += [Stretch(at.part, at.first + i, at.first + i + 1, c) for i, c in
                           enumerate(each)]  # fmt: skip
            else:
                known = np.nan_to_num(costs, nan=0.0).tolist()
                result += [Stretch(at.part, leave.first, leave.stop, c) for leave, c in
                           zip(left_out, known, strict=True)]  # fmt: skip
        return result

    if sum(len(leaves(found)) for found in words) <= most:
        done = refine([(stretch, split(stretch, by_word=True), True) for stretch in whole])
        return _placed(done, words)
    share = max(1, most // 2 // max(1, len(whole)))
    coarse = [(at, blocks(at.first, at.stop, share), False) for at in whole]
    tried = sum(len(left_out) for _, left_out, _ in coarse)
    done = refine(coarse)
    while True:
        # The stretch that costs most is looked at more closely.
        opened = max(
            (at for at in done if at.stop - at.first > 1 and at.cost > 0),
            key=lambda at: at.cost,
            default=None,
        )
        if opened is None:
            break
        by_word = opened.stop - opened.first <= DIRECT
        left_out = split(opened, by_word=by_word)
        if tried + len(left_out) > most:
            break
        tried += len(left_out)
        done.remove(opened)
        done += refine([(opened, left_out, by_word)])
    return _placed(done, words)


def _placed(
    done: Sequence[Stretch], words: Sequence[Sequence[Span]]
) -> list[tuple[int, int, int, float]]:
    """Stretches of words as characters, in order."""
    return [
        (at.part, words[at.part][at.first].start, words[at.part][at.stop - 1].end, at.cost)
        for at in sorted(done, key=lambda at: (at.part, at.first))
    ]
