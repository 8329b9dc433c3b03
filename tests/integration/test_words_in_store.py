"""Words ranked by Milvus itself where it can, and by the library where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from secondglance.errors import InputError, StoreError
from secondglance.library import Library
from secondglance.pipelines.words import open_index
from secondglance.retrieve.lexical import STORE_MARKER, WordIndex
from secondglance.retrieve.milvus_words import MilvusWords, Stems
from secondglance.retrieve.tokens import tokenize
from tests.integration.test_words import word_names, write_media
from tests.libraries import Open
from tests.milvus_server import TOKEN, drop

QUERIES = [
    "lighthouse",
    "old lighthouses",
    "garden party",
    "GARDA",
    "海滩",
    "狗",
    "Harbour",
    "sleeping fisherman",
    "gulls quay",
    "poem",
    '"lighthouse keeper"',
    '"keeper lighthouse"',
    "zebra",
    "!!",
]


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, untrained_reranker: Path
) -> Iterator[tuple[Library, Library]]:
    """Two libraries of the same media: words in the library, and in Milvus Lite."""
    base = tmp_path_factory.mktemp("words-in-store")
    opener = Open(base, untrained_clip, untrained_reranker)
    media = write_media(base / "media")
    inside = opener("inside", store="milvus", search={"words_in": "store"})
    outside = opener("outside", store="exact")
    for library in (outside, inside):
        library.index([media])
    yield outside, inside
    opener.close()


def test_the_store_finds_what_the_library_finds(both: tuple[Library, Library]) -> None:
    outside, inside = both
    assert isinstance(inside._parts.words().index, MilvusWords)
    assert not (inside.folder / "words.sqlite").exists()
    for query in QUERIES:
        assert word_names(inside, query) == word_names(outside, query), query
    for options in ({"kind": "image"}, {"kind": "video"}, {"filter": 'path like "Lake%"'}):
        for query in ("lighthouse", "garda"):
            found, wanted = (word_names(each, query, **options) for each in (inside, outside))
            assert found == wanted, (query, options)
    index = inside._parts.words().index
    assert index.count() == outside._parts.words().index.count()
    [match] = index.search("lighthouse", limit=9, without="keeper")
    assert match.kind == "image"
    assert match.share == 1
    [half] = [m for m in index.search("lighthouse zebra keeper", limit=9) if m != match][:1]
    assert 0 < half.share < 1


def test_changes_arrive_in_the_store(tmp_path: Path, open_library: Open) -> None:
    media = write_media(tmp_path / "media")
    library = open_library(store="milvus", search={"words_in": "store"})
    library.index([media])
    (media / "camera" / "IMG_0005.jpg").unlink()
    (media / "camera" / "IMG_0003_GardenParty.jpg").rename(media / "camera" / "Wedding.jpg")
    library.index([media])
    assert word_names(library, "lighthouse") == ["IMG_0001.jpg"]
    assert word_names(library, "garden party") == []
    assert word_names(library, "wedding") == ["Wedding.jpg"]


def test_words_move_between_library_and_store(tmp_path: Path, open_library: Open) -> None:
    media = write_media(tmp_path / "media")
    open_library(store="milvus").index([media])
    found = []
    for where in ("store", "library", "store"):
        open_library.close()
        library = open_library(store="milvus", search={"words_in": where})
        found.append(word_names(library, "lighthouse"))
        assert (library.folder / STORE_MARKER).exists() == (where == "store")
        # What changes now is unknown to the other index.
        (media / f"{where}-lighthouse-{len(found)}.txt").write_text(f"Word {len(found)}. " * 20)
        library.index([media])
    assert [len(names) for names in found] == [2, 3, 4]


def test_a_store_that_ranks_no_words(open_library: Open) -> None:
    library = open_library(store="faiss", search={"words_in": "store"})
    with pytest.raises(InputError, match=r"the faiss store does not rank by words"):
        open_index(library.folder, library.settings)
    library = open_library("auto", store="faiss", search={"words_in": "auto"})
    index = open_index(library.folder, library.settings)
    assert isinstance(index, WordIndex)
    index.close()


def test_a_server_without_full_text(tmp_path: Path, milvus_uri: str, open_library: Open) -> None:
    """By capability: refused where it was named, outside where it was left open."""
    store: dict[str, Any] = {"backend": "milvus", "uri": milvus_uri, "timeout_s": 30}
    store |= {"collection": f"test_{uuid4().hex}"} | ({"token": TOKEN} if TOKEN else {})
    sections = {**open_library.settings, "store": store, "ingest": {"alike": 1.0}}

    def opened(where: str) -> Library:
        settings = {**sections, "search": {"words_in": where, "rerank_floor": 0.0}}
        library = Library.open(tmp_path / "library", preset="starter", settings=settings)
        open_library._opened.append(library)
        return library

    library = opened("auto")
    library.index([write_media(tmp_path / "media")])
    assert word_names(library, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]
    can = library._parts.store().capabilities.full_text
    assert isinstance(library._parts.words().index, MilvusWords) == can
    library.close()
    if not can:
        library = opened("store")
        with pytest.raises(StoreError, match=r"does not rank by words \(use 2\.5 or newer"):
            open_index(library.folder, library.settings)
        library.close()
    drop(milvus_uri, str(store["collection"]), f"{store['collection']}_words")


def test_stems_are_one_ascii_word_each() -> None:
    stems = Stems()
    tokens = tokenize("Fishermen's boats at the quays, 海滩 naïve ภาษาไทย IMG_2041").all
    text = stems.of(tokens)
    assert text.isascii()
    assert {"boat", "quai", "2041"} <= set(text.split())
    assert all(word.isalnum() for word in text.split())
    assert len(text.split()) == len(tokens)
    stems.close()
