from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libraries import Open
from tests.media import write_clip, write_pictures


@pytest.fixture
def open_library(tmp_path: Path, untrained_clip: Path, untrained_reranker: Path) -> Iterator[Open]:
    opener = Open(tmp_path, untrained_clip, untrained_reranker)
    yield opener
    opener.close()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    write_pictures(folder / "photos", 6)
    write_clip(folder / "clip.mp4", [20, 21, 22])
    (folder / "notes.txt").write_text("A dog on a beach.\n\n" + "Words about a harbour. " * 30)
    return folder
