from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.libraries import Open


@pytest.fixture
def open_library(tmp_path: Path, untrained_clip: Path, untrained_reranker: Path) -> Iterator[Open]:
    opener = Open(tmp_path, untrained_clip, untrained_reranker)
    yield opener
    opener.close()
