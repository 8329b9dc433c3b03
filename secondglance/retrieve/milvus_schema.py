"""The columns of a Milvus collection, rows for them, and the way from an older set of columns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException
from pymilvus.client.types import LoadState

from secondglance.errors import DimensionError, InputError, StoreError
from secondglance.retrieve import milvus_errors
from secondglance.retrieve.fields import FIELDS, comparable
from secondglance.retrieve.filter_compilers import FLAGGED, absent
from secondglance.retrieve.payload import Row, load, rows_of
from secondglance.types import Record

# Longest VARCHAR of Milvus, in bytes of UTF-8.
MAX_TEXT_BYTES = 65_535
# Far below the 64 MiB that a gRPC message may have.
BATCH_BYTES = 8 << 20
BATCH_ROWS = 1_000

_RENEWED = "_renewed"
_CREATE_TIMEOUT_S = 60.0
# Of an index over millions of vectors.
_BUILD_TIMEOUT_S = 24 * 3600.0


def column_names() -> list[str]:
    """Every column; `filter_compilers` says what stands in them."""
    flags = (f"has_{name}" for name in FIELDS if name in FLAGGED)
    return ["id", "vector", "payload", *FIELDS, *flags]


def create(
    client: Any, collection: str, *, dim: int, index: dict[str, Any], timeout_s: float
) -> None:
    """Makes an empty collection, with `IndexChoice.build` as its index."""
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
    params = MilvusClient.prepare_index_params()
    params.add_index("vector", **index)
    # Making channels takes an idle server a second, and a busy one longer than a search may.
    timeout_s = max(timeout_s, _CREATE_TIMEOUT_S)
    client.create_collection(
        collection,
        schema=schema,
        # What was written is found by the next search, as in the other stores.
        consistency_level="Strong",
        timeout=timeout_s,
    )
    client.create_index(collection, params, timeout=timeout_s, sync=False)


def load_rows(client: Any, collection: str, *, timeout_s: float) -> None:
    """Has a server bring a collection into memory; returns when it can be searched.

    A large one takes minutes. A server that goes away meanwhile is noticed within a call's limit.

    Raises:
        StoreError: It does not get there.
    """
    client.load_collection(collection, timeout=max(timeout_s, _CREATE_TIMEOUT_S), _async=True)
    deadline = time.monotonic() + _BUILD_TIMEOUT_S
    pause_s = 0.02
    while True:
        state = client.get_load_state(collection, timeout=timeout_s)
        if state["state"] == LoadState.Loaded:
            return
        if time.monotonic() > deadline:
            raise StoreError(
                f"the collection {collection!r} is not loaded after {_BUILD_TIMEOUT_S:.0f} s",
                remedy="see the server's log; it may lack memory",
            )
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.2)


def lacking(
    client: Any, collection: str, *, dim: int, label: str, timeout_s: float
) -> frozenset[str]:
    """The fields that an older collection has no columns for.

    Raises:
        DimensionError: It holds vectors of another length.
        StoreError: It is not ours.
    """
    description = client.describe_collection(collection, timeout=timeout_s)
    fields = {field["name"]: field for field in description["fields"]}
    missing = [name for name in column_names() if name not in fields]
    if any(name not in FIELDS or name in FLAGGED for name in missing):
        raise StoreError(
            f"the collection {collection!r} at {label} lacks {', '.join(missing)}",
            remedy="it was made by another program or release; name another collection",
        )
    found = int(fields["vector"].get("params", {}).get("dim", 0))
    if found != dim:
        raise DimensionError(
            f"the collection {collection!r} at {label} holds vectors of length {found}, not {dim}",
            remedy="use the embedder that it was made with, or name another collection",
        )
    return frozenset(missing)


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


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """Ids in portions that one filter may name."""
    # What cannot be sent was never stored.
    sendable = [each for each in dict.fromkeys(ids) if comparable(each) == each]
    for start in range(0, len(sendable), BATCH_ROWS // 2):
        yield sendable[start : start + BATCH_ROWS // 2]


def rebuild_index(
    client: Any, collection: str, index: dict[str, Any], *, label: str, timeout_s: float
) -> None:
    """Replaces the index of a server's collection; searches fail until the next load.

    Raises:
        StoreError: The server cannot build this kind; the collection has no index then, and is
            given one by the next opening with a kind that the server knows.
    """
    client.release_collection(collection, timeout=timeout_s)
    if client.list_indexes(collection, field_name="vector", timeout=timeout_s):
        client.drop_index(collection, "vector", timeout=timeout_s)
    params = MilvusClient.prepare_index_params()
    params.add_index("vector", **index)
    try:
        client.create_index(collection, params, timeout=timeout_s, sync=False)
        load_rows(client, collection, timeout_s=timeout_s)
    except MilvusException as error:
        if milvus_errors.passing(error):
            raise
        raise StoreError(
            f"Milvus at {label} cannot build the index {index['index_type']}: {error.message}",
            remedy="choose another store.server_index; DISKANN needs enableDisk on its query nodes",
        ) from error


def renew(
    client: Any, collection: str, *, dim: int, index: dict[str, Any], timeout_s: float
) -> None:
    """Copies a collection into one with all columns, which then takes its name.

    A kill at any moment loses nothing: the old one goes only when the new one is complete.

    Raises:
        StoreError: The copy has not as many rows, because another process writes.
    """
    renewed = collection + _RENEWED
    if client.has_collection(renewed, timeout=timeout_s):
        client.drop_collection(renewed, timeout=timeout_s)
    create(client, renewed, dim=dim, index=index, timeout_s=timeout_s)
    load_rows(client, collection, timeout_s=timeout_s)
    load_rows(client, renewed, timeout_s=timeout_s)
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
