"""What every store does with records before it writes them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from secondglance.errors import DimensionError, InputError
from secondglance.retrieve.fields import FIELDS, Value, column_value, comparable
from secondglance.types import Payload, Record

if TYPE_CHECKING:
    from secondglance.types import Vector

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Row:
    """One checked record.

    Attributes:
        id: As given.
        vector: float32 of shape (dim,), unit length.
        payload: The whole payload as JSON.
        columns: A comparable value per key of `FIELDS`; None where the payload lacks it.
    """

    id: str
    vector: Vector
    payload: str
    columns: tuple[Value | None, ...]


def rows_of(records: Sequence[Record], *, dim: int) -> list[Row]:
    """Checks records; of records with the same id the last one stays.

    Raises:
        DimensionError: A vector's shape is not (dim,).
        InputError: A vector has no direction, or an id or a payload cannot be kept.
    """
    unique = {record.id: record for record in records}
    return [
        Row(
            _checked_id(record.id),
            unit(record.vector, dim=dim, what=f"the vector of {record.id!r}"),
            dump(record),
            tuple(
                column_value(field, record.payload[field]) if field in record.payload else None
                for field in FIELDS
            ),
        )
        for record in unique.values()
    ]


def unit(vector: Vector, *, dim: int, what: str) -> Vector:
    """The vector in unit length, float32 of shape (dim,).

    Raises:
        DimensionError: The shape is not (dim,).
        InputError: The vector is zero or has a value that is not finite.
    """
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (dim,):
        raise DimensionError(
            f"{what} has shape {array.shape}, the store takes ({dim},)",
            remedy="use the embedder that the library was made with",
        )
    # In float64, so that tiny and huge vectors neither vanish nor overflow.
    length = float(np.linalg.norm(array.astype(np.float64)))
    if not math.isfinite(length) or length == 0:
        raise InputError(
            f"{what} is {'zero' if length == 0 else 'not finite'} and has no direction",
            remedy="give a finite vector that is not zero",
        )
    if abs(length - 1) < 1e-6:
        return array
    return cast("Vector", (array.astype(np.float64) / length).astype(np.float32))


def check_limit(limit: int) -> None:
    """Refuses a limit below 1.

    Raises:
        InputError: It is.
    """
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1")


def dump(record: Record) -> str:
    """The payload of a record as JSON that any database can hold.

    Raises:
        InputError: A value is not a string or a finite number, or not of its field's type.
    """
    for key, value in record.payload.items():
        kind = FIELDS.get(key)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        is_text = isinstance(value, str)
        allowed = {"string": is_text, "tags": is_text, None: is_number or is_text}
        if not allowed.get(kind, is_number):
            raise InputError(
                f"payload key {key!r} of {record.id!r} is {value!r}, and must be a"
                f" {'string' if kind == 'tags' else kind or 'string or a number'}",
                remedy="leave a key out when its value is unknown",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"payload key {key!r} of {record.id!r} is {value!r}, not finite")
    text = json.dumps(dict(record.payload), ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates (undecodable file names) survive as JSON escapes, and the rest stays short.
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def load(text: str) -> Payload:
    """The payload that `dump` wrote."""
    return cast("dict[str, Any]", json.loads(text))


def _checked_id(given: str) -> str:
    if not given or len(given) > 256 or comparable(given) != given:
        raise InputError(f"{given[:300]!r} is no record id", remedy="use 1 to 256 characters")
    return given
