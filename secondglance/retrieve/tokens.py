"""Words of any language, for the word index: what is written and what is asked become one form.

* Letters and digits make words; all else, the underscore too, parts them.
* Words that change case or go over to digits count whole and in parts: `IMG2041`, `img`, `2041`;
  `BeachParty`, `beach`, `party`.
* Case, width and presentation forms are folded (NFKC); so are the accents of Latin and Greek, the
  vowel points of Arabic and Hebrew, and English plurals and endings, by the index (see `lexical`).
* Scripts without spaces between words become overlapping pairs: Chinese, Japanese and Korean of
  characters, as Lucene's CJKBigramFilter makes them, with every Chinese character by itself too;
  Thai, Lao, Khmer and Burmese of user-perceived characters.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import regex

MAX_CHARS = 40
"""Longer words are cut; they are keys and hashes rather than words."""

_PAIRED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー"
_CLUSTERED = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_PIECES = regex.compile(
    rf"(?P<han>[{_PAIRED}]+)|(?P<hangul>\p{{Hangul}}+)|(?P<clustered>[{_CLUSTERED}]+)"
    rf"|(?P<word>[[\p{{L}}\p{{M}}\p{{N}}]--[{_PAIRED}{_CLUSTERED}\p{{Hangul}}]]+)",
    regex.V1,
)
_PARTS = regex.compile(
    r"(?<=\p{Ll}\p{M}*)(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll})"
    r"|(?<=\p{L}\p{M}*)(?=\p{N})|(?<=\p{N})(?=\p{L})",
    regex.V1,
)
_HAN = regex.compile(r"\p{Han}")
_ACCENTED = regex.compile(r"([\p{Latin}\p{Greek}])\p{M}+")
# Arabic vowel signs, hamza and tatweel; Hebrew points.
_POINTS = regex.compile(r"[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u0591-\u05c7]")
# Joiners and soft hyphens stand inside words and are not heard.
_INVISIBLE = regex.compile(r"\p{Cf}+")
# What has no accent to lose, and letters that Arabic and Persian, or Russians, write in two ways.
_LETTERS: dict[int, int | str] = {
    **str.maketrans("øłđðħı" + "ىیکة" + "ё", "olddhi" + "ييكه" + "е"),
    ord("æ"): "ae",
    ord("œ"): "oe",
    ord("þ"): "th",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text.

    Attributes:
        stream: In the order of the text; neighbours in it were neighbours there.
        extra: Further forms of the same words, out of order.
    """

    stream: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Both, the stream first."""
        return self.stream + self.extra


def tokenize(text: str) -> Tokens:
    """Cuts a text of any language into tokens; letters, marks and digits only, lower case."""
    stream: list[str] = []
    extra: list[str] = []
    for found in _PIECES.finditer(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text))):
        piece, kind = found.group(), found.lastgroup
        if kind == "word" and piece.isalpha() and piece.islower():
            stream.append(_fold(piece))
        elif kind == "word":
            parts = [_fold(part) for part in _PARTS.split(piece)]
            stream += filter(None, parts)
            if len(parts) > 1:
                extra.append(_fold(piece))
        elif kind == "clustered":
            stream += _pairs(regex.findall(r"\X", piece))
        else:
            stream += _pairs(list(piece))
            if kind == "han" and len(piece) > 1:
                extra += _HAN.findall(piece)
    return Tokens(tuple(stream), tuple(extra))


def _pairs(characters: list[str]) -> Iterator[str]:
    if len(characters) == 1:
        yield characters[0]
    for first, second in itertools.pairwise(characters):
        yield first + second


def _fold(word: str) -> str:
    if word.isascii():
        return word.lower()[:MAX_CHARS]
    apart = unicodedata.normalize("NFD", word.casefold())
    bare = _POINTS.sub("", _ACCENTED.sub(r"\1", apart))
    return unicodedata.normalize("NFC", bare).translate(_LETTERS)[:MAX_CHARS]
