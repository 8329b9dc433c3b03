"""Libraries on a real Milvus server: it restarts, the network is cut, and jobs go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from secondglance.errors import StoreError
from secondglance.evaluation.types import EvaluationQuery
from secondglance.library import Library
from secondglance.retrieve.milvus_store import MilvusStore
from secondglance.types import Query
from tests.contract.stores import DIM, assert_same, expected, records, unit_vectors
from tests.libraries import Open, counts, verify
from tests.media import write_pictures
from tests.milvus_server import TOKEN, URI, Cable, Server, drop

Settings = dict[str, Any]


@pytest.fixture
def on_server(milvus_uri: str) -> Iterator[Settings]:
    """Store settings with a collection of its own, which is removed at the end."""
    name = f"test_{uuid4().hex}"
    settings = {"backend": "milvus", "uri": milvus_uri, "collection": name, "timeout_s": 30}
    yield settings | ({"token": TOKEN} if TOKEN else {})
    drop(milvus_uri, name)


def open_on(open_library: Open, settings: Settings) -> Library:
    open_library.folder = open_library.folder.parent / "library"
    sections = {**open_library.settings, "store": settings, "ingest": {"alike": 1.0}}
    library = Library.open(open_library.folder, preset="starter", settings=sections)
    open_library._opened.append(library)
    return library


def test_index_search_and_evaluate(media: Path, on_server: Settings, open_library: Open) -> None:
    library = open_on(open_library, on_server)
    assert counts(library.index([media])) == {"files": 8, "indexed": 8}
    verify(library)
    local = open_library("local")
    local.index([media])
    for text in ("a dog on a beach", "a harbour"):
        found, wanted = (
            each.search(text, k=5, recall=11, rerank=False).hits for each in (library, local)
        )
        assert [hit.id for hit in found] == [hit.id for hit in wanted]
        assert [hit.recall_score for hit in found] == pytest.approx(
            [hit.recall_score for hit in wanted], abs=1e-4
        )
    assert library.status()["index"].startswith("Milvus (HNSW, M=32")
    (media / "photos" / "picture-0000.jpg").unlink()
    assert counts(library.index([media])) == {"files": 7, "unchanged": 7, "removed": 1}
    verify(library)
    best = library.search("a dog on a beach", k=1, rerank=False).hits[0].id
    queries = [EvaluationQuery(id="q", query=Query(text="a dog on a beach"), kind="text")]
    there, here = (
        each.evaluate(queries, {"q": {best: 1}}, systems=["clip"], curves=False)
        for each in (library, local)
    )
    assert there.values == here.values


def verify_open(library: Library) -> None:
    """Connects; a job whose server is away from the start ends at once."""
    assert library._parts.store().count() == 0


def restart_during(library: Library, media: Path, server: Server) -> Any:
    restarted = threading.Event()

    def again() -> None:
        time.sleep(1)
        server.start(wait=False)

    def during(progress: Any) -> None:
        if progress.stage == "embed" and progress.done > 40 and not restarted.is_set():
            restarted.set()
            server.kill()
            threading.Thread(target=again).start()

    report = library.index([media], on_progress=during)
    assert restarted.is_set()
    return report


def test_a_server_that_restarts_in_the_middle_of_a_job(
    tmp_path: Path, on_server: Settings, open_library: Open, request: pytest.FixtureRequest
) -> None:
    if URI:
        pytest.skip("SECONDGLANCE_TEST_MILVUS_URI names a server that is not ours to kill")
    server: Server = request.getfixturevalue("milvus_server")
    media = tmp_path / "many"
    write_pictures(media, 300)
    library = open_on(open_library, on_server)
    verify_open(library)
    report = restart_during(library, media, server)
    assert counts(report) == {"files": 300, "indexed": 300}
    verify(library)
    assert counts(library.index([media])) == {"files": 300, "unchanged": 300}


def test_a_server_that_stays_away_ends_the_job_and_the_same_command_goes_on(
    tmp_path: Path, on_server: Settings, open_library: Open, request: pytest.FixtureRequest
) -> None:
    if URI:
        pytest.skip("SECONDGLANCE_TEST_MILVUS_URI names a server that is not ours to kill")
    server: Server = request.getfixturevalue("milvus_server")
    media = tmp_path / "many"
    write_pictures(media, 200)
    library = open_on(open_library, {**on_server, "retry_s": 0.5, "timeout_s": 1})
    verify_open(library)
    killed = False

    def during(progress: Any) -> None:
        nonlocal killed
        if progress.stage == "embed" and progress.done > 40 and not killed:
            killed = True
            server.kill()

    try:
        with pytest.raises(StoreError, match=r"does not answer.*run the same command again"):
            library.index([media], on_progress=during)
    finally:
        server.start()
    open_library._opened.clear()
    library = open_on(open_library, on_server)
    report = library.index([media])
    assert report.indexed + report.unchanged == 200
    verify(library)


@pytest.fixture
def cable(milvus_server: Server) -> Iterator[Cable]:
    cable = Cable(milvus_server.port)
    yield cable
    cable.close()


def test_the_network_is_cut_in_the_middle_of_a_batch(
    cable: Cable, milvus_uri: str, milvus_server: Server
) -> None:
    name = f"test_{uuid4().hex}"
    uri = f"http://127.0.0.1:{cable.port}"
    store = MilvusStore(uri, dim=DIM, collection=name, timeout_s=5, retry_s=60)
    written = records(2500)
    cable.cut_after = 400_000
    store.upsert(written)
    assert cable.cuts == 1
    assert store.count() == 2500
    assert set(store.ids()) == {record.id for record in written}
    query = unit_vectors(1, seed=3)[0]
    assert_same(store.search(query, limit=20), expected(written, query, 20))

    impatient = MilvusStore(uri, dim=DIM, collection=name, timeout_s=0.5, retry_s=0)
    cable.cut_after = 50_000
    changed = records(1000, seed=5)
    with pytest.raises(StoreError, match="does not answer"):
        impatient.upsert(changed)
    assert cable.cuts == 2
    time.sleep(1.2)
    store.upsert(changed)
    assert store.count() == 2500
    store.close()
    drop(milvus_server.uri, name)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_sq8"])
def test_every_index_finds_the_same(milvus_collections: Any, milvus_uri: str, kind: Any) -> None:
    name = milvus_collections.take()
    options: Any = {"dim": DIM, "collection": name, "token": TOKEN, "timeout_s": 30}
    store = MilvusStore(milvus_uri, **options)
    written = records(400)
    store.upsert(written)
    store.close()
    store = MilvusStore(milvus_uri, index=kind, **options)
    assert f"{kind.upper()}" in store.capabilities.index
    assert store.count() == 400
    query = unit_vectors(1, seed=3)[0]
    found = store.search(query, limit=20)
    assert_same(found, expected(written, query, 20))
    if kind != "hnsw":
        assert f"store.server_index is {kind}" in store.capabilities.index
    store.close()
    left = MilvusStore(milvus_uri, **options)
    assert kind.upper() in left.capabilities.index
    left.close()


@pytest.mark.parametrize("consistency", ["strong", "bounded", "session", "eventually"])
def test_consistency(milvus_collections: Any, milvus_uri: str, consistency: Any) -> None:
    name = milvus_collections.take()
    store = MilvusStore(
        milvus_uri, dim=DIM, collection=name, token=TOKEN, timeout_s=30, consistency=consistency
    )
    written = records(50)
    query = unit_vectors(1, seed=3)[0]
    store.upsert(written)
    # Whatever searches may miss, the catalog is compared with what is there.
    assert store.count() == 50
    if consistency in ("strong", "session"):
        assert_same(store.search(query, limit=9), expected(written, query, 9))
    eventually(lambda: len(store.search(query, limit=50)) == 50)
    assert_same(store.search(query, limit=9), expected(written, query, 9))
    store.close()


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_vectors_survive_as_they_were(milvus_collections: Any, milvus_uri: str) -> None:
    name = milvus_collections.take()
    store = MilvusStore(milvus_uri, dim=DIM, collection=name, token=TOKEN, index="ivf_sq8")
    written = records(30)
    store.upsert(written)
    found = store.get([record.id for record in written])
    np.testing.assert_allclose(
        [record.vector for record in found], [record.vector for record in written], atol=1e-6
    )
    assert not store.capabilities.full_text or URI
    store.close()
