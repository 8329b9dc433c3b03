from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.retrieve.store import Store
from tests.contract.stores import NAMES, Opener


@pytest.fixture(params=NAMES)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    name = str(request.param)
    collection = f"test_{uuid.uuid4().hex}"
    folder = tmp_path / "store"
    if name == "milvus-uri":
        from milvus_lite.adapter.grpc.server import start_server_in_thread

        server, database, port = start_server_in_thread(str(tmp_path / "served"))
        yield Opener(name, folder, f"http://127.0.0.1:{port}", collection)
        server.stop(grace=1).wait()
        database.close()
    elif name == "milvus-server":
        uri = request.getfixturevalue("milvus_uri")
        collections = request.getfixturevalue("milvus_collections")
        collection = collections.take()
        yield Opener(name, folder, uri, collection)
        collections.give_back(collection)
    else:
        yield Opener(name, folder, "", collection)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    made = opener()
    yield made
    made.close()
