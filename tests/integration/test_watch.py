"""`index --watch`: what happens below the folders reaches the library, and a stop is clean."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest

from secondglance.library import Library
from secondglance.pipelines import watch as watch_module
from secondglance.pipelines.watch import Unsettled
from secondglance.types import IndexReport
from tests.libraries import Open, counts, stored_ids, verify
from tests.media import picture, write_pictures

Reports = queue.SimpleQueue[IndexReport]
NO_NUMBERS = ("errors", "warnings")


@contextmanager
def watching(library: Library, *folders: Path) -> Iterator[Reports]:
    """Watches in a thread; the first report has been taken."""
    reports: Reports = queue.SimpleQueue()
    stop = threading.Event()
    thread = threading.Thread(
        target=library.watch,
        args=(folders,),
        kwargs={"settle_s": 0.6, "stop": stop, "on_report": reports.put},
    )
    thread.start()
    try:
        yield reports
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


def test_what_is_added_renamed_and_removed_reaches_the_library(
    tmp_path: Path, open_library: Open
) -> None:
    media = tmp_path / "media"
    write_pictures(media / "a", 3)
    library = open_library()
    with watching(library, media) as reports:
        assert counts(reports.get(timeout=60)) == {"files": 3, "indexed": 3}
        before = stored_ids(library)

        write_pictures(media / "new", 4, first=10)
        assert counts(reports.get(timeout=60)) == {"files": 7, "indexed": 4, "unchanged": 3}

        (media / "new").rename(media / "renamed")
        assert counts(reports.get(timeout=60)) == {"files": 7, "moved": 4, "unchanged": 3}

        shutil.rmtree(media / "renamed")
        assert counts(reports.get(timeout=60)) == {"files": 3, "removed": 4, "unchanged": 3}

        media.rename(tmp_path / "unplugged")
        report = reports.get(timeout=60)
        assert (report.files, report.absent, report.removed) == (0, 3, 0)
        assert "is not there; 3 indexed files are kept" in report.warnings[0]

        picture(50).save(tmp_path / "unplugged" / "while away.png")
        (tmp_path / "unplugged").rename(media)
        assert counts(reports.get(timeout=60)) == {"files": 4, "indexed": 1, "unchanged": 3}
        write_pictures(media, 1, first=60)
        assert counts(reports.get(timeout=60)) == {"files": 5, "indexed": 1, "unchanged": 4}
        assert before < stored_ids(library)
    verify(library)


def test_a_root_that_comes_back_during_a_run_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "media"
    root.mkdir()
    seen: list[bool] = []

    def changes(*_: object, **__: object) -> Iterator[set[Path]]:
        yield {root}
        root.rename(tmp_path / "away")
        yield {root / "written.png"}  # of which the system told before the root went
        yield set()
        yield set()

    def index(roots: Sequence[Path], waiting: frozenset[Path]) -> IndexReport:
        seen.append(root.is_dir())
        if not root.is_dir():
            (tmp_path / "away").rename(root)
        return IndexReport()

    monkeypatch.setattr(watch_module, "_changes", changes)
    watch_module.watch(
        [root],
        index,
        exclude=tmp_path / "library",
        settle_s=0,
        stop=threading.Event(),
        on_report=lambda report: None,
    )
    assert seen == [True, False, True]


def test_a_file_that_is_being_written_waits_until_it_is_whole(
    tmp_path: Path, open_library: Open
) -> None:
    media = tmp_path / "media"
    write_pictures(media, 1)
    picture(7, width=400, height=300).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    library = open_library()
    with watching(library, media) as reports:
        reports.get(timeout=60)
        with (media / "slow.png").open("wb") as file:
            for start in range(0, len(content), len(content) // 9):
                file.write(content[start : start + len(content) // 9])
                file.flush()
                time.sleep(0.3)
        report = reports.get(timeout=60)
        assert counts(report) == {"files": 2, "indexed": 1, "unchanged": 1}
        assert report.errors == ()
        assert reports.empty()


def test_a_file_settles_once_size_and_time_stay(tmp_path: Path) -> None:
    unsettled = Unsettled(settle_s=0.2)
    path = tmp_path / "file"
    path.write_text("1")
    unsettled.touch(path)
    unsettled.touch(tmp_path / "gone")
    assert unsettled.settle() == {path}
    time.sleep(0.15)
    path.write_text("12")
    assert unsettled.settle() == {path}
    time.sleep(0.15)
    assert unsettled.settle() == {path}
    time.sleep(0.15)
    assert unsettled.settle() == frozenset()


def test_ctrl_c_ends_the_watch_with_a_summary(tmp_path: Path, open_library: Open) -> None:
    media = tmp_path / "media"
    write_pictures(media, 2)
    open_library(store="milvus")
    open_library.close()
    command = [sys.executable, "-m", "secondglance", "index", str(media), "--watch", "--json"]
    command += ["--library", str(open_library.folder)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["indexed"] == 2
    # Milvus Lite serves one process at a time; between runs that may be another.
    with Library.open(open_library.folder) as library:
        assert len(library.search("x", rerank=False).hits) == 2
    write_pictures(media, 1, first=5)
    assert json.loads(process.stdout.readline())["indexed"] == 1
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "watched: 3 indexed, 0 moved, 0 removed" in errors
    assert "Traceback" not in errors


def test_reports_of_several_runs_are_added_up_whole() -> None:
    done = {"indexed", "moved", "removed", "segments", "described", "seconds", "scan_seconds"}
    numbers = [field.name for field in fields(IndexReport) if field.name not in NO_NUMBERS]
    first = IndexReport(**dict.fromkeys(numbers, 1))  # type: ignore[arg-type]
    second = IndexReport(**dict.fromkeys(numbers, 10), warnings=("late",))  # type: ignore[arg-type]
    total = watch_module.add(first, second)
    assert {name: getattr(total, name) for name in numbers} == {
        name: 11 if name in done else 10 for name in numbers
    }
    assert total.warnings == ("late",)
