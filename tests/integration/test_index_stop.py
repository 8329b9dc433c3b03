"""Runs that another thread stops, and runs on a part of a folder that was indexed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import StoppedError
from secondglance.pipelines.decode_calls import DecodeCalls
from secondglance.pipelines.index import IndexStoppedError, Progress
from secondglance.rerank.stopping import stoppable
from tests.libraries import Open, counts, verify
from tests.media import write_pictures

pytestmark = pytest.mark.usefixtures("own_workers")


@pytest.mark.parametrize("stage", ["scan", "load", "embed"])
def test_a_stopped_run_keeps_what_it_has_and_the_next_ends_it(
    media: Path, open_library: Open, stage: str
) -> None:
    library = open_library()
    stop = threading.Event()

    def told(progress: Progress) -> None:
        if progress.stage == stage:
            stop.set()

    with stoppable(stop), pytest.raises(IndexStoppedError) as caught:
        library.index([media], on_progress=told)
    verify(library)
    kept = caught.value.report.indexed
    assert kept < 8
    assert counts(library.index([media]))["indexed"] == 8 - kept
    verify(library)


def test_a_run_does_not_wait_for_a_decoder_to_stop() -> None:
    stop = threading.Event()
    nobody: Any = None
    calls = DecodeCalls(nobody, nobody, nobody)
    threading.Timer(0.2, stop.set).start()
    with stoppable(stop), pytest.raises(StoppedError):
        calls.take()


def test_a_part_of_a_folder_keeps_its_place_and_its_captions(
    tmp_path: Path, open_library: Open
) -> None:
    album = tmp_path / "album"
    write_pictures(album / "sea", 2)
    rows = [{"image": "sea/picture-0000.jpg", "caption": "a lighthouse"}]
    (album / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    library = open_library()
    library.index([album])
    assert library.search("lighthouse", rerank=False).hits[0].lexical_score
    write_pictures(album / "sea", 1, first=5)
    report = library.index([album / "sea"])
    assert counts(report) == {"files": 3, "indexed": 1, "unchanged": 2}
    assert library.roots() == (str(album),)
    hit = library.search("lighthouse", rerank=False).hits[0]
    assert (hit.text, Path(hit.path).name) == ("a lighthouse", "picture-0000.jpg")
    assert hit.lexical_score
    assert library.search("x", filter='path like "sea/%"', rerank=False, k=9).hits[2:]
    verify(library)
