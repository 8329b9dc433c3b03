"""What is left after a close, a kill, damage, and other processes."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import grpc
import numpy as np
import pytest

from secondglance.errors import DimensionError, InputError, StoreError
from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.retrieve.milvus_store import MilvusStore
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.types import Record
from tests.contract.stores import DIM, Opener, assert_same, expected, records, unit_vectors

if TYPE_CHECKING:
    from secondglance.types import Vector


def test_reopen_after_close(opener: Opener) -> None:
    written = records(80)
    first = opener()
    first.upsert(written)
    first.close()
    first.close()
    with pytest.raises(StoreError, match="closed"):
        first.count()
    second = opener()
    query = unit_vectors(1, seed=2)[0]
    assert second.count() == 80
    assert_same(second.search(query, limit=80), expected(written, query, 80))
    second.delete(["r00000"])
    second.close()
    third = opener()
    assert third.count() == 79
    assert_same(third.search(query, limit=80), expected(written[1:], query, 80))
    third.close()


def test_another_dimension_is_refused(opener: Opener) -> None:
    made = opener()
    made.upsert(records(2))
    assert made.dim == DIM
    made.close()
    with pytest.raises(DimensionError, match=f"{DIM}"):
        opener(DIM + 1)
    again = opener()
    assert again.count() == 2
    again.close()


_WRITER = """
import os, signal, sys, threading, time
sys.path[:0] = {path!r}
from pathlib import Path
from typing import TYPE_CHECKING, Any
from tests.contract.stores import Opener, records
store = Opener({name!r}, Path({folder!r}), {uri!r}, {collection!r})()
for batch in range(4):
    store.upsert(records(50, start=50 * batch, seed=batch))
    store.flush()
print("flushed", flush=True)
threading.Thread(
    target=lambda: (time.sleep(0.15), os.kill(os.getpid(), signal.SIGKILL)), daemon=True
).start()
number = 4
while True:
    store.upsert(records(400, start=400 * number, seed=number))
    number += 1
"""


def test_kill_keeps_what_was_flushed(opener: Opener) -> None:
    script = _WRITER.format(
        path=[str(Path(__file__).parents[2])],
        name=opener.name,
        folder=str(opener.folder),
        uri=opener.uri,
        collection=opener.collection,
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "flushed" in done.stdout
    made = opener()
    written = [r for batch in range(4) for r in records(50, start=50 * batch, seed=batch)]
    kept = made.get([r.id for r in written])
    assert [r.id for r in kept] == [r.id for r in written]
    for got, put in zip(kept, written, strict=True):
        assert got.vector == pytest.approx(put.vector, abs=1e-6)
        assert got.payload == put.payload
    assert made.search(written[111].vector, limit=1)[0].id == "r00111"
    made.upsert(records(3, start=90_000, seed=77))
    made.close()
    made = opener()
    assert len(made.get(["r90000", "r90001", "r90002"])) == 3
    made.close()


def test_a_second_store_sees_what_the_first_wrote(opener: Opener) -> None:
    writer, reader = opener(), opener()
    written = records(30)
    query = unit_vectors(1, seed=8)[0]
    for end in (10, 30):
        writer.upsert(written[:end])
        assert_same(reader.search(query, limit=50), expected(written[:end], query, 50))
    writer.delete([r.id for r in written[:5]])
    assert_same(reader.search(query, limit=50), expected(written[5:], query, 50))
    writer.close()
    reader.close()


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
@pytest.mark.parametrize("harm", ["deleted", "truncated", "flipped", "emptied", "stale"])
def test_faiss_index_is_derived(tmp_path: Path, kind: str, harm: str) -> None:
    def reopen() -> FaissStore:
        return FaissStore(tmp_path, dim=DIM, index="flat" if kind == "flat" else "hnsw")

    written = records(200)
    store = reopen()
    store.upsert(written)
    store.close()
    (saved,) = tmp_path.glob("index-*.faiss")
    content = saved.read_bytes()
    if harm == "deleted":
        saved.unlink()
    elif harm == "truncated":
        saved.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        middle = len(content) // 2
        saved.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif harm == "emptied":
        saved.write_bytes(b"")
    else:
        # Another kind of store on the same records leaves the index of FAISS behind.
        other = ExactStore(tmp_path, dim=DIM)
        other.delete([r.id for r in written[:20]])
        written = [*written[20:], *records(40, start=500, seed=6)]
        other.upsert(written[-40:])
        other.close()
    store = reopen()
    query = unit_vectors(1, seed=12)[0]
    assert_same(store.search(query, limit=300), expected(written, query, 300))
    store.close()
    assert len(list(tmp_path.glob("index-*"))) == 1


def test_faiss_saves_only_what_changed(tmp_path: Path) -> None:
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    written = records(500)
    store.upsert(written)
    store.close()
    (saved,) = tmp_path.glob("index-*.faiss")
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    store.upsert(written)
    store.search(written[0].vector, limit=5)
    store.flush()
    store.close()
    assert list(tmp_path.glob("index-*.faiss")) == [saved]
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    store.delete([written[0].id])
    store.close()
    (newer,) = tmp_path.glob("index-*.faiss")
    assert newer != saved
    # The dead node is known on the next start, and is no reason to save again.
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    assert written[0].id not in {m.id for m in store.search(written[0].vector, limit=500)}
    store.close()
    assert list(tmp_path.glob("index-*.faiss")) == [newer]


def test_faiss_catches_up_without_a_rebuild(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    store.upsert(records(300))
    store.close()
    other = ExactStore(tmp_path, dim=DIM)
    other.upsert(records(10, start=300, seed=3))
    other.close()
    added: list[int] = []
    add: Any = faiss.IndexHNSWFlat.add

    def counting(index: Any, vectors: Vector) -> None:
        added.append(len(vectors))
        add(index, vectors)

    monkeypatch.setattr(faiss.IndexHNSWFlat, "add", counting)
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    assert len(store.search(unit_vectors(1)[0], limit=400)) == 310
    assert added == [10]
    store.close()


def test_faiss_flush_saves_once_much_is_unsaved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secondglance.retrieve.faiss_store._UNSAVED_ROWS", 50)
    store = FaissStore(tmp_path, dim=DIM, index="hnsw")
    saved = []
    for batch in range(4):
        store.upsert(records(30, start=30 * batch, seed=batch))
        store.flush()
        saved.append(len(list(tmp_path.glob("index-*.faiss"))))
    assert saved == [0, 1, 1, 1]
    store.close()


def test_faiss_auto_goes_to_hnsw_and_back(tmp_path: Path) -> None:
    def open_store() -> FaissStore:
        return FaissStore(tmp_path, dim=DIM, hnsw_threshold=100, hnsw_m=16, ef_search=64)

    store = open_store()
    query = unit_vectors(1, seed=5)[0]
    written = records(100)
    store.upsert(written)
    store.search(query, limit=1)
    assert store.capabilities.index.startswith("flat:")
    assert store.capabilities.exact
    more = records(50, start=100, seed=1)
    store.upsert(more)
    assert_same(store.search(query, limit=20), expected([*written, *more], query, 20))
    assert store.capabilities.index.startswith("HNSW (M=16): 150 vectors, ")
    assert not store.capabilities.exact
    store.close()
    store = open_store()
    assert store.capabilities.index.startswith("HNSW")
    store.delete([r.id for r in written])
    assert_same(store.search(query, limit=99), expected(more, query, 99))
    store.delete([more[0].id])
    assert_same(store.search(query, limit=99), expected(more[1:], query, 99))
    assert store.capabilities.index.startswith("flat:")
    store.close()


@pytest.mark.parametrize(
    ("option", "value"),
    [("index", "ivf"), ("hnsw_m", 1), ("ef_search", 0), ("ef_construction", 0), ("dim", 0)],
)
def test_faiss_refuses_bad_options(tmp_path: Path, option: str, value: object) -> None:
    options: dict[str, object] = {"dim": DIM, option: value}
    with pytest.raises(InputError, match=option):
        FaissStore(tmp_path, **options)  # type: ignore[arg-type]


def test_damaged_database(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"no database at all" * 400)
    with pytest.raises(StoreError, match="damaged"):
        ExactStore(tmp_path, dim=DIM)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot make the store folder"):
        ExactStore(tmp_path / "file", dim=DIM)


def test_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secondglance.retrieve.local._BUSY_S", 0.1)
    store = ExactStore(tmp_path, dim=DIM)
    holder = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process is writing"):
        store.upsert(records(1))
    assert store.count() == 0
    holder.execute("ROLLBACK")
    holder.close()
    store.upsert(records(1))
    store.close()


def test_a_failed_upsert_leaves_nothing(tmp_path: Path) -> None:
    store = ExactStore(tmp_path, dim=DIM)
    with pytest.raises(InputError):
        store.upsert([*records(5), Record(id="x", vector=np.zeros(DIM, np.float32), payload={})])
    assert store.count() == 0
    store.close()


_HOLDER = """
import sys, time
sys.path[:0] = {path!r}
from secondglance.retrieve.milvus_store import MilvusStore
store = MilvusStore({folder!r}, dim=24)
print("open", flush=True)
time.sleep(60)
"""


def test_milvus_lite_in_two_processes(tmp_path: Path) -> None:
    folder = str(tmp_path / "vectors.db")
    script = _HOLDER.format(path=[str(Path(__file__).parents[2])], folder=folder)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="open in another process"):
            MilvusStore(folder, dim=DIM)
        process.kill()
    store = MilvusStore(folder, dim=DIM)
    assert store.count() == 0
    store.close()


def test_milvus_lite_is_shared_within_a_process(tmp_path: Path) -> None:
    first = MilvusStore(tmp_path / "vectors.db", dim=DIM)
    second = MilvusStore(tmp_path / "vectors.db", dim=DIM)
    first.upsert(records(3))
    first.close()
    assert second.count() == 3
    second.close()


def test_milvus_lite_paths(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"must end in \.db"):
        MilvusStore(tmp_path / "vectors", dim=DIM)
    (tmp_path / "old.db").write_bytes(b"SQLite format 3\x00")
    with pytest.raises(StoreError, match="is a file"):
        MilvusStore(tmp_path / "old.db", dim=DIM)
    store = MilvusStore(tmp_path / "damaged.db", dim=DIM)
    store.upsert(records(3))
    store.close()
    for manifest in (tmp_path / "damaged.db").glob("**/*.json*"):
        manifest.write_text("{")
    with pytest.raises(StoreError, match=r"damaged\.db"):
        MilvusStore(tmp_path / "damaged.db", dim=DIM)
    assert "Traceback" not in capfd.readouterr().err


def test_milvus_server_out_of_reach(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(StoreError, match="does not answer") as caught:
            MilvusStore(f"http://root:hunter2@127.0.0.1:{port}", dim=DIM, timeout_s=2)
    assert time.monotonic() - started < 10
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_milvus_server_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(StoreError, match="does not answer"):
            MilvusStore(address, dim=DIM, timeout_s=1)
    assert time.monotonic() - started < 10


def test_milvus_server_that_refuses_the_token() -> None:
    class Refuse(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Refuse()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with pytest.raises(StoreError, match="refuses the token") as caught:
        MilvusStore(f"http://127.0.0.1:{port}", dim=DIM, token="root:hunter2", timeout_s=5)
    assert "hunter2" not in str(caught.value)
    server.stop(grace=0).wait()


def test_milvus_limits(tmp_path: Path) -> None:
    store = MilvusStore(tmp_path / "vectors.db", dim=DIM)
    with pytest.raises(InputError, match=str(MAX_LIMIT)):
        store.search(unit_vectors(1)[0], limit=MAX_LIMIT + 1)
    assert store.search(unit_vectors(1)[0], limit=MAX_LIMIT) == []
    with pytest.raises(InputError, match="shorter passages"):
        store.upsert([Record(id="x", vector=unit_vectors(1)[0], payload={"text": "é" * 40_000})])
    text = "é" * 30_000
    store.upsert(
        [Record(id=f"x{n}", vector=unit_vectors(1)[0], payload={"text": text}) for n in range(300)]
    )
    assert store.count() == 300
    store.close()
    with pytest.raises(InputError, match="no Milvus name"):
        MilvusStore(tmp_path / "vectors.db", dim=DIM, collection="x; drop")
