"""Filters for Milvus servers of every version: what one can answer itself, and what is left over.

Servers before 2.5 know only `like` patterns that end in their one `%`. Such a prefix is asked for
as a range of strings. For any other pattern the server is given a condition that is true of all
records that the filter keeps, and of some others, which are told apart here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from secondglance.retrieve.filter_compilers import milvus_literal, present, to_milvus
from secondglance.retrieve.filters import (
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
from secondglance.retrieve.payload import load
from secondglance.retrieve.store import MAX_LIMIT

if TYPE_CHECKING:
    from secondglance.types import Vector

Hit: TypeAlias = "dict[str, Any]"
"""A row as the client returns it: `id`, `distance` (a cosine), `entity`."""

RANK_DIGITS = 6
"""Scores of equal vectors differ in the last float32 bits, with their place in a segment."""
SLACK = 16
"""How many more than asked for are fetched, to see whether more tie with the last one."""

_ALL, _NONE = '(id != "")', '(id == "")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A filter in two parts.

    Attributes:
        expression: For the server; empty for all records.
        rest: What the records must meet besides; None where the server sees to all of it.
    """

    expression: str = ""
    rest: Filter | None = None

    def keeps(self, payload: str) -> bool:
        """Whether a record that the server found meets the rest, by its payload in JSON."""
        return self.rest is None or self.rest.matches(load(payload))


def ask(filter: Filter | None, *, patterns: bool) -> Asked:
    """Divides a filter between a server and this process.

    Args:
        filter: Any.
        patterns: Whether the server knows all `like` patterns.
    """
    if filter is None:
        return Asked()
    if patterns:
        return Asked(expression=to_milvus(filter))
    expression, is_whole = _bound(filter, above=True)
    return Asked(expression=expression, rest=None if is_whole else filter)


def _bound(filter: Filter, *, above: bool) -> tuple[str, bool]:
    """The least condition above a filter that can be said, or the greatest below it.

    Args:
        filter: Any.
        above: True for a condition that follows from the filter, False for one that it follows
            from. Negation swaps the two.

    Returns:
        The condition, and whether it is the filter itself.
    """
    if isinstance(filter, Compare | In):
        return to_milvus(filter), True
    if isinstance(filter, Like):
        return _bound_like(filter, above=above)
    if isinstance(filter, Not):
        expression, is_whole = _bound(filter.part, above=not above)
        return f"(not {expression})", is_whole
    if isinstance(filter, And | Or):
        parts = [_bound(part, above=above) for part in filter.parts]
        if not parts:
            return (_ALL if isinstance(filter, And) else _NONE), True
        word = " and " if isinstance(filter, And) else " or "
        return f"({word.join(said for said, _ in parts)})", all(whole for _, whole in parts)
    raise TypeError(f"no Milvus expression for {type(filter).__name__}")


def _bound_like(filter: Like, *, above: bool) -> tuple[str, bool]:
    tokens = list(like_tokens(filter.pattern))
    if all(isinstance(token, str) for token in tokens):
        return to_milvus(filter), True
    first = next(i for i, token in enumerate(tokens) if isinstance(token, Wildcard))
    start = _starts_with(filter.field, "".join(str(token) for token in tokens[:first]))
    is_whole = tokens[first:] == [ANY_RUN]
    if is_whole or above != filter.negated:
        # All that match start so; all that do not start so do not match.
        return present(filter.field, f"not ({start})" if filter.negated else start), is_whole
    return (present(filter.field, _ALL) if filter.negated else _NONE), False


def _starts_with(field: str, prefix: str) -> str:
    """A range, for servers disagree about what a backslash in a pattern means."""
    if not prefix:
        return _ALL
    above = _following(prefix)
    bounds = [f"{field} >= {milvus_literal(prefix)}"]
    if above is not None:
        bounds.append(f"{field} < {milvus_literal(above)}")
    return f"({' and '.join(bounds)})"


def _following(prefix: str) -> str | None:
    """The least string above all that start so, by code point; None where there is none."""
    shorter = prefix.rstrip("\U0010ffff")
    if not shorter:
        return None
    last = ord(shorter[-1]) + 1
    return shorter[:-1] + chr(0xE000 if last == 0xD800 else last)


def nearest(
    search: Callable[[int], Sequence[Hit]], asked: Asked, *, limit: int, first: int
) -> tuple[list[Hit], int | None]:
    """The best that meet the whole filter, with ties by id.

    Args:
        search: The nearest so many of those that meet the server's part, best first.
        asked: The filter.
        limit: How many are wanted.
        first: How many to ask for at first.

    Returns:
        At most `limit`; and None, or where these are fewer and the server had told of no more than
        so many records: their number. Should it hold more, then each is to be looked at.
    """
    wanted = min(first, MAX_LIMIT)
    while True:
        found = search(wanted)
        kept = [hit for hit in found if asked.keeps(hit["entity"]["payload"])]
        is_cut = len(found) == wanted
        # A tie at the cut can only be broken by id once all of it is here.
        enough = len(kept) >= limit and (
            not is_cut or _score(found[-1]) < _score(kept[limit - 1]) - 10**-RANK_DIGITS
        )
        if enough or not is_cut or wanted == MAX_LIMIT:
            break
        wanted = min(wanted * 4, MAX_LIMIT)
    is_short = len(kept) < limit and bool(asked.expression)
    return ranked(kept)[:limit], len(found) if is_short else None


def paged(
    query: Callable[..., Sequence[Hit]], expression: str, fields: Sequence[str], *, size: int
) -> Iterator[Hit]:
    """All rows that meet an expression, in the order of their ids.

    The client's own iterator takes the time of this machine for the server's where that is old,
    and so may miss what was written just now.

    Args:
        query: Of the server; strong.
        expression: Empty for all.
        fields: `id` among them.
        size: Of a page.
    """
    within = f"{expression} and " if expression else ""
    last = ""
    while True:
        page = query(
            filter=f"{within}id > {milvus_literal(last)}",
            output_fields=list(fields),
            limit=size,
            # The lowest ids of all segments, as the client's iterator asks for them.
            iterator="True",
            reduce_stop_for_best="True",
        )
        page = sorted(page, key=lambda row: str(row["id"]))
        yield from page
        if len(page) < size:
            return
        last = page[-1]["id"]


def scored(rows: Iterable[Hit], query: Vector) -> Iterator[Hit]:
    """Rows with their vectors as hits, by exact cosines."""
    for row in rows:
        cosine = float(np.asarray(row["vector"], dtype=np.float32) @ query)
        yield {"id": row["id"], "distance": cosine, "entity": row}


def ranked(hits: Iterable[Hit]) -> list[Hit]:
    """Best first; ties by id."""
    return sorted(hits, key=lambda hit: (-_score(hit), hit["id"]))


def _score(hit: Hit) -> float:
    return round(float(hit["distance"]), RANK_DIGITS)
