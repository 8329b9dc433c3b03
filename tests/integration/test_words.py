"""Search by words beside vectors: in step with the files, fused, filtered, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.errors import StoreError
from secondglance.ingest.reworded import RewordedQueue
from secondglance.library import Library
from secondglance.pipelines import words as words_pipeline
from secondglance.retrieve.lexical import WordIndex
from secondglance.types import Hit, Query, SearchResult
from tests.integration.test_search import Judge
from tests.libraries import Open, verify
from tests.media import picture, write_clip, write_pictures

STORES = ["exact", "faiss", "milvus"]


def write_media(folder: Path) -> Path:
    """16 pictures with names that say nothing, but for captions and two names; a clip; texts."""
    pictures = write_pictures(folder / "camera", 16)
    for number, path in enumerate(pictures):
        path.rename(path.with_name(f"IMG_{number:04}.jpg"))
    (folder / "camera" / "IMG_0003.jpg").rename(folder / "camera" / "IMG_0003_GardenParty.jpg")
    (folder / "Lake Garda").mkdir()
    (folder / "camera" / "IMG_0004.jpg").rename(folder / "Lake Garda" / "IMG_0004.jpg")
    write_clip(folder / "harbour-walk.mp4", [20, 21, 22])
    (folder / "poem.txt").write_text(
        "The fisherman sleeps. " * 17 + "\n\n" + "Gulls over the quay. " * 18
    )
    rows = [
        {"file": "camera/IMG_0001.jpg", "caption": "An old lighthouse in the fog"},
        {"file": "camera/IMG_0002.jpg", "caption": "两只狗在海滩上奔跑"},
        {"file": "camera/IMG_0005.jpg", "caption": "A lighthouse keeper"},
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "captions.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def kept(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, untrained_reranker: Path
) -> Iterator[dict[str, Library]]:
    """Libraries of the media, one for each store, that tests only read."""
    base = tmp_path_factory.mktemp("words")
    opener = Open(base, untrained_clip, untrained_reranker)
    folder = write_media(base / "media")
    libraries = {store: opener(store, store=store) for store in STORES}
    for library in libraries.values():
        library.index([folder])
    yield libraries
    opener.close()


@pytest.fixture
def still(kept: dict[str, Library]) -> Library:
    return kept["exact"]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_media(tmp_path / "media")


@pytest.fixture
def library(media: Path, open_library: Open) -> Library:
    library = open_library()
    library.index([media])
    return library


def by_words(result: SearchResult) -> list[Hit]:
    """The hits that words found, best words first."""
    hits = [hit for hit in result.hits if hit.lexical_score is not None]
    return sorted(hits, key=lambda hit: -(hit.lexical_score or 0))


def word_names(library: Library, query: str, **options: object) -> list[str]:
    result = library.search(query, rerank=False, k=100, **options)  # type: ignore[arg-type]
    assert result.warnings == ()
    return [Path(hit.path).name for hit in by_words(result)]


def test_captions_names_folders_and_texts_are_found(still: Library) -> None:
    library = still
    assert word_names(library, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]
    assert word_names(library, "garden party") == ["IMG_0003_GardenParty.jpg"]
    assert word_names(library, "GARDA") == ["IMG_0004.jpg"]
    assert word_names(library, "海滩") == ["IMG_0002.jpg"]
    assert word_names(library, "fishermen") == []
    assert word_names(library, "Harbour") == ["harbour-walk.mp4"]
    assert word_names(library, "quay") == ["poem.txt"]
    [hit] = by_words(library.search("sleeping fisherman", rerank=False, k=100))
    assert hit.text.startswith("The fisherman")
    # A text found by its name is one hit, not one for each of its passages.
    assert word_names(library, "poem") == ["poem.txt"]


def test_the_order_is_that_of_both_ranks(still: Library) -> None:
    library = still
    plain = library.search("old lighthouse", rerank=False, k=100, words=False)
    both = library.search("old lighthouse", rerank=False, k=100)
    assert all(hit.lexical_score is None for hit in plain.hits)
    assert all(hit.score == hit.recall_score for hit in plain.hits)
    vector_rank = {hit.id: hit.rank for hit in plain.hits}
    assert {hit.id for hit in both.hits} == vector_rank.keys()
    first, second = by_words(both)
    for hit in both.hits:
        expected = 61 / 2 / (60 + vector_rank[hit.id])
        if hit.id == first.id:
            expected += 61 / 2 / 61  # all of the query
        if hit.id != second.id:  # it has a part of the query, and of the weight
            assert hit.score == pytest.approx(expected)
    assert first.path.endswith("IMG_0001.jpg")
    assert [hit.recall_rank for hit in both.hits] == [hit.rank for hit in both.hits]
    scores = [hit.score for hit in both.hits]
    assert scores == sorted(scores, reverse=True)
    cosines = {hit.id: hit.recall_score for hit in plain.hits}
    assert all(hit.recall_score == cosines[hit.id] for hit in both.hits)


@pytest.mark.parametrize("store", STORES)
def test_words_bring_in_what_the_vectors_missed(store: str, kept: dict[str, Library]) -> None:
    library = kept[store]
    everything = library.search("x", rerank=False, k=100, words=False)
    for query, path in [
        ("lighthouse keeper", "IMG_0005.jpg"),
        ("harbour walk", "harbour-walk.mp4"),
        ("gulls quay", "poem.txt"),
    ]:
        cosines = {h.id: h.recall_score for h in library.search(
            query, rerank=False, k=100, words=False, group=False).hits}  # fmt: skip
        hits = library.search(query, rerank=False, k=3, recall=3).hits
        assert len(hits) == 3
        [hit] = [hit for hit in hits if hit.path.endswith(path) and hit.lexical_score]
        assert hit.recall_score == pytest.approx(cosines[hit.id], abs=1e-4)
        if hit.kind == "video":
            assert len(hit.moments) == 3
            assert hit.start_s == hit.moments[0].start_s
            assert hit.recall_score == max(
                cosines[h.id] for h in library.search(
                    query, rerank=False, k=100, kind="video", group=False).hits
            )  # fmt: skip
    assert len(everything.hits) == 16 + 1 + 2


@pytest.mark.parametrize("store", STORES)
def test_filters_and_kinds_hold_for_word_hits(store: str, kept: dict[str, Library]) -> None:
    library = kept[store]
    names = word_names
    assert names(library, "lighthouse", kind="image") == ["IMG_0005.jpg", "IMG_0001.jpg"]
    assert names(library, "lighthouse", kind="video") == []
    assert names(library, "lighthouse", filter='name == "IMG_0001.jpg"') == ["IMG_0001.jpg"]
    assert names(library, "lighthouse", filter='not (text like "%keeper")') == ["IMG_0001.jpg"]
    assert names(library, "lighthouse", filter='path like "Lake%"') == []
    assert names(library, "harbour", filter="duration_s > 10") == ["harbour-walk.mp4"]
    assert names(library, "harbour", filter="duration_s > 100") == []
    # Also where the list by vector is too short to hold them.
    for condition, expected in [("width == 96", {"IMG_0001.jpg", "IMG_0005.jpg"}),
                                ("width == 97", set())]:  # fmt: skip
        hits = library.search(
            "lighthouse", rerank=False, k=4, recall=4, filter=condition, kind="image"
        ).hits
        assert {Path(hit.path).name for hit in by_words_of(hits)} == expected
    [hit] = library.search("harbour", rerank=False, k=1, filter="start_s > 7").hits
    assert [m.start_s for m in hit.moments] == [10]


def by_words_of(hits: tuple[Hit, ...]) -> list[Hit]:
    return [hit for hit in hits if hit.lexical_score is not None]


def test_names_that_say_nothing_change_nothing(tmp_path: Path, open_library: Open) -> None:
    pictures = write_pictures(tmp_path / "photos", 30)
    for number, path in enumerate(pictures):
        path.rename(path.with_name(f"IMG_{number:04}.JPG"))
    library = open_library()
    library.index([tmp_path / "photos"])
    # The folder's name is in every document and says nothing either.
    for query in ("two dogs on a beach", "a photo of a boat", "海滩", "sunset photos 2019"):
        plain = library.search(query, rerank=False, k=30, words=False)
        assert [h.path for h in library.search(query, rerank=False, k=30).hits] == [
            h.path for h in plain.hits
        ]


def test_a_chance_word_does_not_outrank_the_vectors(still: Library) -> None:
    library = still
    query = "small fishing boat leaving misty harbour before sunrise"
    plain = library.search(query, rerank=False, k=100, words=False)
    both = library.search(query, rerank=False, k=100)
    [chance] = by_words(both)
    assert chance.path.endswith("harbour-walk.mp4")
    before = next(hit.rank for hit in plain.hits if hit.id == chance.id)
    gain = chance.score - 61 / 2 / (60 + before)
    assert 0 < gain < 0.2  # a document with all of the words would gain 0.5


def test_pictures_as_queries_are_not_touched(still: Library, tmp_path: Path) -> None:
    picture(1).save(tmp_path / "lighthouse.png")
    query = Query(image=tmp_path / "lighthouse.png")
    result = still.search(query, rerank=False, k=5)
    assert all(hit.lexical_score is None for hit in result.hits)
    assert all(hit.score == hit.recall_score for hit in result.hits)


def test_words_follow_every_change_of_the_files(library: Library, media: Path) -> None:
    (media / "camera" / "IMG_0003_GardenParty.jpg").rename(media / "camera" / "Wedding.jpg")
    shutil.copy(media / "camera" / "IMG_0006.jpg", media / "camera" / "SecondSunflower.jpg")
    (media / "harbour-walk.mp4").unlink()
    (media / "poem.txt").write_text("A song about owls.")
    (media / "captions.jsonl").write_text(
        json.dumps({"file": "camera/IMG_0001.jpg", "caption": "A windmill"})
    )
    library.index([media])
    assert word_names(library, "wedding") == ["Wedding.jpg"]
    assert word_names(library, "garden party") == []
    [hit] = by_words(library.search("sunflower", rerank=False, k=100))
    assert any(copy.endswith("SecondSunflower.jpg") for copy in (hit.path, *hit.copies))
    assert word_names(library, "harbour") == []
    assert word_names(library, "owls") == ["poem.txt"]
    assert word_names(library, "fisherman") == []
    assert word_names(library, "windmill") == ["IMG_0001.jpg"]
    assert word_names(library, "lighthouse") == []
    (media / "camera" / "SecondSunflower.jpg").unlink()
    library.index([media])
    assert word_names(library, "sunflower") == []
    index = library._parts.words().index
    assert index.count() == 16 + 1
    verify(library)


def test_an_unchanged_run_writes_no_words(
    library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("something was written")

    monkeypatch.setattr(WordIndex, "replace", forbidden)
    assert library.index([media]).unchanged == 19
    assert word_names(library, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]


def strip_words(folder: Path) -> None:
    """What a library made before the word index looks like."""
    for path in folder.glob("words.sqlite*"):
        path.unlink()
    with sqlite3.connect(folder / "catalog.sqlite") as db:
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            db.execute(f"DROP TRIGGER {name}")
        db.execute("DROP TABLE reworded")
    db.close()


@pytest.mark.parametrize("by", ["search", "index"])
def test_an_older_library_gets_its_words_once(
    by: str, media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_library().index([media])
    open_library.close()
    strip_words(open_library.folder)
    with Library.open(open_library.folder) as library:
        if by == "index":
            assert library.index([media]).unchanged == 19
        assert word_names(library, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]
        assert word_names(library, "quay") == ["poem.txt"]
        assert library._parts.words().index.count() == 16 + 1 + 2
    taken: list[int] = []
    take = words_pipeline.Words._take
    monkeypatch.setattr(
        words_pipeline.Words, "_take", lambda *a: taken.append(1) or take(*a)  # type: ignore[func-returns-value]
    )  # fmt: skip
    with Library.open(open_library.folder) as library:
        assert word_names(library, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]
    assert taken == []


@pytest.mark.parametrize("moment", ["replace", "strike", "mark_filled", "clear"])
def test_a_kill_while_words_are_written_is_made_good(
    moment: str, media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_library().index([media])
    open_library.close()
    if moment in ("mark_filled", "clear"):
        strip_words(open_library.folder)
    (media / "camera" / "IMG_0001.jpg").rename(media / "Windmill.jpg")
    owner = RewordedQueue if moment == "strike" else WordIndex

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, moment, die)
        library = Library.open(open_library.folder)
        with pytest.raises(KeyboardInterrupt):
            library.index([media])
        library.close()
    with Library.open(open_library.folder) as library:
        library.index([media])
        assert word_names(library, "windmill lighthouse")[0] == "Windmill.jpg"
        assert word_names(library, "quay") == ["poem.txt"]
        index = library._parts.words().index
        assert index.count() == 16 + 1 + 2
        verify(library)


def test_a_lost_or_damaged_index_only_costs_its_words(
    library: Library, media: Path, open_library: Open
) -> None:
    open_library.close()
    for path in open_library.folder.glob("words.sqlite*"):
        path.unlink()
    (open_library.folder / "words.sqlite").write_bytes(b"no database at all" * 100)
    with Library.open(open_library.folder) as damaged:
        result = damaged.search("lighthouse", rerank=False)
        assert len(result.hits) == 10
        assert by_words(result) == []
        assert "words were not searched" in result.warnings[0]
        assert "delete the file: it is built again" in result.warnings[0]
        assert damaged.search("lighthouse", rerank=False, words=False).warnings == ()
    (open_library.folder / "words.sqlite").unlink()
    with Library.open(open_library.folder) as again:
        assert word_names(again, "lighthouse") == ["IMG_0005.jpg", "IMG_0001.jpg"]


def test_where_nothing_may_be_written_words_are_only_read(
    library: Library, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, catalog = open_library.folder, open_library.folder / "catalog.sqlite"
    open_library.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    words = words_pipeline.Words(folder, catalog, WordIndex(folder / "words.sqlite"))
    hits = words.index.search("lighthouse", limit=9)
    assert len(hits) == 2
    assert words.sync(lambda: pytest.fail("there is nothing to do")) == 0
    with pytest.raises(StoreError, match="readonly"):
        words.index.replace([hits[0].content], [])
    words.close()
    (folder / "words.sqlite").unlink()
    with pytest.raises(StoreError, match="cannot use the word index"):
        words_pipeline.Words(folder, catalog, WordIndex(folder / "words.sqlite"))


def test_the_setting_turns_words_off_and_the_call_decides(media: Path, open_library: Open) -> None:
    library = open_library(search={"lexical": False})
    library.index([media])
    assert word_names(library, "lighthouse") == []
    assert word_names(library, "lighthouse", words=True) == ["IMG_0005.jpg", "IMG_0001.jpg"]


def test_a_second_pass_weighs_the_fused_list(
    still: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = still
    monkeypatch.setitem(library._parts.__dict__, "_reranker", Judge())  # 0.1 for every text
    result = library.search("quay", kind="text", k=10)
    recalled = library.search("quay", kind="text", k=10, rerank=False)
    shares = {hit.id: hit.score for hit in recalled.hits}
    low, high = min(shares.values()), max(shares.values())
    for hit in result.hits:
        stretched = (shares[hit.id] - low) / (high - low)
        assert hit.score == pytest.approx(0.2 * stretched + 0.8 * 0.1)
    assert result.hits[0].lexical_score is not None


def test_without_a_match_by_the_second_pass_the_fused_order_stays(
    media: Path, open_library: Open
) -> None:
    library = open_library(search={"rerank_floor": 0.5})
    library.index([media])
    library._parts.__dict__["_reranker"] = Judge()
    recalled = library.search("quay", kind="text", rerank=False)
    result = library.search("quay", kind="text")
    assert [hit.id for hit in result.hits] == [hit.id for hit in recalled.hits]
    assert "finds no match" in result.warnings[0]


def test_outputs_show_the_word_score(still: Library) -> None:
    library = still
    from secondglance.pipelines import render

    result = library.search("lighthouse keeper", rerank=False, k=30)
    best = by_words(result)[0]
    shown = next(hit for hit in result.to_dict()["hits"] if hit["id"] == best.id)
    assert shown["lexical_score"] == best.lexical_score
    assert f"{best.lexical_score:.2f}" in render.plain_table(result)
    assert "word" in render.plain_table(result)
    assert f"word score {best.lexical_score:.2f}" in render.render(result, "html")
    assert str(best.lexical_score) in render.render(result, "csv")
    without = library.search("lighthouse keeper", rerank=False, words=False)
    assert "word" not in render.plain_table(without)
