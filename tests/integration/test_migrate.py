"""Moving a library to another store: nothing lost, nothing embedded, nothing switched too early."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError, LibraryBusyError, LibraryError, StoreError
from secondglance.library import Library
from secondglance.pipelines import copying
from secondglance.pipelines.locking import writing
from secondglance.pipelines.migrate import MARKER, target_settings
from secondglance.pipelines.stamp import read_stamp
from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.types import Record
from tests.contract.stores import records, unit_vectors
from tests.libraries import Open, counts, stored_ids, verify

pytestmark = pytest.mark.usefixtures("one_embedder")


def found(library: Library) -> list[tuple[str, float]]:
    hits = library.search("a dog on a beach", k=8, rerank=False).hits
    return [(hit.id, round(hit.recall_score, 3)) for hit in hits]


def all_records(library: Library) -> dict[str, Record]:
    store = library._parts.store()
    return {record.id: record for record in store.get(sorted(store.ids()))}


@pytest.mark.parametrize(
    ("first", "second"), [("exact", "faiss"), ("faiss", "milvus"), ("milvus", "exact")]
)
def test_every_pair_of_stores(media: Path, open_library: Open, first: str, second: str) -> None:
    library = open_library(store=first)
    library.index([media])
    before, answers = all_records(library), found(library)
    done = library.migrate(second)
    assert (done.records, done.written, done.recall) == (len(before), len(before), 1.0)
    assert done.old == str(library.folder / {"milvus": "vectors.db"}.get(first, first))
    after = all_records(library)
    assert after.keys() == before.keys()
    for id_, record in before.items():
        assert copying.same(record, after[id_])
    assert found(library) == answers
    library.close()
    stamp = read_stamp(library.folder)
    assert stamp is not None
    assert stamp["store"]["backend"] == second
    assert not (library.folder / MARKER).exists()
    with Library.open(library.folder, settings={"ingest": {"alike": 1.0}}) as again:
        assert again.status()["store"] == second
        assert found(again) == answers
        assert counts(again.index([media])) == {"files": 8, "unchanged": 8}
        verify(again)


def test_the_old_store_goes_if_told_to(media: Path, open_library: Open) -> None:
    library = open_library(store="faiss")
    library.index([media])
    answers = found(library)
    done = library.migrate("exact", remove_old=True)
    assert done.old is None
    assert not (library.folder / "faiss").exists()
    assert found(library) == answers


def test_another_process_that_has_the_library_open_follows(media: Path, open_library: Open) -> None:
    library = open_library(store="faiss")
    library.index([media])
    serving = open_library(store="faiss")
    answers = found(serving)
    library.migrate("exact", remove_old=True)
    assert found(serving) == answers
    assert serving.status()["store"] == "exact"
    serving.close()


def test_search_works_throughout(media: Path, open_library: Open) -> None:
    library = open_library(store="exact")
    library.index([media])
    answers, stop = found(library), threading.Event()
    seen: list[object] = []

    def search() -> None:
        while not stop.is_set():
            try:
                seen.append(found(library) == answers)
            except Exception as error:
                seen.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for to in ("faiss", "milvus"):
            library.migrate(to)
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {True}


def test_a_second_library_leaves_the_first_as_it_is(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    library = open_library(store="exact")
    library.index([media])
    answers = found(library)
    done = library.migrate("faiss", new_library=tmp_path / "second")
    assert done.library == str(tmp_path / "second")
    assert library.status()["store"] == "exact"
    shutil.rmtree(library.folder)
    with Library.open(tmp_path / "second", settings={"ingest": {"alike": 1.0}}) as second:
        assert second.status()["store"] == "faiss"
        assert found(second) == answers
        [hit] = second.search("notes", k=1, rerank=False, filter='name == "notes.txt"').hits
        assert hit.lexical_score is not None
        assert counts(second.index([media])) == {"files": 8, "unchanged": 8}
        verify(second)


KILLED = """
import os, signal, sys
from secondglance.library import Library
from secondglance.pipelines import copying
copying.AT_ONCE = 2
def told(stage, done, total):
    if stage == sys.argv[3] and done >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
with Library.open(sys.argv[1]) as library:
    library.migrate(sys.argv[2], on_progress=told)
"""


@pytest.mark.parametrize(("to", "stage", "at"), [("faiss", "copy", 4), ("milvus", "compare", 0)])
def test_a_killed_run_is_gone_on_with(
    media: Path, open_library: Open, to: str, stage: str, at: int
) -> None:
    library = open_library(store="exact")
    library.index([media])
    answers = found(library)
    library.close()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(library.folder), to, stage, str(at)])
    assert killed.returncode == -9
    # The old store is in use, and may change before the copy goes on.
    with Library.open(library.folder, settings={"ingest": {"alike": 1.0}}) as left:
        assert left.status()["store"] == "exact"
        assert found(left) == answers
        total = left.status()["vectors"]
        (media / "photos" / "picture-0000.jpg").unlink()
        (media / "photos" / "picture-0001.jpg").rename(media / "photos" / "renamed.jpg")
        left.index([media])
        written = left.migrate(to).written
        if stage == "compare":
            assert written == 1  # the payload that names the new place
        else:
            assert 0 < written < total
        assert left.status()["vectors"] == total - 1
        assert left.status()["store"] == to
        verify(left)


def test_a_target_with_other_data_is_refused(media: Path, open_library: Open) -> None:
    library = open_library(store="exact")
    library.index([media])
    dim = library._parts.store().dim
    other = FaissStore(library.folder / "faiss", dim=dim)
    other.upsert([Record(id="other", vector=unit_vectors(1, dim)[0], payload={})])
    other.close()
    with pytest.raises(StoreError, match=r"holds 1 records already.*--overwrite"):
        library.migrate("faiss")
    assert not (library.folder / MARKER).exists()
    assert library.status()["store"] == "exact"
    assert library.migrate("faiss", overwrite=True).records == len(stored_ids(library))
    assert "other" not in set(library._parts.store().ids())


def test_a_target_of_another_dimension_is_refused(media: Path, open_library: Open) -> None:
    library = open_library(store="exact")
    library.index([media])
    FaissStore(library.folder / "faiss", dim=7).close()
    with pytest.raises(StoreError, match="the target holds other data"):
        library.migrate("faiss")
    assert library.status()["store"] == "exact"


def test_half_a_copy_of_another_library_is_refused(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    library = open_library(store="exact")
    library.index([media / "notes.txt"])
    half = tmp_path / "half"
    half.mkdir()
    (half / MARKER).write_text(json.dumps({"source": "/another/library", "store": {}}))
    with pytest.raises(LibraryError, match="half a copy of the library /another/library"):
        library.migrate("faiss", new_library=half)
    (half / MARKER).write_text("{")
    with pytest.raises(LibraryError, match=r"cannot use .*migration\.json"):
        library.migrate("faiss", new_library=half)
    (half / MARKER).rename(half / "photo.jpg")
    with pytest.raises(LibraryError, match="holds other files"):
        library.migrate("faiss", new_library=half)
    with pytest.raises(LibraryError, match="is the library itself"):
        library.migrate("faiss", new_library=library.folder)


@pytest.mark.parametrize(
    ("to", "options", "expected"),
    [
        ("oracle", {}, "'oracle' is no store"),
        ("exact", {}, "uses that store already"),
        ("faiss", {"token": "secret"}, "a token goes with the address"),
        ("faiss", {"collection": "mine"}, "goes with the address of a Milvus server"),
        ("faiss", {"sample": 0}, "sample is 0"),
        ("faiss", {"new_library": "x", "remove_old": True}, "leave out --remove-old"),
    ],
)
def test_mistakes(
    media: Path, open_library: Open, to: str, options: dict[str, Any], expected: str
) -> None:
    library = open_library(store="exact")
    library.index([media / "notes.txt"])
    with pytest.raises(InputError, match=expected):
        library.migrate(to, **options)
    assert sorted(p.name for p in library.folder.glob("*")).count("faiss") == 0


def test_an_empty_library_and_a_busy_one(media: Path, open_library: Open) -> None:
    library = open_library(store="exact")
    with pytest.raises(LibraryError, match="holds no vectors yet"):
        library.migrate("faiss")
    library.index([media / "notes.txt"])
    with writing(library.folder, wait=False), pytest.raises(LibraryBusyError):
        library.migrate("faiss")


def test_to_a_server_and_back(media: Path, open_library: Open, tmp_path: Path) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from pymilvus import MilvusClient

    server, database, port = start_server_in_thread(str(tmp_path / "served"))
    try:
        library = open_library(store="exact")
        library.index([media])
        answers, uri = found(library), f"http://127.0.0.1:{port}"
        client = MilvusClient(uri)
        done = library.migrate(uri, token="user:word", remove_old=True)
        assert "SECONDGLANCE_STORE__TOKEN" in done.warnings[0]
        assert found(library) == answers
        [name] = client.list_collections()
        assert name.startswith("secondglance_")
        stamp = (library.folder / "library.json").read_text()
        assert json.loads(stamp)["store"]["collection"] == name
        assert "user:word" not in stamp
        other = open_library("other", store="exact")
        other.index([media / "notes.txt"])
        with pytest.raises(StoreError, match="the target holds 11 records already"):
            other.migrate(uri, collection=name)
        library.migrate("faiss", remove_old=True)
        assert client.list_collections() == []
        assert found(library) == answers
        client.close()
    finally:
        open_library.close()
        server.stop(grace=1).wait()
        database.close()


def test_a_server_that_is_down_changes_nothing(media: Path, open_library: Open) -> None:
    library = open_library(store="exact")
    library.index([media / "notes.txt"])
    library._parts.settings = library.settings.model_copy(
        update={"store": library.settings.store.model_copy(update={"timeout_s": 1.0})}
    )
    with pytest.raises(StoreError, match="does not answer"):
        library.migrate("http://127.0.0.1:9", token="user:secret")
    assert library.status()["store"] == "exact"
    assert "secret" not in "".join(p.read_text() for p in library.folder.glob("*.json"))


class Forgetful(ExactStore):
    """Finds only the worse half of what it should."""

    def search(self, vector: Any, *, limit: int, filter: Any = None) -> Any:
        return super().search(vector, limit=2 * limit, filter=filter)[limit:]


def stores(folder: Path, kind: type[ExactStore] = ExactStore) -> tuple[ExactStore, ExactStore]:
    first, second = ExactStore(folder / "a", dim=24), kind(folder / "b", dim=24)
    first.upsert(records(100))
    return first, second


def test_a_copy_that_lacks_something_is_not_accepted(tmp_path: Path) -> None:
    source, target = stores(tmp_path)
    copying.copy(source, target, resumed=False)
    assert copying.compare(source, target).records == 100
    target.delete(["r00042"])
    with pytest.raises(StoreError, match=r"1 are missing, 0 are foreign \(r00042\)"):
        copying.compare(source, target)
    target.upsert([Record(id="strange", vector=unit_vectors(1)[0], payload={})])
    with pytest.raises(StoreError, match=r"1 are missing, 1 are foreign \(r00042, strange\)"):
        copying.compare(source, target)
    assert copying.copy(source, target, resumed=True) == 1
    changed = records(100, seed=1)
    target.upsert([changed[7]])
    with pytest.raises(StoreError, match="differs in vector or payload of the record r00007"):
        copying.compare(source, target, sample=100)
    assert copying.copy(source, target, resumed=True) == 1
    copying.compare(source, target, sample=100)


def test_a_copy_that_finds_too_little_is_not_accepted(tmp_path: Path) -> None:
    source, target = stores(tmp_path, Forgetful)
    copying.copy(source, target, resumed=False)
    with pytest.raises(StoreError, match=r"finds 0\.0\d\d of the 10 nearest of 64 sampled"):
        copying.compare(source, target)


def test_ties_are_no_difference(tmp_path: Path) -> None:
    source, target = stores(tmp_path)
    same = [Record(id=f"same{i:03}", vector=unit_vectors(1)[0], payload={}) for i in range(60)]
    source.upsert(same)
    copying.copy(source, target, resumed=False)
    assert copying.compare(source, target, sample=160).recall == 1.0


def test_settings_of_a_target_keep_what_is_not_named(open_library: Open) -> None:
    current = open_library(store="faiss").settings.store
    server = target_settings("https://user:word@milvus:19530", current, token="a:b")
    assert (server.backend, server.hnsw_threshold) == ("milvus", current.hnsw_threshold)
    assert server.token is not None
    assert target_settings("exact", server).uri is None
    # A secret of one server is not sent to another.
    assert target_settings("https://elsewhere:19530", server).token is None
