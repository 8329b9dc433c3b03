"""One set of assertions over every store; `ExactStore` and float64 cosines are the references."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from secondglance.errors import DimensionError, InputError
from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.filters import Filter, and_, kind_is, parse_filter
from secondglance.retrieve.store import SCORE_TOLERANCE, Store
from secondglance.types import Record
from tests.contract.stores import DIM, Opener, assert_same, expected, records, unit_vectors

if TYPE_CHECKING:
    from secondglance.types import Vector


def test_search_agrees_with_the_oracle(store: Store, tmp_path: Path) -> None:
    written = records(300)
    store.upsert(written)
    oracle = ExactStore(tmp_path / "oracle", dim=DIM)
    oracle.upsert(written)
    payloads = {r.id: r.payload for r in written}
    for query in unit_vectors(5, seed=9) * 3.5:
        for limit in (1, 10, 300, 1000):
            found = store.search(query, limit=limit)
            wanted = expected(written, query, limit)
            assert_same(found, wanted)
            assert_same(oracle.search(query, limit=limit), wanted)
            assert all(m.payload == payloads[m.id] for m in found)
    oracle.close()


def test_empty_store(store: Store) -> None:
    assert store.search(unit_vectors(1)[0], limit=5) == []
    assert store.search(unit_vectors(1)[0], limit=5, filter=kind_is("image")) == []
    assert store.count() == 0
    assert store.get(["nothing"]) == []
    store.delete(["nothing"])
    store.upsert([])
    store.delete([])
    assert store.count(filter=kind_is("image")) == 0


def test_ids_are_all_that_is_stored(store: Store) -> None:
    assert list(store.ids()) == []
    written = records(2500)
    store.upsert(written)
    store.upsert(written[:700])
    store.delete([record.id for record in written[:20]])
    found = list(store.ids())
    assert len(found) == 2480
    assert set(found) == {record.id for record in written[20:]}


def test_upsert_twice_changes_nothing(store: Store) -> None:
    written = records(50)
    store.upsert(written)
    first = store.search(written[3].vector, limit=50)
    store.upsert(written)
    assert store.count() == 50
    assert store.search(written[3].vector, limit=50) == first


def test_upsert_replaces_vector_and_payload(store: Store) -> None:
    written = records(20)
    store.upsert(written)
    assert store.search(written[0].vector, limit=1)[0].id == "r00000"
    moved = replace(written[1], payload={"path": "elsewhere.png"})
    turned = Record(id="r00000", vector=-written[0].vector, payload={"kind": "text"})
    store.upsert([moved, turned])
    assert store.count() == 20
    now = [turned, moved, *written[2:]]
    assert_same(store.search(written[0].vector, limit=20), expected(now, written[0].vector, 20))
    assert [r.payload for r in store.get(["r00001", "r00000"])] == [moved.payload, turned.payload]
    assert store.count(filter=parse_filter('path == "elsewhere.png"')) == 1
    assert store.count(filter=parse_filter('path == "folder1/img_1.jpg"')) == 0


def test_last_of_duplicate_ids_wins(store: Store) -> None:
    first, last = records(2)
    store.upsert([first, replace(last, id=first.id)])
    (kept,) = store.get([first.id])
    assert store.count() == 1
    assert kept.payload == last.payload
    assert kept.vector == pytest.approx(last.vector, abs=1e-6)


def test_delete(store: Store) -> None:
    written = records(40)
    store.upsert(written)
    store.delete([r.id for r in written[::2]] + ["unknown", 'odd " id', "\udcff"])
    assert store.count() == 20
    query = unit_vectors(1, seed=4)[0]
    assert_same(store.search(query, limit=40), expected(written[1::2], query, 40))
    assert store.get([written[0].id]) == []
    store.upsert([written[0]])
    assert store.search(written[0].vector, limit=1)[0].id == written[0].id
    store.delete([r.id for r in written])
    assert store.count() == 0
    assert store.search(query, limit=5) == []


def test_get_keeps_order_and_returns_vectors(store: Store) -> None:
    written = records(10)
    store.upsert(written)
    wanted = [written[7], written[2], written[9]]
    found = store.get(["r00007", "missing", "r00002", "r00009"])
    assert [r.id for r in found] == [r.id for r in wanted]
    for got, put in zip(found, wanted, strict=True):
        assert got.vector.dtype == np.float32
        assert got.vector.shape == (DIM,)
        assert got.vector == pytest.approx(put.vector, abs=1e-6)
        assert got.payload == put.payload
        assert {k: type(v) for k, v in got.payload.items()} == {
            k: type(v) for k, v in put.payload.items()
        }


def test_ties_go_by_id(store: Store) -> None:
    vector = unit_vectors(1)[0]
    names = [f"t{n:03d}" for n in range(60)]
    shuffled = [names[n] for n in np.random.default_rng(1).permutation(60)]
    store.upsert([Record(id=name, vector=vector, payload={}) for name in shuffled])
    assert [m.id for m in store.search(vector, limit=60)] == names
    if store.capabilities.exact:
        assert [m.id for m in store.search(vector, limit=7)] == names[:7]


def test_unnormalised_vectors_are_compared_by_cosine(store: Store) -> None:
    vectors = unit_vectors(3)
    scales = (1e-6, 1.0, 1e6)
    store.upsert(
        [
            Record(id=f"s{i}", vector=vectors[i] * np.float32(scale), payload={})
            for i, scale in enumerate(scales)
        ]
    )
    for i, vector in enumerate(vectors):
        best = store.search(vector * np.float32(1e-20), limit=1)[0]
        assert best.id == f"s{i}"
        assert best.score == pytest.approx(1, abs=SCORE_TOLERANCE)


@pytest.mark.parametrize("bad", ["zero", "nan", "inf"])
def test_vectors_without_direction_are_refused(store: Store, bad: str) -> None:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[0] = {"zero": 0, "nan": np.nan, "inf": np.inf}[bad]
    with pytest.raises(InputError, match="direction"):
        store.search(vector, limit=1)
    with pytest.raises(InputError, match="'bad-one'"):
        store.upsert([*records(3), Record(id="bad-one", vector=vector, payload={})])
    assert store.count() == 0


def test_wrong_shapes_and_arguments_are_refused(store: Store) -> None:
    short = np.ones(DIM - 1, dtype=np.float32)
    with pytest.raises(DimensionError, match=f"{DIM}"):
        store.search(short, limit=1)
    with pytest.raises(DimensionError):
        store.search(np.ones((1, DIM), dtype=np.float32), limit=1)
    with pytest.raises(DimensionError):
        store.upsert([Record(id="x", vector=short, payload={})])
    with pytest.raises(InputError, match="limit"):
        store.search(np.ones(DIM, dtype=np.float32), limit=0)
    bad: Any
    for bad in ({"width": None}, {"width": "7"}, {"taken": float("nan")}, {"kind": 3}, {"x": [1]}):
        with pytest.raises(InputError, match="'pp'"):
            store.upsert([Record(id="pp", vector=unit_vectors(1)[0], payload=bad)])
    with pytest.raises(InputError, match="record id"):
        store.upsert([Record(id="", vector=unit_vectors(1)[0], payload={})])


def test_ten_thousand_vectors(opener: Opener) -> None:
    count, dim, limit = 10_000, DIM, 100
    vectors = unit_vectors(count, dim, seed=3)
    made = opener(dim)
    for start in range(0, count, 2_000):
        made.upsert(
            [
                Record(
                    id=f"v{n:05d}",
                    vector=vectors[n],
                    payload={"kind": "video" if n % 10 == 0 else "image", "size": n},
                )
                for n in range(start, start + 2_000)
            ]
        )
    made.flush()
    assert made.count() == count
    wanted = 0.999 if opener.exact else 0.95
    # A server builds its index behind the write, and searches coarsely until it has.
    deadline = time.monotonic() + (180 if made.capabilities.remote else 0)
    while (found := _recall(made, vectors, limit)) < wanted and time.monotonic() < deadline:
        time.sleep(1)
    assert found >= wanted
    made.close()


def _recall(made: Store, vectors: Vector, limit: int) -> float:
    """Share of the true nearest that the store finds, with and without filters."""
    count, dim = vectors.shape
    payloads = [{"kind": "video" if n % 10 == 0 else "image", "size": n} for n in range(count)]
    filters: dict[Filter | None, npt.NDArray[np.bool_]]
    filters = {None: np.ones(count, dtype=np.bool_)}
    large = and_(kind_is("image"), parse_filter("size >= 5000"))
    assert large is not None
    for some in (kind_is("video"), large):
        filters[some] = np.array([some.matches(payload) for payload in payloads])
    found = wanted = 0
    for query in unit_vectors(10, dim, seed=4):
        for filter, keeps in filters.items():
            cosines = np.where(keeps, vectors.astype(np.float64) @ query.astype(np.float64), -9)
            best = np.argsort(-cosines, kind="stable")[:limit]
            matches = made.search(query, limit=limit, filter=filter)
            assert len(matches) == limit
            for match in matches:
                number = int(match.id[1:])
                assert keeps[number]
                assert match.score == pytest.approx(cosines[number], abs=SCORE_TOLERANCE)
            ids = {f"v{n:05d}" for n in best}
            found += len(ids & {m.id for m in matches})
            wanted += limit
    return found / wanted


def test_threads_may_share_a_store(store: Store) -> None:
    written = records(200)
    store.upsert(written)

    def look(number: int) -> str:
        record = written[number % 200]
        if number % 20 == 0:
            store.upsert([record])
        found = store.search(record.vector, limit=3, filter=kind_is(str(record.payload["kind"])))
        return found[0].id

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(look, range(300)))
    assert answers == [written[n % 200].id for n in range(300)]


def test_capabilities(opener: Opener) -> None:
    made = opener()
    seen = made.capabilities
    # Behind an address the store cannot know what index the server chose.
    assert seen.exact == (opener.exact and not opener.remote)
    assert seen.remote == opener.remote
    assert seen.concurrent_processes == (opener.name != "milvus-lite")
    made.close()
