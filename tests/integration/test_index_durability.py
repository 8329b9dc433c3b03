"""What may befall a library: Ctrl-C, full disks, other processes, other models, damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import (
    CatalogError,
    EmbedderMismatchError,
    LibraryBusyError,
    LibraryError,
)
from secondglance.library import Library
from secondglance.types import IndexReport
from tests.libraries import Open, counts, verify
from tests.media import write_pictures

pytestmark = pytest.mark.usefixtures("own_workers")

CAPTURED: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 200}


def test_two_runs_at_once_are_refused(media: Path, open_library: Open) -> None:
    library = open_library()
    other = Library.open(open_library.folder)
    busy: list[str] = []

    def during(_: object) -> None:
        if not busy:
            with pytest.raises(LibraryBusyError) as caught:
                other.index([media])
            busy.append(str(caught.value))

    library.index([media], on_progress=during)
    assert "another process is indexing" in busy[0]


def test_a_second_run_may_wait_for_the_first(media: Path, open_library: Open) -> None:
    library = open_library()
    other = Library.open(open_library.folder)
    waited: list[IndexReport] = []
    thread = threading.Thread(target=lambda: waited.append(other.index([media], wait=True)))

    def during(_: object) -> None:
        if not thread.ident:
            thread.start()
            time.sleep(0.5)
            assert waited == []

    assert counts(library.index([media], on_progress=during)) == {"files": 8, "indexed": 8}
    thread.join(30)
    assert counts(waited[0]) == {"files": 8, "unchanged": 8}
    other.close()


READ_ONLY = """
import json, sys
from tests.commands import run
media, *folders = sys.argv[1:]
for folder in folders:
    where = ("--library", folder)
    done = [
        run("index", media, *where),
        run("search", "x", *where, "--json"),
        run("status", *where, "--verify", "--json"),
    ]
    print(json.dumps([(each.returncode, each.stdout, each.stderr) for each in done]))
"""


def test_a_read_only_library_is_searched_and_not_written(media: Path, open_library: Open) -> None:
    libraries = []
    for store in ("faiss", "exact"):
        open_library(store, store=store).index([media])
        libraries.append(open_library.folder)
    # Root may write anywhere; without this capability it is held by permissions like anyone.
    command = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv cannot be kept from writing")
        command = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"]
    open_library.close()
    folders = [f for each in libraries for f in (each, *each.rglob("*")) if f.is_dir()]
    command += [sys.executable, "-c", READ_ONLY, str(media), *map(str, libraries)]
    try:
        for folder in folders:
            folder.chmod(0o555)
        done = subprocess.run(command, **CAPTURED)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(libraries)
    for (code, _, errors), search, status in answers:
        assert code == 1
        assert "cannot be written" in errors
        assert "try:" in errors
        assert "Traceback" not in errors
        assert search[0] == 0, search[2]
        assert len(json.loads(search[1])["hits"]) == 9
        assert status[0] == 0, status[2]
        assert json.loads(status[1])["verify"]["agrees"]


def test_another_embedder_is_refused(media: Path, open_library: Open, tmp_path: Path) -> None:
    from secondglance.models.untrained import build_untrained_clip

    open_library().index([media])
    open_library.close()
    other = build_untrained_clip(tmp_path / "other-clip", seed=5)
    with pytest.raises(EmbedderMismatchError, match=r"made with recall.model = .*change the model"):
        Library.open(open_library.folder, settings={"recall": {"model": str(other)}})
    # The same name with other weights is found by its fingerprint.
    clip = Path(open_library.settings["recall"]["model"])
    moved = clip.rename(clip.with_name("away"))
    shutil.copytree(other, clip)
    try:
        with Library.open(open_library.folder) as library:
            with pytest.raises(EmbedderMismatchError, match="made with the embedder"):
                library.search("x")
            assert library.status()["vectors"] == 11
    finally:
        shutil.rmtree(clip)
        moved.rename(clip)


def test_a_corrupt_catalog_and_a_folder_that_is_no_library(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    open_library().index([media])
    open_library.close()
    (open_library.folder / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    for suffix in ("-wal", "-shm"):
        (open_library.folder / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
    with pytest.raises(CatalogError, match=r"is damaged.*move it away.*not lost"):
        Library.open(open_library.folder)
    (open_library.folder / "catalog.sqlite").unlink()
    with Library.open(open_library.folder) as library:
        assert counts(library.index([media])) == {"files": 8, "indexed": 8}
        verify(library)
    with pytest.raises(LibraryError, match="holds other files"):
        Library.open(media, preset="starter")
    with pytest.raises(LibraryError, match="there is no library in"):
        Library.open(tmp_path / "none", create=False)
    with pytest.raises(LibraryError, match="is a file, not a folder"):
        Library.open(media / "notes.txt", preset="starter")


SMALL_WRITES = """
from secondglance.cli import main
from secondglance.pipelines import storing
storing.WRITE_RECORDS = 32
main()
"""


def wait_for_vectors(open_library: Open, at_least: int, process: subprocess.Popen[str]) -> None:
    """Until the catalog has files done; it is read without locking it."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        try:
            database = sqlite3.connect(
                f"file:{open_library.folder}/catalog.sqlite?mode=ro", uri=True
            )
            done = database.execute("SELECT count(*) FROM files WHERE state = 'done'").fetchone()
            database.close()
            if done[0] >= at_least:
                return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.01)
    raise AssertionError(f"it never got that far: {process.communicate()}")


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path: Path, open_library: Open) -> None:
    media = tmp_path / "many"
    write_pictures(media, 400)
    open_library(store="faiss")
    open_library.close()
    command = [sys.executable, "-c", SMALL_WRITES, "index", str(media)]
    command += ["--library", str(open_library.folder), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_vectors(open_library, 1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    first = json.loads(output)["indexed"]
    assert 0 < first < 400
    with Library.open(open_library.folder) as library:
        verify(library)
        report = library.index([media])
        assert counts(report) == {"files": 400, "indexed": 400 - first, "unchanged": first}
        verify(library)


@pytest.mark.parametrize("store", ["faiss", "milvus"])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, open_library: Open, store: str) -> None:
    """A limit on file size stands in for a full disk: writes fail in the middle of the job."""
    import resource

    media = tmp_path / "many"
    write_pictures(media, 300)
    open_library(store=store)
    open_library.close()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    command = [sys.executable, "-m", "secondglance", "index", str(media)]
    command += ["--library", str(open_library.folder)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert "disk" in done.stderr
    with Library.open(open_library.folder) as library:
        report = library.index([media])
        assert report.indexed + report.unchanged == 300
        verify(library)


def test_libraries_on_one_server_have_collections_of_their_own(tmp_path: Path) -> None:
    settings = {"store": {"backend": "milvus", "uri": "http://127.0.0.1:9", "token": "secret"}}
    names = set()
    for number in range(2):
        folder = tmp_path / str(number)
        with Library.open(folder, preset="starter", settings=settings) as library:
            names.add(library.settings.store.collection)
        with Library.open(folder) as library:
            assert library.settings.store.collection in names
            assert library.settings.store.uri == "http://127.0.0.1:9"
        assert "secret" not in (folder / "library.json").read_text()
    assert len(names) == 2
