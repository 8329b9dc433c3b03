"""The columns of a Milvus collection, rows for them, and the way from an older set of columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from secondglance.errors import InputError, StoreError
from secondglance.retrieve.fields import FIELDS
from secondglance.retrieve.filter_compilers import FLAGGED, absent
from secondglance.retrieve.payload import Row, load, rows_of
from secondglance.types import Record

# Longest VARCHAR of Milvus, in bytes of UTF-8.
MAX_TEXT_BYTES = 65_535
# Far below the 64 MiB that a gRPC message may have.
BATCH_BYTES = 8 << 20
BATCH_ROWS = 1_000
HNSW_M = 32
HNSW_EF_CONSTRUCTION = 200

_RENEWED = "_renewed"


def column_names() -> list[str]:
    """Every column; `filter_compilers` says what stands in them."""
    flags = (f"has_{name}" for name in FIELDS if name in FLAGGED)
    return ["id", "vector", "payload", *FIELDS, *flags]


def create(client: Any, collection: str, *, dim: int, lite: bool, timeout_s: float) -> None:
    """Makes an empty collection: searched exactly on Lite, through HNSW on a server."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=1024)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("payload", DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
    for name, kind in FIELDS.items():
        if kind in ("string", "tags"):
            schema.add_field(name, DataType.VARCHAR, max_length=MAX_TEXT_BYTES)
        else:
            schema.add_field(name, DataType.DOUBLE)
        if name in FLAGGED:
            schema.add_field(f"has_{name}", DataType.BOOL)
    index = MilvusClient.prepare_index_params()
    if lite:
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    else:
        params = {"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION}
        index.add_index("vector", index_type="HNSW", metric_type="COSINE", params=params)
    client.create_collection(
        collection,
        schema=schema,
        index_params=index,
        # What was written is found by the next search, as in the other stores.
        consistency_level="Strong",
        timeout=timeout_s,
    )


def entity(row: Row) -> dict[str, Any]:
    """A row as Milvus takes it.

    Raises:
        InputError: The payload is too long.
    """
    size = len(row.payload.encode())
    if size > MAX_TEXT_BYTES:
        raise InputError(
            f"the payload of {row.id!r} takes {size} bytes; Milvus holds {MAX_TEXT_BYTES}",
            remedy="cut the text into shorter passages, or use the faiss store",
        )
    values: dict[str, Any] = {"id": row.id, "vector": row.vector, "payload": row.payload}
    for (name, kind), value in zip(FIELDS.items(), row.columns, strict=True):
        if name in FLAGGED:
            filler: str | float = "" if kind == "string" else 0.0
            values[f"has_{name}"] = value is not None
        else:
            filler = absent(kind)
        values[name] = filler if value is None else value
    return values


def batches(entities: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Rows in portions that fit into one message."""
    batch: list[dict[str, Any]] = []
    size = 0
    for values in entities:
        # Strings of the payload travel once more in their columns.
        bytes_ = values["vector"].nbytes + 8 * len(values["payload"]) + 1024
        if batch and (size + bytes_ > BATCH_BYTES or len(batch) == BATCH_ROWS):
            yield batch
            batch, size = [], 0
        batch.append(values)
        size += bytes_
    if batch:
        yield batch


def renew(client: Any, collection: str, *, dim: int, lite: bool, timeout_s: float) -> None:
    """Copies a collection into one with all columns, which then takes its name.

    A kill at any moment loses nothing: the old one goes only when the new one is complete.

    Raises:
        StoreError: The copy has not as many rows, because another process writes.
    """
    renewed = collection + _RENEWED
    if client.has_collection(renewed, timeout=timeout_s):
        client.drop_collection(renewed, timeout=timeout_s)
    create(client, renewed, dim=dim, lite=lite, timeout_s=timeout_s)
    client.load_collection(collection, timeout=timeout_s)
    client.load_collection(renewed, timeout=timeout_s)
    rows = client.query_iterator(
        collection,
        batch_size=BATCH_ROWS,
        output_fields=["id", "vector", "payload"],
        timeout=timeout_s,
    )
    try:
        while found := rows.next():
            records = [
                Record(
                    id=values["id"],
                    vector=np.asarray(values["vector"], dtype=np.float32),
                    payload=load(values["payload"]),
                )
                for values in found
            ]
            for batch in batches(entity(row) for row in rows_of(records, dim=dim)):
                client.upsert(renewed, batch, timeout=timeout_s)
            client.flush(renewed, timeout=timeout_s)
    finally:
        rows.close()
    counts = [_count(client, name, timeout_s) for name in (collection, renewed)]
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy of {collection!r} has {counts[1]} rows, not {counts[0]}",
            remedy="end other programs that write to it, and try again",
        )
    client.drop_collection(collection, timeout=timeout_s)
    finish_renewal(client, collection, timeout_s=timeout_s)


def finish_renewal(client: Any, collection: str, *, timeout_s: float) -> None:
    """Gives a complete copy the name of the collection that it replaces."""
    renewed = collection + _RENEWED
    if client.has_collection(collection, timeout=timeout_s):
        return
    if client.has_collection(renewed, timeout=timeout_s):
        client.rename_collection(renewed, collection, timeout=timeout_s)


def _count(client: Any, collection: str, timeout_s: float) -> int:
    (row,) = client.query(collection, output_fields=["count(*)"], timeout=timeout_s)
    return int(row["count(*)"])
