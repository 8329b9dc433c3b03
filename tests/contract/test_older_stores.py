"""Stores that were made before some of the fields existed."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from secondglance.errors import StoreError
from secondglance.retrieve import milvus_lite, milvus_schema
from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.retrieve.fields import FIELDS
from secondglance.retrieve.filter_compilers import FLAGGED
from secondglance.retrieve.filters import parse_filter
from secondglance.retrieve.milvus_store import MilvusStore
from secondglance.types import Record
from tests.contract.stores import DIM, unit_vectors

ROWS = 1100
OLD = [name for name in FIELDS if name in FLAGGED]


def old_payload(number: int) -> dict[str, Any]:
    return {"kind": "image", "path": f"a/{number}.jpg", "size": number}


def make_old_collection(path: Path) -> None:
    """As the first release made it."""
    address = milvus_lite.acquire(path)
    client: Any = MilvusClient(address)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=1024)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=DIM)
    schema.add_field("payload", DataType.VARCHAR, max_length=65_535)
    for name in OLD:
        if FIELDS[name] == "string":
            schema.add_field(name, DataType.VARCHAR, max_length=65_535)
        else:
            schema.add_field(name, DataType.DOUBLE)
        schema.add_field(f"has_{name}", DataType.BOOL)
    index = MilvusClient.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="COSINE")
    client.create_collection(
        "secondglance", schema=schema, index_params=index, consistency_level="Strong"
    )
    vectors = unit_vectors(ROWS)
    rows = []
    for number in range(ROWS):
        payload = old_payload(number)
        row = {"id": f"r{number:05}", "vector": vectors[number], "payload": json.dumps(payload)}
        for name in OLD:
            row[name] = payload.get(name, "" if FIELDS[name] == "string" else 0.0)
            row[f"has_{name}"] = name in payload
        rows.append(row)
    client.upsert("secondglance", rows)
    client.flush("secondglance")
    client.close()
    milvus_lite.release(path)


def assert_whole(store: MilvusStore) -> None:
    assert store.count() == ROWS
    found = store.get(["r00000", f"r{ROWS - 1:05}"])
    assert [record.payload for record in found] == [old_payload(0), old_payload(ROWS - 1)]
    np.testing.assert_allclose(found[0].vector, unit_vectors(ROWS)[0], atol=1e-6)
    assert store.count(filter=parse_filter("size < 100")) == 100


def test_an_old_collection_is_searched_as_it_is_and_renewed_when_written(tmp_path: Path) -> None:
    path = tmp_path / "vectors.db"
    make_old_collection(path)
    store = MilvusStore(path, dim=DIM)
    assert_whole(store)
    query = unit_vectors(1, seed=5)[0]
    wanted = [match.id for match in store.search(query, limit=20)]
    with pytest.raises(StoreError, match=r"before there was a field 'camera' \(run `secondglance"):
        store.search(query, limit=3, filter=parse_filter('size > 3 and camera == "x"'))
    with pytest.raises(StoreError, match="'tags'"):
        store.count(filter=parse_filter('not tags has "x"'))

    new = Record(id="new", vector=query, payload={"camera": "Canon", "tags": "|Sea|", "size": -1})
    store.upsert([new])
    assert store.count(filter=parse_filter('camera == "Canon" and tags has "sea"')) == 1
    assert store.count(filter=parse_filter('not tags has "sea"')) == ROWS
    assert [match.id for match in store.search(query, limit=21)] == ["new", *wanted]
    store.delete(["new"])
    store.close()

    store = MilvusStore(path, dim=DIM)
    assert_whole(store)
    assert store.count(filter=parse_filter('camera like "%"')) == 0
    store.close()


@pytest.mark.parametrize("when", ["copying", "renaming"])
def test_a_kill_while_renewing_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "vectors.db"
    make_old_collection(path)
    calls = 0

    def stop(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1 or when == "renaming":
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    name = {"copying": "batches", "renaming": "finish_renewal"}[when]
    real = getattr(milvus_schema, name)
    store = MilvusStore(path, dim=DIM)
    with monkeypatch.context() as patch:
        patch.setattr(milvus_schema, name, stop)
        with pytest.raises(KeyboardInterrupt):
            store.delete(["none"])
    store.close()
    store = MilvusStore(path, dim=DIM)
    assert_whole(store)
    store.delete(["none"])
    assert_whole(store)
    assert store.count(filter=parse_filter("iso_speed > 0")) == 0
    store.close()


@pytest.mark.parametrize("kind", [ExactStore, FaissStore])
def test_an_old_folder_gets_the_columns(
    tmp_path: Path, kind: type[ExactStore] | type[FaissStore]
) -> None:
    vectors = unit_vectors(2)
    store = kind(tmp_path, dim=DIM)
    store.upsert([Record(id="old", vector=vectors[0], payload={"size": 1})])
    store.close()
    database = sqlite3.connect(tmp_path / "records.sqlite")
    for name in FIELDS:
        if name not in OLD:
            database.execute(f'ALTER TABLE records DROP COLUMN "{name}"')
    database.commit()
    database.close()

    store = kind(tmp_path, dim=DIM)
    store.upsert([Record(id="new", vector=vectors[1], payload={"size": 2, "camera": "Canon"})])
    assert store.count(filter=parse_filter('camera == "Canon"')) == 1
    assert store.count(filter=parse_filter('not camera == "Canon"')) == 1
    assert store.count(filter=parse_filter("size >= 1")) == 2
    store.close()
