"""Filters in the languages of the stores.

Neither compiler lets user text become syntax: SQL values travel as parameters, and Milvus literals,
whose templates the embedded server does not know, are written by one strict encoder.
"""

from __future__ import annotations

from collections.abc import Iterable

from secondglance.retrieve.fields import FIELDS, FieldType, Value
from secondglance.retrieve.filters import (
    ANY_ONE,
    ANY_RUN,
    And,
    Compare,
    Filter,
    In,
    Like,
    Not,
    Or,
    Wildcard,
    like_tokens,
)

# fmt: off
FLAGGED = frozenset((
    "kind", "path", "root", "name", "text", "item", "taken", "modified", "size", "width", "height",
    "duration_s", "start_s", "end_s",
))
# fmt: on
"""Fields with a boolean Milvus column `has_<field>` beside their own. The ones that came later hold
`absent` where the payload lacks the key instead: half the columns, and quicker to write."""

_GLOB_SPECIAL = "*?["
# The escapes that both Milvus Lite and the Milvus server know; all else may stand as it is.
_MILVUS_ESCAPES = str.maketrans(
    {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\x00": "\ufffd"}
)


def to_sql(filter: Filter) -> tuple[str, list[Value]]:
    """An SQLite expression that is 0 or 1, never NULL, and its parameters.

    Columns are named like the fields, NULL where the payload lacks the key. `like` becomes GLOB,
    because SQLite's own LIKE ignores case.
    """
    if isinstance(filter, Compare):
        column = f'"{filter.field}"'
        return f"({column} IS NOT NULL AND {column} {filter.op} ?)", [filter.value]
    if isinstance(filter, In):
        column, negation = f'"{filter.field}"', "NOT " if filter.negated else ""
        marks = ", ".join("?" * len(filter.values))
        return f"({column} IS NOT NULL AND {column} {negation}IN ({marks}))", list(filter.values)
    if isinstance(filter, Like):
        column, negation = f'"{filter.field}"', "NOT " if filter.negated else ""
        return f"({column} IS NOT NULL AND {column} {negation}GLOB ?)", [_glob(filter.pattern)]
    if isinstance(filter, Not):
        sql, values = to_sql(filter.part)
        return f"(NOT {sql})", values
    if isinstance(filter, And | Or):
        parts = [to_sql(part) for part in filter.parts]
        joined = (" AND " if isinstance(filter, And) else " OR ").join(sql for sql, _ in parts)
        neutral = "1" if isinstance(filter, And) else "0"
        return f"({joined or neutral})", [value for _, values in parts for value in values]
    raise TypeError(f"no SQL for {type(filter).__name__}")


def _glob(pattern: str) -> str:
    signs = {ANY_RUN: "*", ANY_ONE: "?"}
    return "".join(
        signs[token]
        if isinstance(token, Wildcard)
        else (f"[{token}]" if token in _GLOB_SPECIAL else token)
        for token in like_tokens(pattern)
    )


def to_milvus(filter: Filter) -> str:
    """A Milvus boolean expression.

    Each field has a column of its name; `FLAGGED` and `absent` say how a missing key looks. Nothing
    is nullable, which keeps the logic two-valued on every server version: how NULL passes through
    `not` and `or` has changed between Milvus releases.
    """
    if isinstance(filter, Compare):
        return present(filter.field, f"{filter.field} {filter.op} {milvus_literal(filter.value)}")
    if isinstance(filter, In):
        member = f"{filter.field} in {milvus_list(filter.values)}"
        return present(filter.field, f"not ({member})" if filter.negated else member)
    if isinstance(filter, Like):
        match = _milvus_like(filter.field, filter.pattern)
        return present(filter.field, f"not {match}" if filter.negated else match)
    if isinstance(filter, Not):
        return f"(not {to_milvus(filter.part)})"
    if isinstance(filter, And | Or):
        if not filter.parts:
            return '(id != "")' if isinstance(filter, And) else '(id == "")'
        word = " and " if isinstance(filter, And) else " or "
        return f"({word.join(to_milvus(part) for part in filter.parts)})"
    raise TypeError(f"no Milvus expression for {type(filter).__name__}")


def milvus_literal(value: Value) -> str:
    """A string or a number as a Milvus literal; no text can end its own quotes."""
    if isinstance(value, str):
        return f'"{value.translate(_MILVUS_ESCAPES)}"'
    return repr(float(value))


def milvus_list(values: Iterable[Value]) -> str:
    """Values as a Milvus list literal."""
    return f"[{', '.join(milvus_literal(value) for value in values)}]"


def absent(kind: FieldType) -> Value:
    """What a Milvus column that is not `FLAGGED` holds where the payload lacks the key."""
    return -1.7976931348623157e308 if kind in ("number", "time") else "\ufffe"


def present(field: str, condition: str) -> str:
    """A Milvus condition on a field that also says that there is a value."""
    if field in FLAGGED:
        return f"(has_{field} == true and ({condition}))"
    return f"({field} != {milvus_literal(absent(FIELDS[field]))} and ({condition}))"


def _milvus_like(field: str, pattern: str) -> str:
    tokens = list(like_tokens(pattern))
    literal = "".join(token for token in tokens if isinstance(token, str))
    if all(isinstance(token, str) for token in tokens):
        return f"({field} == {milvus_literal(literal)})"
    if "\\" not in literal or ANY_ONE in tokens:
        return f"({field} like {_milvus_pattern(tokens)})"
    # Arrow, which Milvus Lite runs on, takes a prefix, suffix or substring pattern out of its
    # regex path without unescaping it, so an escaped backslash never matches. The same set, said
    # with a `_` in each pattern, stays on the regex path.
    one, run = ANY_ONE, ANY_RUN
    starts, ends = tokens[0] is run, tokens[-1] is run
    first = next(i for i, token in enumerate(tokens) if token is not run)
    last = len(tokens) - next(i for i, token in enumerate(reversed(tokens)) if token is not run)
    core = tokens[first:last]
    if run in core:
        return f"({field} like {_milvus_pattern(tokens)})"
    cases = [f"{field} == {milvus_literal(literal)}"]
    if ends:
        cases.append(f"{field} like {_milvus_pattern([*core, one, run])}")
    if starts:
        cases.append(f"{field} like {_milvus_pattern([one, run, *core, *([run] if ends else [])])}")
    return f"({' or '.join(cases)})"


def _milvus_pattern(tokens: Iterable[str | Wildcard]) -> str:
    return milvus_literal(
        "".join(
            token.sign
            if isinstance(token, Wildcard)
            else (f"\\{token}" if token in "%_\\" else token)
            for token in tokens
        )
    )
