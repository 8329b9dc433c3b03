"""The FAISS store on each of its indexes: deletes, compaction, mapping, learning, growth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pytest
import torch

from secondglance.errors import InputError, StoreError
from secondglance.retrieve import faiss_store, index_file
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.retrieve.filters import parse_filter
from tests.contract.stores import DIM, assert_same, expected, records, unit_vectors

Approximate = Literal["hnsw", "sq8", "ivfpq"]
APPROXIMATE = ["hnsw", "sq8", "ivfpq"]
QUERY = unit_vectors(1, seed=12)[0]


@pytest.mark.parametrize("layout", ["hnsw", "sq8"])
def test_deletes_leave_dead_ones_and_compaction_drops_them(
    tmp_path: Path, layout: Approximate
) -> None:
    written = records(300)
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    store.upsert(written)
    store.search(QUERY, limit=1)
    store.delete([r.id for r in written[:40]])
    assert_same(store.search(QUERY, limit=50), expected(written[40:], QUERY, 50))
    assert store.capabilities.index.split(": ")[1].startswith("300 vectors")
    store.compact()
    assert store.capabilities.index.split(": ")[1].startswith("260 vectors")
    assert_same(store.search(QUERY, limit=50), expected(written[40:], QUERY, 50))
    store.close()
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    assert store.capabilities.index.split(": ")[1].startswith("260 vectors")
    assert_same(store.search(QUERY, limit=50), expected(written[40:], QUERY, 50))
    store.close()


@pytest.mark.parametrize("layout", ["flat", *APPROXIMATE])
def test_an_opened_index_is_mapped_until_it_changes(
    tmp_path: Path, layout: Approximate, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = records(1000)
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    store.upsert(written)
    store.close()
    flags: list[int] = []
    read: Any = faiss.read_index

    def watched(path: str, flag: int = 0) -> Any:
        flags.append(flag)
        return read(path, flag)

    monkeypatch.setattr(faiss, "read_index", watched)
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    assert_same(store.search(QUERY, limit=20), expected(written, QUERY, 20))
    assert len(flags) == 1
    assert flags[0] != 0
    more = records(30, start=1000, seed=5)
    store.upsert(more)
    store.delete([written[0].id])
    now = [*written[1:], *more]
    assert_same(store.search(QUERY, limit=20), expected(now, QUERY, 20))
    assert flags[1:] == [0]
    store.close()
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    assert_same(store.search(QUERY, limit=40), expected(now, QUERY, 40))
    store.close()


def test_an_untouched_file_is_not_read_to_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    written = records(100)
    store.upsert(written)
    store.close()
    checked: list[Path] = []
    checksum = index_file._checksum

    def watched(path: Path) -> int:
        checked.append(path)
        return checksum(path)

    monkeypatch.setattr(index_file, "_checksum", watched)
    FaissStore(tmp_path, dim=DIM, index="hnsw").close()
    assert checked == []
    # Copied without its times, it is read once more; its content is right, so nothing is built.
    (saved,) = tmp_path.glob("index-*.faiss")
    os.utime(saved, ns=(1, 1))
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    assert checked == [saved]
    assert_same(store.search(QUERY, limit=20), expected(written, QUERY, 20))
    store.close()
    assert list(tmp_path.glob("index-*.faiss")) == [saved]


def test_a_newer_file_of_another_process_saves_building(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FaissStore(tmp_path, dim=DIM, index="hnsw")
    first.upsert(records(100))
    first.close()
    reader = FaissStore(tmp_path, dim=DIM, index="hnsw")
    writer = FaissStore(tmp_path, dim=DIM, index="hnsw")
    writer.upsert(records(50, start=100, seed=2))
    writer.close()
    added: list[int] = []
    monkeypatch.setattr(
        "secondglance.retrieve.vector_index.FaissIndex.add",
        lambda self, vectors: added.append(len(vectors)),
    )
    assert len(reader.search(QUERY, limit=200)) == 150
    assert added == []
    reader.close()


def test_quantised_indexes_wait_for_something_to_learn_from(tmp_path: Path) -> None:
    for layout in ("sq8", "ivfpq"):
        store = FaissStore(tmp_path / layout, dim=DIM, index=layout)
        assert store.search(QUERY, limit=3) == []
        written = records(60)
        store.upsert(written)
        assert_same(store.search(QUERY, limit=9), expected(written, QUERY, 9))
        assert not store.capabilities.exact
        store.close()


def test_lists_are_made_again_once_outgrown(tmp_path: Path) -> None:
    store = FaissStore(tmp_path, dim=DIM, index="ivfpq")
    written = records(1000)
    store.upsert(written)
    store.search(QUERY, limit=1)
    assert store.capabilities.index.startswith("IVF-PQ (25 lists): 1,000 vectors")
    more = records(3000, start=1000, seed=2)
    store.upsert(more)
    store.search(QUERY, limit=1)
    assert store._trained_for == 1000
    last = records(1, start=4000, seed=3)
    store.upsert(last)
    assert_same(store.search(QUERY, limit=30), expected([*written, *more, *last], QUERY, 30))
    assert store._trained_for == 4001
    store.close()


def test_auto_quantises_where_memory_is_short(tmp_path: Path) -> None:
    def open_store() -> FaissStore:
        return FaissStore(
            tmp_path, dim=DIM, hnsw_threshold=50, hnsw_m=8, memory_bytes=2 * 200 * 190
        )

    store = open_store()
    written = records(300)
    store.upsert(written[:150])
    store.search(QUERY, limit=1)
    assert store.capabilities.index.startswith("HNSW (M=8): 150 vectors")
    store.upsert(written)
    assert_same(store.search(QUERY, limit=30), expected(written, QUERY, 30))
    assert store.capabilities.index.startswith("HNSW over 8-bit vectors (M=8): 300 vectors")
    store.close()
    store = open_store()
    assert store.capabilities.index.startswith("HNSW over 8-bit")
    store.close()


@pytest.mark.parametrize("layout", ["flat", *APPROXIMATE])
@pytest.mark.parametrize("most", [0, 2000])
def test_selective_filters_are_exact(
    tmp_path: Path, layout: Approximate, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_store, "_READ_SUBSET", most)
    written = records(1500)
    store = FaissStore(tmp_path, dim=DIM, index=layout)
    store.upsert(written)
    store.delete([r.id for r in written[::50]])
    kept = [r for n, r in enumerate(written) if n % 50]
    condition = parse_filter('camera == "Canon EOS R5" and rating >= 4')
    wanted = expected(kept, QUERY, 20, condition)
    assert len(wanted) == 20
    assert_same(store.search(QUERY, limit=20, filter=condition), wanted)
    store.close()


def test_gpu_on_a_device_of_torch(tmp_path: Path) -> None:
    store = FaissStore(tmp_path, dim=DIM, index="gpu", device="cpu")
    written = records(400)
    store.upsert(written)
    assert_same(store.search(QUERY, limit=60), expected(written, QUERY, 60))
    store.delete([r.id for r in written[:9]])
    condition = parse_filter("rating >= 3")
    assert_same(
        store.search(QUERY, limit=30, filter=condition),
        expected(written[9:], QUERY, 30, condition),
    )
    assert store.capabilities.exact
    assert store.capabilities.index.startswith("exact on the GPU: 391 vectors")
    store.close()
    assert list(tmp_path.glob("index-*")) == []
    store = FaissStore(tmp_path, dim=DIM, index="gpu", device="cpu")
    assert_same(store.search(QUERY, limit=60), expected(written[9:], QUERY, 60))
    store.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_without_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="'cuda' cannot be used"):
        FaissStore(tmp_path, dim=DIM, index="gpu")


def test_bad_memory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="memory_bytes is 0"):
        FaissStore(tmp_path, dim=DIM, memory_bytes=0)


def test_threads_search_while_one_writes(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    written = records(300)
    FaissStore(tmp_path, dim=DIM, index="sq8").close()
    store = FaissStore(tmp_path, dim=DIM, index="sq8")
    store.upsert(written[:100])

    def work(number: int) -> str:
        if number % 10 == 0:
            store.upsert(written[100 + number : 110 + number])
        return store.search(written[number % 100].vector, limit=1)[0].id

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(200)))
    assert found == [written[n % 100].id for n in range(200)]
    assert np.isclose(store.count(), 300)
    store.close()
