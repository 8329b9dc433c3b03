"""Fixtures for every suite."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from secondglance.models.untrained import build_untrained_clip, build_untrained_reranker
from secondglance.pipelines import build
from tests.browser import browser
from tests.contract.stores import DIM
from tests.decoding import open_own, shared_workers
from tests.milvus_server import ABSENT, URI, Collections, Server, package, unpacked

__all__ = ["browser"]

# Tests talk to nobody.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


SLOW = (
    "test_ray_cluster.py", "test_ray_engine.py", "test_page_browser.py", "test_malformed.py",
    "test_reranker_engine.py", "test_index_durability.py", "test_starter_reranker.py",
    "test_kills.py", "test_beside_processes.py", "test_fp8.py", "test_schema.py", "test_cli.py",
    "test_store.py", "test_store_filters.py", "test_fit.py", "test_train_clip.py",
    "test_train_reranker.py", "test_train_reranker_steps.py", "test_starter_clip.py",
    "test_scene_render.py", "test_scene_collection.py", "test_vector_index.py",
)  # fmt: skip
"""Files that take long and would come late: processes share files, and a long one at the end leaves
all but one idle."""

_SERVERS: list[Server] = []


def needs_server(item: pytest.Item | None) -> bool:
    """Whether a test runs on a real Milvus server."""
    fixtures = {"milvus_programs", "milvus_server", "milvus_uri", "milvus_collections"}
    return item is not None and (
        "milvus-server" in item.name or bool(fixtures & set(getattr(item, "fixturenames", ())))
    )


def pytest_configure(config: pytest.Config) -> None:
    # Else files with few tests come last, and those are often the slow ones.
    if getattr(config.option, "loadscopereorder", False):
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors: a third of the time is spent waiting."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Slow files first. With pytest-xdist a file stays whole, and one process has the server."""
    items.sort(key=lambda item: (not needs_server(item), item.path.name not in SLOW))
    for item in items:
        group = "a Milvus server" if needs_server(item) else str(item.path)
        if item.path.name.startswith("test_ray"):
            group = "Ray"  # its folders in /tmp are looked at
        item.add_marker(pytest.mark.xdist_group(group))
    yield
    # Without groups every process would start all servers.
    if getattr(config.option, "loadgroup", False) and not all("@" in i.nodeid for i in items):
        raise pytest.UsageError("this pytest-xdist cannot tell this pytest the groups of tests")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the server after its last test; it keeps a processor busy."""
    if needs_server(item) and not needs_server(nextitem):
        for server in _SERVERS:
            server.kill()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Commands that run in this process hang handlers onto the log."""
    logger = logging.getLogger("secondglance")
    before = [*logger.handlers], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_clip(tmp_path_factory.mktemp("models") / "untrained-clip")


@pytest.fixture(scope="session")
def untrained_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_reranker(tmp_path_factory.mktemp("models") / "untrained-reranker")


def _loaded_once(name: Literal["open_embedder", "open_reranker"]) -> Iterator[None]:
    make: Callable[[Any], Any] = getattr(build, name)
    made: dict[str, Any] = {}

    def known(settings: Any) -> Any:
        key = settings.model_dump_json()
        if key not in made:
            made[key] = make(settings)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, name, known)
        yield


@pytest.fixture(scope="module")
def one_embedder() -> Iterator[None]:
    """All libraries of a file share the embedders of the same settings; loading takes time."""
    yield from _loaded_once("open_embedder")


@pytest.fixture(scope="module")
def one_reranker() -> Iterator[None]:
    """As `one_embedder`; for tests that close no reranker."""
    yield from _loaded_once("open_reranker")


@pytest.fixture(scope="session", autouse=True)
def _shared_workers() -> Iterator[None]:
    with shared_workers():
        yield


@pytest.fixture(scope="module")
def own_workers() -> Iterator[None]:
    """Each run starts and ends decode workers of its own, as outside of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.Parts, "decode_pool", open_own)
        yield


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
    _SERVERS.append(server)
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
