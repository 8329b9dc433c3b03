"""Whole jobs on a real Milvus server: the command line, kills, moving, and bad targets."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import milvus_pb2

from secondglance.errors import StoreError
from secondglance.library import Library
from secondglance.pipelines.migrate import MARKER
from secondglance.retrieve.milvus_store import MilvusStore
from tests import commands
from tests.contract.stores import DIM, records
from tests.forking import Runner
from tests.integration.test_kills import change
from tests.integration.test_migrate import KILLED
from tests.libraries import Open, verify
from tests.media import write_pictures
from tests.milvus_server import TOKEN, drop

KILLS = 4


@pytest.fixture
def collection(milvus_uri: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    yield name
    drop(milvus_uri, name)


@pytest.fixture
def environment(milvus_uri: str, collection: str, tmp_path: Path) -> dict[str, str]:
    """Of a command whose library is on the server."""
    found = {"URI": milvus_uri, "COLLECTION": collection, "TIMEOUT_S": "30"}
    found |= {"TOKEN": TOKEN} if TOKEN else {}
    store = {f"SECONDGLANCE_STORE__{key}": value for key, value in found.items()}
    return {"SECONDGLANCE_CACHE": str(tmp_path), **store}


@pytest.mark.usefixtures("one_embedder")
def test_the_command_line(media: Path, environment: dict[str, str], tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> Any:
        done = commands.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if {"json", "--json"} & {*arguments} else done.stdout

    library = tmp_path / "library"
    report = run("index", media, "--library", library, "--preset", "starter", "--json")
    assert report["indexed"] == 8
    assert not (library / "vectors.db").exists()
    query: list[str | Path] = [
        "search",
        "a harbour",
        "--library",
        library,
        "--no-rerank",
        "--format",
        "json",
    ]
    hits = run(*query)["hits"]
    assert hits
    (tmp_path / "queries.jsonl").write_text(json.dumps({"id": "q", "text": "a harbour"}))
    (tmp_path / "qrels.tsv").write_text(f"q 0 {hits[0]['id']} 1\n")
    files: list[str | Path] = [
        "--queries",
        tmp_path / "queries.jsonl",
        "--qrels",
        tmp_path / "qrels.tsv",
    ]
    run("evaluate", "--library", library, *files, "--systems", "clip", "--out", tmp_path / "out")
    assert any((tmp_path / "out").iterdir())
    status = run("status", "--library", library, "--verify", "--json")
    assert status["verify"]["agrees"] is True
    assert status["store"] == "milvus"
    assert "HNSW" in status["index"]


def test_a_killed_job_leaves_every_file_once(
    tmp_path: Path, milvus_uri: str, collection: str
) -> None:
    chosen = random.Random("kills on a server")
    library, media = tmp_path / "library", tmp_path / "media"
    store = {"backend": "milvus", "uri": milvus_uri, "collection": collection, "timeout_s": 30}
    settings = {"store": store | ({"token": TOKEN} if TOKEN else {}), "ingest": {"workers": 1}}
    write_pictures(media, 40)
    runner = Runner()
    killed = 0
    try:
        whole = runner(library, media, "milvus", settings=settings)
        assert whole["report"]["indexed"] == 40
        for round_ in range(KILLS):
            change(media, round_, chosen)
            moment = chosen.uniform(0.1, 0.8 * whole["report"]["seconds"] + 0.3)
            order: dict[str, Any] = {"settings": settings, "kill_after_s": moment}
            killed += runner(library, media, "milvus", **order)["killed"]
        found = runner(library, media, "milvus", settings=settings)
    finally:
        runner.close()
    assert found["before"].get("agrees", True), found["before"]
    assert found["after"]["agrees"], found["after"]
    assert found["report"]["errors"] == []
    files = {str(path) for path in media.rglob("*.jpg")}
    assert found["stored"] == dict.fromkeys(files, 1)
    assert killed >= 1, "the kills came too late to test anything"


def test_a_killed_migration_is_gone_on_with(
    media: Path, open_library: Open, milvus_uri: str
) -> None:
    if TOKEN:
        pytest.skip("the killed process would need the token")
    library = open_library(store="exact")
    library.index([media])
    total = library.status()["vectors"]
    library.close()
    command = [sys.executable, "-c", KILLED, str(library.folder), milvus_uri, "copy", "4"]
    assert subprocess.run(command).returncode == -9
    target = json.loads((library.folder / MARKER).read_text())["store"]["collection"]
    with Library.open(library.folder, settings={"ingest": {"alike": 1.0}}) as left:
        assert left.status()["store"] == "exact"
        written = left.migrate(milvus_uri).written
        assert 0 < written < total
        assert left.status()["store"] == "milvus"
        assert left.status()["vectors"] == total
        assert left.verify().agrees
        verify(left)
    drop(milvus_uri, target)


def test_a_collection_of_another_program_is_refused(milvus_uri: str, collection: str) -> None:
    client: Any = MilvusClient(milvus_uri, token=TOKEN or "")
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=DIM)
    client.create_collection(collection, schema=schema)
    with pytest.raises(StoreError, match=r"lacks .*made by another program") as caught:
        MilvusStore(milvus_uri, dim=DIM, collection=collection, token=TOKEN, timeout_s=30)
    assert collection in str(caught.value)
    assert client.has_collection(collection)
    client.close()


def test_diskann_where_the_server_has_it(milvus_uri: str, collection: str) -> None:
    """Built and searched, or refused with the reason; the vectors are there either way."""
    options: Any = {"dim": DIM, "collection": collection, "token": TOKEN, "timeout_s": 60}
    store = MilvusStore(milvus_uri, **options)
    written = records(50)
    store.upsert(written)
    store.close()
    try:
        store = MilvusStore(milvus_uri, index="diskann", **options)
    except StoreError as error:
        assert "DISKANN" in str(error)  # noqa: PT017 - the other way out is tested, too
        assert "enableDisk" in str(error)  # noqa: PT017
        store = MilvusStore(milvus_uri, index="hnsw", **options)
    else:
        assert "DISKANN" in store.capabilities.index
    assert store.count() == 50
    assert store.search(written[7].vector, limit=1)[0].id == written[7].id
    store.close()


def test_an_old_server_is_refused() -> None:
    class Old(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            kind = details.method.rpartition("/")[2]
            answer = {
                "Connect": milvus_pb2.ConnectResponse(identifier=1),
                "GetVersion": milvus_pb2.GetVersionResponse(version="v2.2.16"),
            }[kind]
            return grpc.unary_unary_rpc_method_handler(lambda *_: answer.SerializeToString())

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Old()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(StoreError, match=r"version v2\.2\.16, which is too old \(use 2\.3"):
            MilvusStore(f"http://127.0.0.1:{port}", dim=DIM, timeout_s=5)
    finally:
        server.stop(grace=0).wait()
