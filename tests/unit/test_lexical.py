"""The word index by itself: what it finds, in which order, and what it lets go of."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.errors import StoreError
from secondglance.retrieve import lexical
from secondglance.retrieve.fusion import reciprocal_ranks, shared_ranks
from secondglance.retrieve.lexical import Document, WordIndex
from secondglance.types import Kind


@pytest.fixture
def index(tmp_path: Path) -> Iterator[WordIndex]:
    index = WordIndex(tmp_path / "words.sqlite")
    yield index
    index.close()


def write(index: WordIndex, *texts: str, kind: Kind = "image") -> None:
    """Documents c0, c1 ... with these captions, and others enough that no word is common."""
    documents = [
        Document(content=f"c{i}", record=f"r{i}", kind=kind, text=text)
        for i, text in enumerate(texts)
    ]
    filler = [
        Document(content=f"f{i}", record=f"f{i}", kind="text", text=f"filler{'abcdefghi'[i]}")
        for i in range(9)
    ]
    documents += filler
    index.replace([d.content for d in documents], documents)


def found(index: WordIndex, query: str, **options: object) -> list[str]:
    hits = index.search(query, limit=100, **options)  # type: ignore[arg-type]
    return [hit.content for hit in hits]


def test_scores_are_bm25_by_value(index: WordIndex) -> None:
    write(index, "a red dog", "a blue car and a dog", "a house")
    [first, second] = index.search("dog", limit=10)
    count, holders = 12, 2
    idf = math.log((count - holders + 0.5) / (holders + 0.5))
    mean = (3 + 6 + 2 + 9 * 1) / count

    def bm25(length: int) -> float:
        return idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * length / mean))

    assert (first.content, second.content) == ("c0", "c1")
    assert first.score == pytest.approx(bm25(3))
    assert second.score == pytest.approx(bm25(6))
    assert (first.record, first.kind) == ("r0", "image")


def test_the_share_is_how_much_of_the_query_is_there(index: WordIndex) -> None:
    write(index, "green", "blue", "green blue")
    [both] = index.search('"green blue"', limit=1)
    assert both.share == 1
    # "zebra" stands nowhere and weighs most.
    [one, *_] = index.search("blue zebra", limit=10)
    weights = [math.log((12 - n + 0.5) / (n + 0.5)) for n in (2, 0)]
    assert one.share == pytest.approx(one.score / sum(weights))
    assert one.share < 0.4


def test_any_word_will_do_and_more_are_better(index: WordIndex) -> None:
    write(index, "red dog", "red dog beach", "beach house", "cat")
    hits = found(index, "a dog on the beach")
    assert hits[0] == "c1"
    assert set(hits) == {"c0", "c1", "c2"}
    assert found(index, "zebra") == []
    assert found(index, "") == []
    assert found(index, "?!") == []


@pytest.mark.parametrize(
    ("caption", "query"),
    [
        ("Two dogs are running", "dog runs"),
        ("Das Haus am See", "HAUS"),
        ("Grüne Häuser", "grune hauser"),
        ("Ein Fußgängerweg", "FUSSGÄNGERWEG"),
        ("两只狗在海滩上奔跑", "海滩"),
        ("两只狗在海滩上奔跑", "狗"),
        ("ビーチパーティーの写真", "パーティー"),
        ("走る犬と海", "犬"),
        ("해변에서 뛰는 개", "해변"),
        ("كَلْبٌ عَلَى الشَّاطِئ", "كلب"),
        ("समुद्र तट पर कुत्ता", "कुत्ता"),
        ("สุนัขบนชายหาด", "ชายหาด"),
        ("ສັດລ້ຽງ", "ສັດ"),
        ("собака на пляже", "Собака"),
    ],
)
def test_words_are_found_in_any_language(index: WordIndex, caption: str, query: str) -> None:
    write(index, "something else", caption, "无关", "むかんけい", "관계없는")
    assert found(index, query)[0] == "c1"


def test_german_compounds_are_one_word(index: WordIndex) -> None:
    write(index, "Strandkorb")
    assert found(index, "Strand") == []


def test_names_are_split_and_weigh_less_than_captions(index: WordIndex) -> None:
    documents = [
        Document(content="text", record="1", kind="image", text="beach party"),
        Document(content="name", record="2", kind="image", name="IMG_2041_BeachParty"),
        Document(content="folder", record="3", kind="image", folder="beach party"),
        *(Document(content=f"f{i}", record=f"f{i}", kind="image", text="x y") for i in range(9)),
    ]
    index.replace([], documents)
    assert set(found(index, "beach party")) == {"text", "name", "folder"}
    assert found(index, "beachparty") == ["name"]
    assert found(index, "2041") == ["name"]
    same = [
        Document(content=column, record=column, kind="image", **{column: "lake"})
        for column in ("folder", "name", "text")
    ]
    index.replace([], same)
    assert found(index, "lake") == ["text", "name", "folder"]


def test_quotes_ask_for_words_side_by_side(index: WordIndex) -> None:
    write(
        index, "beach red party", "a beach party", "a party on the beach", "海滩派对", "派对在海滩"
    )
    assert set(found(index, "beach party")) == {"c0", "c1", "c2"}
    for query in ('"beach party"', "“beach party”", "«Beach Parties»"):
        assert found(index, query) == ["c1"]
    assert found(index, '"海滩派对"') == ["c3"]
    assert found(index, 'red "on the beach"') == ["c2"]
    assert set(found(index, '5" beach')) == {"c0", "c1", "c2"}  # a lone quote is nothing


@pytest.mark.parametrize(
    "query",
    ['" OR *', '*', "dog NOT cat", "NEAR(dog cat, 5)", "text:dog", "{text name}: dog", "^dog",
     "dog*", "- dog", "(dog", '"dog', "dog\"; DROP TABLE words; --", "dog\x00", "' OR 1=1 --"],
)  # fmt: skip
def test_a_query_is_words_and_never_syntax(index: WordIndex, query: str) -> None:
    write(index, "dog", "cat", "dogma", "or", "near", "drop table")
    hits = set(found(index, query))
    assert ("c0" in hits) == ("dog" in query)
    assert "c2" not in hits  # "dog*" is no prefix
    assert ("c1" in hits) == ("cat" in query)  # "NOT cat" takes nothing away
    assert index.count() == 15


def test_common_words_say_nothing_unless_they_are_all_there_is(index: WordIndex) -> None:
    texts = [f"the photo of {word}" for word in ("dog", "cat", "cow", "hen", "pig")] * 4
    write(index, *texts)
    assert len(found(index, "photo of the dog")) == 4
    everywhere = index.search("the photo", limit=100)
    assert len(everywhere) == 20
    assert all(0 < hit.score < 1e-5 for hit in everywhere)
    unknown = index.search("the photo of a zebra", limit=100)
    assert all(hit.share < 1e-5 for hit in unknown)


def test_of_a_large_library_only_the_telling_words_are_asked_for(
    index: WordIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(index, *["dog"] * 6, "dog owl", "owl", *["cat"] * 6)
    assert len(found(index, "owl dog")) == 8
    monkeypatch.setattr(lexical, "MAX_MATCHES", 8)
    assert found(index, "owl dog") == ["c7", "c6"]
    hits = index.search("owl dog", limit=9)
    assert hits[0].share == 1
    assert len(found(index, "dog")) == 7


def test_kinds_and_unwanted_words(index: WordIndex) -> None:
    write(index, "dog beach", "dog city", "dog")
    assert found(index, "dog", kind="text") == []
    assert len(found(index, "dog", kind="image")) == 3
    assert set(found(index, "dog", without="the beach")) == {"c1", "c2"}


def test_documents_are_replaced_and_removed(index: WordIndex) -> None:
    write(index, "dog", "cat")
    index.replace(["c0"], [Document(content="c0", record="r0", kind="image", text="horse")])
    assert found(index, "dog") == []
    assert found(index, "horse") == ["c0"]
    assert index.count() == 11
    index.replace(["c0", "unknown"], [])
    assert found(index, "horse") == []
    assert index.count() == 10
    passages = [Document(content="c9", record=f"p{i}", kind="text", text="sea") for i in range(3)]
    index.replace(["c9"], passages)
    index.replace(["c9"], passages)
    assert [hit.record for hit in index.search("sea", limit=9)] == ["p0", "p1", "p2"]
    index.replace(["c9"], passages[:1])
    assert index.count() == 11


def test_a_failed_write_changes_nothing(index: WordIndex) -> None:
    write(index, "dog")

    def killed() -> None:
        with index.writing():
            index.replace(["c0"], [])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert found(index, "dog") == ["c0"]


def test_threads_and_other_connections_see_what_is_written(index: WordIndex) -> None:
    write(index, "dog")
    other = WordIndex(index._path)
    assert other.count() == 10
    threads = [
        threading.Thread(
            target=index.replace,
            args=([f"t{i}"], [Document(content=f"t{i}", record=f"t{i}", kind="image", text="sea")]),
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.count() == index.count() == 18
    assert len(found(other, "sea")) == 8
    other.close()


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "words.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match=r"words\.sqlite.*delete the file: it is built again"):
        WordIndex(path)
    with pytest.raises(StoreError, match="word index"):
        WordIndex(tmp_path / "none" / "words.sqlite")


def test_it_is_filled_once_and_again_for_another_version(index: WordIndex) -> None:
    assert not index.is_filled()
    write(index, "dog")
    index.mark_filled()
    assert index.is_filled()
    with sqlite3.connect(index._path) as db:
        db.execute("UPDATE meta SET value = 0")
    db.close()
    assert not index.is_filled()
    index.clear()
    assert index.count() == 0
    assert found(index, "dog") == []


def test_reciprocal_ranks_by_value() -> None:
    scores = reciprocal_ranks([1, 2, None, 100], [1, None, 2, 1], weights=[1, 0, 1, 0.5])
    raw = [1 / 61 + 1 / 61, 1 / 62, 1 / 62, 1 / 160 + 0.5 / 61]
    assert scores == pytest.approx([61 / 2 * value for value in raw])
    assert scores[0] == 1
    assert reciprocal_ranks([], [], weights=[]) == []


def test_equal_scores_share_a_rank() -> None:
    assert shared_ranks([9.0, 5.0, 5.0, 5.0 * (1 - 1e-12), 1.0]) == [1, 2, 2, 2, 5]
    assert shared_ranks([]) == []
