"""The grammar of filter expressions, and the way from its tree to `filters.Filter`."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from secondglance.errors import InputError
from secondglance.retrieve.fields import field_type
from secondglance.retrieve.filters import (
    And,
    Filter,
    Not,
    Operator,
    Or,
    compare,
    has,
    is_in,
    like,
)
from secondglance.retrieve.places import near

_MAX_CHARACTERS = 20_000
# SQLite takes expressions 1,000 levels deep and Milvus parses by recursion; both count a chain of
# `or` as nesting.
_MAX_CONDITIONS = 400
_MAX_DEPTH = 60
_MAX_VALUES = 2_000

# Below this, a number for a time is a year or a slip, never a POSIX time that was meant.
_SMALLEST_POSIX_S = 10_000

_GRAMMAR = r"""
?start: either
?either: both (_OR both)*
?both: unary (_AND unary)*
?unary: _NOT unary -> negation
      | "(" either ")"
      | condition
?condition: FIELD OP literal        -> comparison
          | FIELD _IN values        -> member
          | FIELD _NOT _IN values   -> no_member
          | FIELD _LIKE STRING      -> pattern
          | FIELD _NOT _LIKE STRING -> no_pattern
          | FIELD _HAS STRING       -> has
          | _NEAR "(" NUMBER "," NUMBER "," NUMBER ")" -> near
values: "(" literal ("," literal)* ","? ")"
      | "[" literal ("," literal)* ","? "]"
?literal: STRING | TIME | NUMBER

OP: "==" | "!=" | "<=" | ">=" | "<" | ">"
_AND.3: /and(?!\w)/i
_OR.3: /or(?!\w)/i
_NOT.3: /not(?!\w)/i
_IN.3: /in(?!\w)/i
_LIKE.3: /like(?!\w)/i
_HAS.3: /has(?!\w)/i
_NEAR.3: /near(?=\s*\()/i
FIELD: /[A-Za-z_]\w*/
STRING: /"(\\.|[^"\\])*"|'(\\.|[^'\\])*'/s
TIME.2: /\d{4}-\d{1,2}-\d{1,2}([Tt][\d:.]+([Zz]|[+-]\d{2}:?\d{2})?)?/
NUMBER: /[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
%ignore /\s+/
"""

_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(?::(\d{2}(?:\.\d+)?))?([Zz]|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {
    "FIELD": "a field",
    "OP": "a comparison (== != < <= > >=)",
    "_IN": "in",
    "_LIKE": "like",
    "_HAS": "has",
    "_NEAR": "near(lat, lon, km)",
    "_AND": "and",
    "_OR": "or",
    "_NOT": "not",
    "STRING": 'a string ("...")',
    "TIME": "a date (2024-01-31)",
    "NUMBER": "a number",
    "LPAR": "(",
    "RPAR": ")",
    "LSQB": "[",
    "RSQB": "]",
    "COMMA": ",",
    "$END": "the end",
}
_SLIPS = {"=": "write == to compare", "&": "write and", "|": "write or", "!": "write not or !="}


def parse(text: str) -> Filter:
    """See `filters.parse_filter`."""
    if not text.strip():
        raise InputError("the filter is empty", remedy="leave it out to search everything")
    if len(text) > _MAX_CHARACTERS:
        raise InputError(
            f"the filter has {len(text)} characters; at most {_MAX_CHARACTERS} are allowed"
        )
    try:
        tree = _PARSER.parse(text)
        result: Filter = _ToFilter().transform(tree)
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    except VisitError as error:
        if isinstance(error.orig_exc, InputError):
            raise error.orig_exc from None
        raise
    except RecursionError:
        raise _too_nested() from None
    _check_size(result)
    return result


class _ToFilter(Transformer[Token, Filter]):
    """Turns the tree into filters, bottom up."""

    def either(self, parts: list[Filter]) -> Filter:
        return Or(tuple(parts))

    def both(self, parts: list[Filter]) -> Filter:
        return And(tuple(parts))

    def negation(self, parts: list[Filter]) -> Filter:
        return Not(parts[0])

    def comparison(self, parts: list[Token]) -> Filter:
        field, op, literal = parts
        return compare(str(field), cast("Operator", str(op)), _literal(str(field), literal))

    def values(self, parts: list[Token]) -> list[Token]:
        return parts

    def member(self, parts: list[Any], *, negated: bool = False) -> Filter:
        field, literals = str(parts[0]), parts[1]
        field_type(field)
        return is_in(field, [_literal(field, each) for each in literals], negated=negated)

    def no_member(self, parts: list[Any]) -> Filter:
        return self.member(parts, negated=True)

    def pattern(self, parts: list[Token], *, negated: bool = False) -> Filter:
        return like(str(parts[0]), _unquote(parts[1]), negated=negated)

    def no_pattern(self, parts: list[Token]) -> Filter:
        return self.pattern(parts, negated=True)

    def has(self, parts: list[Token]) -> Filter:
        return has(str(parts[0]), _unquote(parts[1]))

    def near(self, parts: list[Token]) -> Filter:
        lat, lon, km = (float(part) for part in parts)
        return near(lat, lon, km=km)


def _literal(field: str, token: Token) -> str | float:
    """The value of a literal, in the type of its field where that is a time."""
    is_time = field_type(field) == "time"
    if token.type == "STRING":
        text = _unquote(token)
        return _posix_s(field, text) if is_time else text
    if token.type == "TIME":
        # A date for a field that is no time is reported with its text.
        return _posix_s(field, str(token)) if is_time else _refuse_date(field, token)
    number = float(token)
    if is_time and abs(number) < _SMALLEST_POSIX_S:
        raise InputError(
            f"{field!r} is a time, and {token} is not", remedy="write a date like 2024-01-31"
        )
    return number


def _refuse_date(field: str, token: Token) -> float:
    raise InputError(
        f"{field!r} is a {field_type(field)}, and the date {token} is not",
        remedy="use taken or modified for dates, and quotes around text",
    )


def _posix_s(field: str, text: str) -> float:
    parts = _MOMENT.fullmatch(text.strip())
    try:
        if parts is None:
            raise ValueError
        date, clock, second, offset = parts.groups()
        # Python 3.10 reads neither `Z`, nor `+0200`, nor every length of a fraction.
        zone = "+00:00" if offset is None or offset in "Zz" else f"{offset[:3]}:{offset[-2:]}"
        moment = datetime.fromisoformat(f"{date}T{clock or '00:00'}:00{zone}")
        seconds = float(second or 0)
        if seconds >= 60:
            raise ValueError
        return moment.timestamp() + seconds
    except ValueError:
        raise InputError(
            f"{text!r} for {field!r} is no date or time",
            remedy="write 2024-01-31, 2024-01-31T18:30 or 2024-01-31T18:30:00+02:00",
        ) from None


def _unquote(token: Token) -> str:
    def replace(escape: re.Match[str]) -> str:
        character = escape.group(1)
        if character in "%_":
            return escape.group(0)
        if character not in _ESCAPES:
            raise InputError(
                f"unknown escape \\{character} in {token}",
                remedy=r"a backslash is written \\; allowed: \\ \" \' \n \r \t \% \_",
            )
        return _ESCAPES[character]

    return re.sub(r"\\(.)", replace, token[1:-1], flags=re.DOTALL)


def _check_size(parsed: Filter) -> None:
    conditions = 0
    waiting: list[tuple[Filter, int]] = [(parsed, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise _too_nested()
        if isinstance(node, And | Or):
            waiting.extend((part, depth + 1) for part in node.parts)
        elif isinstance(node, Not):
            waiting.append((node.part, depth + 1))
        else:
            conditions += 1
            values = len(getattr(node, "values", ()))
            if values > _MAX_VALUES:
                raise InputError(f"a list has {values} values; at most {_MAX_VALUES} are allowed")
    if conditions > _MAX_CONDITIONS:
        raise InputError(
            f"the filter has {conditions} conditions; at most {_MAX_CONDITIONS} are allowed",
            remedy="use in (...) for many values of one field",
        )


def _too_nested() -> InputError:
    return InputError(
        f"the filter is nested more than {_MAX_DEPTH} deep", remedy="take out parentheses"
    )


def _syntax_error(text: str, error: UnexpectedInput) -> InputError:
    expected: set[str] = set()
    found = "the end"
    position = len(text)
    remedy = None
    if isinstance(error, UnexpectedCharacters):
        position = cast("int", error.pos_in_stream)
        expected = set(error.allowed or ())
        found = repr(text[position])
        remedy = _SLIPS.get(text[position])
        if text[position] in {'"', "'"} and "STRING" in expected:
            remedy = "close the quote"
    elif isinstance(error, UnexpectedToken):
        expected = set(error.accepts or error.expected)
        if error.token.type != "$END":
            position = cast("int", error.pos_in_stream)
            found = repr(str(error.token))
    if remedy is None:
        words = sorted(_WORDS.get(name, name) for name in expected)
        remedy = f"expected {', '.join(words)}"
    near = text[max(0, position - 20) : position + 20]
    return InputError(
        f"the filter has {found} where it does not belong, at character {position + 1}"
        f" near {near!r}",
        remedy=remedy,
    )


_PARSER = Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)
