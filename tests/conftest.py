"""Fixtures for every suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.models.untrained import build_untrained_clip, build_untrained_reranker
from tests.browser import browser
from tests.contract.stores import DIM
from tests.milvus_server import ABSENT, URI, Collections, Server, package, unpacked

__all__ = ["browser"]


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_clip(tmp_path_factory.mktemp("models") / "untrained-clip")


@pytest.fixture(scope="session")
def untrained_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_reranker(tmp_path_factory.mktemp("models") / "untrained-reranker")


@pytest.fixture(scope="session")
def milvus_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of the server that the package `milvus` holds."""
    if package() is None:
        pytest.skip(ABSENT)
    base = tmp_path_factory.getbasetemp()
    # Workers of one run have folders of their own beside each other.
    return unpacked(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def milvus_server(
    tmp_path_factory: pytest.TempPathFactory, milvus_programs: Path
) -> Iterator[Server]:
    """A server of this session's own, which tests may kill and start again."""
    server = Server(tmp_path_factory.mktemp("milvus"), milvus_programs)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def milvus_uri(request: pytest.FixtureRequest) -> str:
    """A Milvus server: the one that the environment names, or one of our own."""
    if URI:
        return URI
    server: Server = request.getfixturevalue("milvus_server")
    return server.uri


@pytest.fixture(scope="session")
def milvus_collections(milvus_uri: str) -> Iterator[Collections]:
    """Empty collections of the contract suite, removed at the end."""
    collections = Collections(milvus_uri, dim=DIM)
    yield collections
    collections.close()
