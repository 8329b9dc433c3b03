"""Decode workers that hang, die or take too much: one line in the report each."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from secondglance.pipelines import decode_calls
from tests.hazards import hazardous_decode_all
from tests.libraries import Open, counts, verify
from tests.media import write_pictures

pytestmark = pytest.mark.usefixtures("own_workers")


def test_workers_that_hang_die_or_starve_cost_one_file_each(
    tmp_path: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_calls, "decode_all", hazardous_decode_all)
    media = tmp_path / "media"
    good = write_pictures(media, 12)
    for name in ("hangs", "kills", "kills too", "greedy"):
        shutil.copy(good[0], media / f"{name}.jpg")
        with (media / f"{name}.jpg").open("ab") as file:
            file.write(name.encode())  # a content of its own
    library = open_library(ingest={"timeout_s": 5, "max_memory_mb": 1024, "workers": 2})
    report = library.index([media])
    assert counts(report) == {"files": 16, "indexed": 12, "failed": 4}
    reasons = {Path(failure.path).stem: failure.reason for failure in report.errors}
    assert "longer than 5 s" in reasons["hangs"]
    assert "the decoder crashed on it" in reasons["kills"]
    assert "the decoder crashed on it" in reasons["kills too"]
    assert "more than 1024 MB" in reasons["greedy"]
    verify(library)
    monkeypatch.undo()
    assert counts(library.index([media], retry_failed=True)) == {
        "files": 16,
        "indexed": 4,
        "unchanged": 12,
    }


def test_a_worker_killed_from_outside_costs_the_file_it_held(
    tmp_path: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_calls, "decode_all", hazardous_decode_all)
    media = tmp_path / "media"
    good = write_pictures(media, 6)
    shutil.copy(good[0], media / "slow.jpg")
    with (media / "slow.jpg").open("ab") as file:
        file.write(b"slow")

    def kill() -> None:
        note = media / "slow.pid"
        while not (note.exists() and note.read_text()):
            time.sleep(0.02)
        os.kill(int(note.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    library = open_library()
    report = library.index([media])
    killer.join(10)
    assert counts(report) == {"files": 7, "indexed": 6, "failed": 1}
    [failure] = report.errors
    assert Path(failure.path).name == "slow.jpg"
    assert "the decoder crashed on it" in failure.reason
    verify(library)
