from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from secondglance.library import Library
from tests.libraries import Open
from tests.media import write_clip, write_pictures
from tests.served import client


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos, a clip and a text; tests do not change them."""
    folder = tmp_path_factory.mktemp("served") / "media"
    write_pictures(folder / "photos", 6)
    write_clip(folder / "clip.mp4", [20, 21, 22])
    (folder / "notes.txt").write_text("A dog on a beach.\n\n" + "Words about a harbour. " * 30)
    return folder


@pytest.fixture(scope="module")
def library(media: Path, untrained_clip: Path, untrained_reranker: Path) -> Iterator[Library]:
    """A library of `media` with untrained models."""
    opener = Open(media.parent, untrained_clip, untrained_reranker)
    library = opener()
    library.index([media])
    yield library
    opener.close()


@pytest.fixture(scope="module")
def http(library: Library) -> Iterator[httpx.Client]:
    """A client of a server of `library` with the options that are default."""
    with client(library) as found:
        yield found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """A library without files, for requests that must not get as far as its models."""
    folder = tmp_path_factory.mktemp("empty") / "library"
    with Library.open(folder, preset="starter", settings={"store": {"backend": "exact"}}) as found:
        yield found
