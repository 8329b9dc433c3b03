r"""One typed filter language, parsed once and compiled for each store.

    kind == "video" and taken >= 2024-01-01 and path like "holiday/%"

* Comparisons `== != < <= > >=`, `in (...)` and `in [...]`, `not in`, `like`, `not like`; `and`,
  `or`, `not` and parentheses, keywords in any case. The field stands on the left.
* Strings take either quote and the escapes `\\ \" \' \n \r \t`. As in MySQL, `\%` and `\_` keep
  their backslash, so that a pattern can ask for the character itself.
* `like` is case-sensitive and matches the whole string: `%` is any run of characters, `_` is any
  one, a backslash takes the next character as it is.
* `tags has "beach"` is true where one of the tags is that word, in any case.
* `near(lat, lon, km)` is true of places within a distance; see `retrieve.places`.
* Dates (`2024-01-01`, midnight) and date-times (`2024-01-01T10:00[:SS][Z|+02:00]`) are instants in
  POSIX seconds; without an offset they are UTC. Quotes around them are optional.
* Logic has two values. A comparison with a key that the payload lacks is false, and so are `!=`,
  `not in` and `not like`; `not (...)` then negates plainly.
* Strings compare by Unicode code point. NUL and lone surrogates, which no database takes, compare
  as U+FFFD (see `comparable`).
"""

from __future__ import annotations

import functools
import math
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from secondglance.errors import InputError
from secondglance.retrieve.fields import (
    FIELDS,
    Value,
    column_value,
    comparable,
    field_type,
    folded,
)
from secondglance.types import KINDS, Payload, clean_tag

Operator = Literal["==", "!=", "<", "<=", ">", ">="]

_COMPARE: Mapping[str, Callable[[Value, Value], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Filter(ABC):
    """A condition on a payload; build it with `parse_filter` or the helpers below."""

    __slots__ = ()

    @abstractmethod
    def matches(self, payload: Payload) -> bool:
        """Whether a payload meets the condition: the reference that stores must agree with."""

    @abstractmethod
    def fields(self) -> frozenset[str]:
        """The fields that the condition names."""


@dataclass(frozen=True, slots=True)
class Compare(Filter):
    """`field op value`."""

    field: str
    op: Operator
    value: Value

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        found = payload.get(self.field)
        return found is not None and _COMPARE[self.op](comparable(found), self.value)

    def fields(self) -> frozenset[str]:  # noqa: D102
        return frozenset((self.field,))


@dataclass(frozen=True, slots=True)
class In(Filter):
    """`field in (values)`, or `field not in (values)` when negated."""

    field: str
    values: tuple[Value, ...]
    negated: bool = False

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        found = payload.get(self.field)
        return found is not None and (comparable(found) in self.values) != self.negated

    def fields(self) -> frozenset[str]:  # noqa: D102
        return frozenset((self.field,))


@dataclass(frozen=True, slots=True)
class Like(Filter):
    """`field like pattern`, or `field not like pattern` when negated."""

    field: str
    pattern: str
    negated: bool = False

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        found = payload.get(self.field)
        if found is None:
            return False
        value = str(column_value(self.field, found))
        hit = _like_regex(self.pattern).fullmatch(value) is not None
        return hit != self.negated

    def fields(self) -> frozenset[str]:  # noqa: D102
        return frozenset((self.field,))


@dataclass(frozen=True, slots=True)
class And(Filter):
    """All of the parts hold."""

    parts: tuple[Filter, ...]

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        return all(part.matches(payload) for part in self.parts)

    def fields(self) -> frozenset[str]:  # noqa: D102
        return frozenset().union(*(part.fields() for part in self.parts))


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """Any of the parts holds."""

    parts: tuple[Filter, ...]

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        return any(part.matches(payload) for part in self.parts)

    def fields(self) -> frozenset[str]:  # noqa: D102
        return frozenset().union(*(part.fields() for part in self.parts))


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """The part does not hold."""

    part: Filter

    def matches(self, payload: Payload) -> bool:  # noqa: D102
        return not self.part.matches(payload)

    def fields(self) -> frozenset[str]:  # noqa: D102
        return self.part.fields()


def parse_filter(text: str) -> Filter:
    """Reads a filter expression.

    Raises:
        InputError: The text is empty, too long or nested too deep, is not in the grammar, names an
            unknown field, or gives a field a value of another type.
    """
    # Lark and the grammar load only when somebody filters.
    from secondglance.retrieve.filter_grammar import parse

    return parse(text)


def kind_is(*kinds: str) -> Filter:
    """Records of any of these kinds.

    Raises:
        InputError: A kind is not one of `KINDS`, or none is given.
    """
    if len(kinds) == 1:
        return compare("kind", "==", kinds[0])
    return is_in("kind", kinds)


def and_(*filters: Filter | None) -> Filter | None:
    """All of the filters that are not None; None if there are none."""
    parts = tuple(part for part in filters if part is not None)
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else And(parts)


def compare(field: str, op: Operator, value: str | int | float) -> Filter:
    """`field op value`, with the checks of the parser; times are POSIX seconds.

    Raises:
        InputError: The field, the operator or the value is not allowed.
    """
    if op not in _COMPARE:
        raise InputError(f"unknown operator {op!r}; allowed: {' '.join(_COMPARE)}")
    return Compare(field, op, check_value(field, value))


def is_in(field: str, values: Sequence[str | int | float], *, negated: bool = False) -> Filter:
    """`field in (values)`, with the checks of the parser.

    Raises:
        InputError: The field or a value is not allowed, or there are no values.
    """
    if not values:
        raise InputError(f"the list of values for {field!r} is empty", remedy="give at least one")
    return In(field, tuple(check_value(field, value) for value in values), negated)


def like(field: str, pattern: str, *, negated: bool = False) -> Filter:
    """`field like pattern`, with the checks of the parser.

    Raises:
        InputError: The field is unknown or no string, or the pattern ends in a lone backslash.
    """
    if field_type(field) == "tags":
        raise _only_has(field)
    if field_type(field) != "string":
        raise InputError(
            f"`like` needs a string field, and {field!r} is a {FIELDS[field]}",
            remedy="compare it with ==, !=, <, <=, > or >=",
        )
    pattern = str(comparable(pattern))
    list(like_tokens(pattern))
    return Like(field, pattern, negated)


def has(field: str, tag: str) -> Filter:
    """`field has tag`: one of the tags is this word, in any case.

    Raises:
        InputError: The field is unknown or holds no tags, or the tag is empty.
    """
    if field_type(field) != "tags":
        raise InputError(
            f"`has` needs a field of tags, and {field!r} is a {FIELDS[field]}",
            remedy='write tags has "beach"',
        )
    word = folded(str(comparable(clean_tag(tag))))
    if not word:
        raise InputError(f"the tag {tag!r} is empty", remedy='write tags has "beach"')
    literal = re.sub(r"([%_\\\\])", r"\\\1", word)
    # The column holds |beach|sea|, and no tag holds a bar.
    return Like(field, f"%|{literal}|%")


def _only_has(field: str) -> InputError:
    return InputError(
        f"{field!r} is a list, and has no order or pattern", remedy=f'write {field} has "beach"'
    )


def check_value(field: str, value: str | int | float) -> Value:
    """A literal in the form that `matches` compares.

    Raises:
        InputError: The value is not of the field's type, not finite, or no known kind.
    """
    wanted = field_type(field)
    if wanted == "tags":
        raise _only_has(field)
    if isinstance(value, str) != (wanted == "string"):
        example = {"string": '"some text"', "number": "640", "time": "2024-01-31"}[wanted]
        raise InputError(
            f"{field!r} is a {wanted}, and {value!r} is not", remedy=f"write it like {example}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{value!r} for {field!r} is out of range", remedy="use a finite number")
    if field == "kind" and value not in KINDS:
        raise InputError(f"unknown kind {value!r}", remedy=f"use one of: {', '.join(KINDS)}")
    return comparable(value)


class Wildcard:
    """A token of a `like` pattern that is no literal text."""

    def __init__(self, sign: str) -> None:
        self.sign = sign


ANY_RUN = Wildcard("%")
ANY_ONE = Wildcard("_")


def like_tokens(pattern: str) -> Iterator[str | Wildcard]:
    r"""Splits a pattern into literal characters, `ANY_RUN` and `ANY_ONE`.

    Raises:
        InputError: The pattern ends in a backslash that escapes nothing.
    """
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            yield ANY_RUN
        elif character == "_":
            yield ANY_ONE
        elif character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                raise InputError(
                    f"the pattern {pattern!r} ends in a lone backslash",
                    remedy=r"a backslash itself is \\ in a pattern, and \\\\ inside quotes",
                )
            yield escaped
        else:
            yield character


@functools.lru_cache(maxsize=256)
def _like_regex(pattern: str) -> re.Pattern[str]:
    signs = {ANY_RUN: ".*", ANY_ONE: "."}
    return re.compile(
        "".join(
            signs[token] if isinstance(token, Wildcard) else re.escape(token)
            for token in like_tokens(pattern)
        ),
        re.DOTALL,
    )
