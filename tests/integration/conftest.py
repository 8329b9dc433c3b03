from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from secondglance.pipelines import build
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
