"""Another model for a library whose vectors are on a real Milvus server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from secondglance.library import Library
from secondglance.models import untrained
from secondglance.pipelines.index import IndexInterruptedError, Progress
from secondglance.pipelines.stamp import read_stamp
from tests.libraries import verify
from tests.media import write_pictures
from tests.milvus_server import TOKEN, drop

pytestmark = pytest.mark.usefixtures("one_embedder")

PICTURES = 12


@pytest.fixture
def server(milvus_uri: str) -> Iterator[MilvusClient]:
    """A client whose server is as it was, after the test."""
    client = MilvusClient(milvus_uri, token=TOKEN or "")
    before = set(client.list_collections())
    yield client
    drop(milvus_uri, *set(client.list_collections()) - before)
    client.close()


@pytest.fixture
def library(
    tmp_path: Path, server: MilvusClient, milvus_uri: str, untrained_clip: Path
) -> Iterator[Library]:
    store = {"backend": "milvus", "uri": milvus_uri, "timeout_s": 30}
    settings = {
        "recall": {"model": str(untrained_clip)},
        "rerank": {"backend": "passthrough"},
        "store": store | ({"token": TOKEN} if TOKEN else {}),
        "ingest": {"workers": 1},
    }
    write_pictures(tmp_path / "media", PICTURES)
    with Library.open(tmp_path / "library", preset="starter", settings=settings) as library:
        library.index([tmp_path / "media"])
        yield library


def ids(library: Library) -> list[str]:
    return [hit.id for hit in library.search("anything", k=99, rerank=False).hits]


def collection(library: Library) -> str:
    return str((read_stamp(library.folder) or {})["store"]["collection"])


def test_a_collection_grows_beside_the_one_in_use(
    library: Library, server: MilvusClient, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(untrained.CLIP_CONFIG["model_cfg"], "embed_dim", 64)
        other = {"recall": {"model": str(untrained.build_untrained_clip(tmp_path / "other"))}}
    first, old = collection(library), ids(library)
    assert len(old) == PICTURES
    foreign = set(server.list_collections()) - {first}

    def stop(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done >= PICTURES // 2:
            raise KeyboardInterrupt

    with pytest.raises(IndexInterruptedError):
        library.change_model(settings=other, on_progress=stop)
    assert (collection(library), ids(library)) == (first, old)
    [unfinished] = library.status()["beside"]
    assert unfinished["state"] == "building"

    answers: list[list[str]] = []
    over = threading.Event()

    def search() -> None:
        with Library.open(library.folder) as reader:
            while not over.is_set():
                answers.append(ids(reader))

    searching = threading.Thread(target=search)
    searching.start()
    done = library.change_model(settings=other, keep_old=True)
    over.set()
    searching.join()
    assert (done.report.indexed, done.report.unchanged) == (
        PICTURES - unfinished["files"],
        unfinished["files"],
    )
    second = collection(library)
    assert set(server.list_collections()) - foreign == {first, second}
    new = ids(library)
    assert len(new) == PICTURES
    assert not set(new) & set(old)
    assert old in answers
    # An answer comes from one of them, whole.
    assert {frozenset(answer) for answer in answers} <= {frozenset(old), frozenset(new)}
    verify(library)

    # Back to the collection that was kept, then the other one goes from the server as well.
    before = {"recall": {"model": done.before}}
    assert library.change_model(settings=before, keep_old=True).report.indexed == 0
    assert (collection(library), ids(library)) == (first, old)
    assert library.discard() == (1, [])
    assert set(server.list_collections()) - foreign == {first}
    verify(library)
