"""A change of the model in one process while others search; and killed wherever it hurts."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from secondglance.library import Library
from secondglance.pipelines.generations import read_generations
from secondglance.server.options import ServerOptions
from tests.forking import Runner
from tests.libraries import other_clip, verify
from tests.media import write_pictures
from tests.served import client

pytestmark = pytest.mark.usefixtures("one_embedder")

PICTURES = 40
RANDOM_KILLS = 4

GENERATIONS = "secondglance.pipelines.generations"
BESIDE = "secondglance.pipelines.beside"
POINTS = [
    # The list names the new vectors, and their folder is not there yet.
    (GENERATIONS, "write_generations", 1, "after"),
    # All is embedded; the list says that the old ones are to leave.
    (GENERATIONS, "write_generations", 2, "after"),
    (BESIDE, "write_stamp", 1, "before"),
    (BESIDE, "write_stamp", 1, "after"),
    # The old store is gone, its catalog is not.
    (GENERATIONS, "remove_store", 1, "after"),
    (GENERATIONS, "_remove_data", 1, "after"),
]


@dataclass(frozen=True)
class Made:
    """A library that no test changes, its pictures, its model and another one."""

    folder: Path
    media: Path
    old: Path
    other: Path


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, one_embedder: None
) -> Made:
    base = tmp_path_factory.mktemp("beside")
    other = other_clip(base / "other-clip")
    write_pictures(base / "media", PICTURES)
    settings = {
        "rerank": {"backend": "passthrough"},
        "store": {"backend": "faiss"},
        "ingest": {"workers": 1},
        "recall": {"model": str(untrained_clip)},
    }
    with Library.open(base / "library", preset="starter", settings=settings) as library:
        library.index([base / "media"])
    return Made(base / "library", base / "media", untrained_clip, other)


def check(folder: Path) -> str:
    """The model of a library whose every file is found once, by vectors of this model alone."""
    with Library.open(folder) as library:
        hits = library.search("anything", k=2 * PICTURES, rerank=False).hits
        assert len({hit.path for hit in hits}) == len(hits) == PICTURES
        verify(library)
        return library.settings.recall.model


def test_killed_at_any_moment_the_library_has_one_model(
    made: Made, runner: Runner, tmp_path: Path
) -> None:
    folder = tmp_path / "library"
    shutil.copytree(made.folder, folder)
    models, chosen = [str(made.old), str(made.other)], random.Random("kills beside")
    first = runner.change(folder, made.other)
    assert (first["indexed"], check(folder)) == (PICTURES, models[1])
    moments = [chosen.uniform(0.05, first["seconds"] + 0.3) for _ in range(RANDOM_KILLS)]
    orders: list[dict[str, Any]] = [{"kill_at": point} for point in POINTS]
    orders += [{"kill_after_s": moment} for moment in moments]
    killed = 0
    for order in orders:
        before = check(folder)
        wanted = models[1 - models.index(before)]
        died = runner.change(folder, Path(wanted), **order).get("killed", False)
        assert died or "kill_at" not in order, f"never came to {order}"
        killed += died
        assert check(folder) in models
        done = runner.change(folder, Path(wanted))
        assert "error" not in done, done
        assert check(folder) == wanted
        # Nothing is left of any model but this one.
        assert read_generations(folder) == []
        data = {json.loads((folder / "library.json").read_text()).get("data", ".")}
        there = {
            path.parent.relative_to(folder).as_posix() for path in folder.rglob("catalog.sqlite")
        }
        assert there == data
    assert killed >= len(POINTS)


def test_a_full_disk_leaves_the_library_as_it_was(
    made: Made, runner: Runner, tmp_path: Path
) -> None:
    folder = tmp_path / "library"
    shutil.copytree(made.folder, folder)
    failed = runner.change(folder, made.other, limit_bytes=60_000)
    assert failed["error"] in ("LibraryError", "CatalogError", "StoreError"), failed
    assert "disk" in failed["said"]
    assert check(folder) == str(made.old)
    assert runner.change(folder, made.other)["files"] == PICTURES
    assert check(folder) == str(made.other)


class Searching:
    """A thread that searches until it is told to stop, and remembers which vectors answered."""

    def __init__(self, search: Callable[[], set[str]]) -> None:
        self.answers: list[set[str]] = []
        self.error: BaseException | None = None
        self._search = search
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.answers.append(self._search())
        except BaseException as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.parametrize("store", ["faiss", "milvus"])
def test_searches_go_on_while_another_process_changes_the_model(
    made: Made, runner: Runner, tmp_path: Path, store: str
) -> None:
    folder = tmp_path / "library"
    shutil.copytree(made.folder, folder)
    with Library.open(folder) as library:
        if store == "milvus":
            library.migrate("milvus", remove_old=True)
        old = {hit.id for hit in library.search("anything", k=99, rerank=False).hits}
        with client(library, ServerOptions(port=0)) as http:

            def over_http() -> set[str]:
                asked = {"query": "anything", "k": 99, "rerank": False}
                answer = http.post("/v1/search", json=asked)
                assert answer.status_code == 200, answer.text
                return {hit["id"] for hit in answer.json()["hits"]}

            def in_process() -> set[str]:
                return {hit.id for hit in library.search("anything", k=99, rerank=False).hits}

            threads = [Searching(in_process), Searching(over_http)]
            done = runner.change(folder, made.other)
            # Whoever comes first loads the new model; others are answered from the old vectors.
            deadline = time.monotonic() + 60
            while (new := in_process()) & old and time.monotonic() < deadline:
                time.sleep(0.05)
            for thread in threads:
                seen = len(thread.answers)
                while len(thread.answers) < seen + 2 and thread.error is None:
                    time.sleep(0.005)
                thread.stop()
            assert done.get("indexed") == PICTURES, done
            # This process searched the old ones until now, so it removed them.
            assert library.status()["beside"] == []
            assert http.get("/v1/library").json()["vectors"] == PICTURES
    assert len(new) == PICTURES
    assert not new & old
    for thread in threads:
        assert thread.error is None, thread.error
        kinds = [answer == new for answer in thread.answers]
        assert all(answer in (old, new) for answer in thread.answers)
        # First the old ones alone, then the new ones alone.
        assert kinds == sorted(kinds)
        assert not kinds[0]
        assert kinds[-1]
