"""Records as columns of Arrow tables, and back."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from secondglance.retrieve.fields import FIELDS, comparable
from secondglance.types import Payload, Record, join_tags, split_tags

if TYPE_CHECKING:
    import pyarrow as pa

What = Literal["vectors", "metadata", "both"]

BESIDE = {"position": "whole", "keyframe_s": "number"}
"""Payload keys that every record has but no filter names."""

NAMING = (
    "kind", "path", "root", "name", "item", "size", "modified", "start_s", "end_s",
    "keyframe_s", "position",
)  # fmt: skip
"""Columns that say which record a vector belongs to; they stand beside vectors, too."""

EXTRA = "extra"
"""The column of payload keys that have none: one JSON object each."""


def schema_of(what: What, *, dim: int, metadata: Mapping[str, str]) -> pa.Schema:
    """The columns of an export.

    Args:
        what: Vectors with what names them, everything but vectors, or both.
        dim: Length of the vectors.
        metadata: Kept in the schema.
    """
    import pyarrow as pa

    fields = [pa.field("id", pa.string(), nullable=False)]
    if what != "metadata":
        fields.append(pa.field("vector", pa.list_(pa.float32(), dim), nullable=False))
    fields += [pa.field(name, _type(kind)) for name, kind in _kinds(what).items()]
    if what != "vectors":
        fields.append(pa.field(EXTRA, pa.string()))
    return pa.schema(fields, metadata=dict(metadata))


def batch_of(records: Sequence[Record], what: What, schema: pa.Schema) -> pa.RecordBatch:
    """Records as rows of that schema."""
    import pyarrow as pa

    columns: dict[str, Any] = {"id": pa.array([record.id for record in records], pa.string())}
    if what != "metadata":
        dim = schema.field("vector").type.list_size
        stacked = np.zeros((len(records), dim), dtype=np.float32)
        for row, record in enumerate(records):
            stacked[row] = record.vector
        flat = pa.array(stacked.reshape(-1))
        columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, dim)
    kinds = _kinds(what)
    for name, kind in kinds.items():
        cells = [_cell(record.payload.get(name), kind) for record in records]
        columns[name] = pa.array(cells, _type(kind))
    if what != "vectors":
        columns[EXTRA] = pa.array([_extra(record.payload, kinds) for record in records])
        columns[EXTRA] = columns[EXTRA].cast(pa.string())
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def payload_of(row: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The payload that a row was made from; times to the microsecond."""
    payload: dict[str, str | int | float] = {}
    for name, kind in _kinds("metadata").items():
        value = row.get(name)
        if value is None:
            continue
        if kind == "time":
            payload[name] = value.timestamp()
        elif kind == "tags":
            payload[name] = join_tags(value)
        else:
            payload[name] = value
    if row.get(EXTRA):
        payload |= json.loads(row[EXTRA])
    return payload


def _kinds(what: What) -> dict[str, str]:
    kinds: dict[str, str] = {**FIELDS, **BESIDE}
    return {name: kinds[name] for name in NAMING} if what == "vectors" else kinds


def _type(kind: str) -> pa.DataType:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "number": pa.float64(),
        "whole": pa.int64(),
        "time": pa.timestamp("us", tz="UTC"),
        "tags": pa.list_(pa.string()),
    }
    return types[kind]


def _cell(value: str | int | float | None, kind: str) -> Any:
    if value is None:
        return None
    if kind == "time":
        try:
            return datetime.datetime.fromtimestamp(float(value), tz=datetime.timezone.utc)
        except (OverflowError, ValueError, OSError):
            return None  # no calendar has it
    if kind == "tags":
        return split_tags(str(comparable(value)))
    if kind == "whole":
        return int(value)
    return comparable(value)


def _extra(payload: Payload, kinds: Mapping[str, str]) -> str | None:
    rest = {key: value for key, value in payload.items() if key not in kinds}
    return json.dumps(rest) if rest else None
