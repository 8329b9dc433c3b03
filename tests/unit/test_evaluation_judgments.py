"""Judgments brought together with queries and documents, and captions as queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import judgments
from secondglance.evaluation.judgments import Resolver, described
from secondglance.evaluation.types import EvaluationQuery
from secondglance.types import Query
from tests.queries import queries_file, written


def asked(*ids: str) -> list[EvaluationQuery]:
    return [described(id, Query(text=f"words of {id}")) for id in ids]


# Names of documents.


def resolver() -> Resolver:
    return Resolver(
        [
            ("pictures/0001.jpg", "/data/pictures/0001.jpg", "hash1", "record1", "record2"),
            ("pictures/my photo.jpg", "/data/pictures/my photo.jpg", "/data/copy/other.jpg"),
            ("clips/0001.jpg", "/data/clips/0001.jpg"),
            ("é.jpg", "/data/é.jpg"),
        ]
    )


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("pictures/0001.jpg", "pictures/0001.jpg"),
        ("./pictures//0001.jpg", "pictures/0001.jpg"),
        ("/data/pictures/0001.jpg", "pictures/0001.jpg"),
        ("data/clips/0001.jpg", "clips/0001.jpg"),
        ("hash1", "pictures/0001.jpg"),
        ("record2", "pictures/0001.jpg"),
        ("other.jpg", "pictures/my photo.jpg"),
        ("my%20photo.jpg", "pictures/my photo.jpg"),
        (r"pictures\0001.jpg", "pictures/0001.jpg"),
        ("e\u0301.jpg", "é.jpg"),
        ("0001.jpg", None),
        ("001.jpg", None),
        ("ictures/0001.jpg", None),
        ("", None),
    ],
)
def test_documents_are_found_by_any_name(name: str, id: str | None) -> None:
    assert resolver().resolve(name) == id


def test_names_that_fit_several_are_kept() -> None:
    found = resolver()
    assert [found.resolve(name) for name in ("0001.jpg", "nothing", "other.jpg")] == [
        None,
        None,
        "pictures/my photo.jpg",
    ]
    assert found.ambiguous == {"0001.jpg": ("clips/0001.jpg", "pictures/0001.jpg")}


def test_an_id_goes_before_an_alias_and_that_before_the_end_of_a_path() -> None:
    found = Resolver([("a.jpg",), ("b/a.jpg", "name"), ("c/name", "d/e")])
    assert found.resolve("a.jpg") == "a.jpg"
    assert found.resolve("name") == "b/a.jpg"
    assert found.resolve("e") == "c/name"
    assert found.ambiguous == {}


# Both together.


def test_queries_and_judgments_are_brought_together() -> None:
    qrels = {
        "a": {"0002.jpg": 1, "x/0001.jpg": 0, "gone.jpg": 2, "name.jpg": 1},
        "hopeless": {"0002.jpg": 0},
        "ghost": {"0002.jpg": 1},
    }
    library = Resolver([("x/0001.jpg",), ("x/0002.jpg",), ("x/name.jpg",), ("y/name.jpg",)])
    queries, canonical, warnings = judgments.matched(asked("a", "mute", "hopeless"), qrels, library)
    assert [query.id for query in queries] == ["a", "hopeless"]
    assert canonical == {
        "a": {"x/0002.jpg": 1, "x/0001.jpg": 0, "gone.jpg": 2, "name.jpg": 1},
        "hopeless": {"x/0002.jpg": 0},
    }
    assert warnings == [
        "1 of 4 judged documents are not in the library and count as not found: gone.jpg",
        "1 of 4 judged documents fit several files of the library and count as not found: name.jpg",
        "1 judged queries do not exist: ghost",
        "1 queries without judgments are left out: mute",
        "1 queries have no relevant document and count as 0 everywhere: hopeless",
    ]


def test_unknown_documents_may_be_dropped_and_queries_with_them() -> None:
    qrels = {"a": {"0001.jpg": 1, "gone.jpg": 1}, "b": {"gone.jpg": 1}}
    queries, canonical, warnings = judgments.matched(
        asked("a", "b"), qrels, resolver_of("0001.jpg"), unknown="dropped"
    )
    assert [query.id for query in queries] == ["a"]
    assert canonical == {"a": {"0001.jpg": 1}}
    assert warnings == [
        "1 of 2 judged documents are not in the library and are left out: gone.jpg",
        "1 queries are left out, as none of their judged documents is in the library: b",
    ]


def test_copies_keep_the_higher_grade() -> None:
    library = Resolver([("a.jpg", "copy.jpg")])
    _, canonical, (warning,) = judgments.matched(
        asked("q"), {"q": {"copy.jpg": 2, "a.jpg": 1}}, library
    )
    assert canonical == {"q": {"a.jpg": 2}}
    assert "1 judgments are of a document that is judged under another name" in warning


def test_nothing_in_common_is_an_error_that_shows_both_sides() -> None:
    with pytest.raises(InputError, match=r"none of the 1 queries has judgments: .* q, .* other"):
        judgments.matched(asked("q"), {"other": {"a.jpg": 1}}, resolver_of("a.jpg"))
    message = r"none of the 1 judged documents is in the library: .* b\.jpg, the library's a\.jpg"
    with pytest.raises(InputError, match=message):
        judgments.matched(asked("q"), {"q": {"b.jpg": 1}}, resolver_of("a.jpg"))


def resolver_of(*ids: str) -> Resolver:
    return Resolver([id] for id in ids)


# Captions.

CAPTIONS: list[dict[str, Any]] = [
    {"file": "a.jpg", "captions": ["a dog", "a brown dog on grass"], "lang": "en"},
    {"file": "a.jpg", "captions": ["ein Hund"], "lang": "de"},
    {"file": "a.jpg", "caption": "a dog that runs", "language": "en"},
    {"file": "b.jpg", "captions": ["a cat", "A dog"], "lang": "en"},
    {"file": "c.jpg", "captions": ["a dog"], "lang": "en"},
]


def test_captions_make_queries(tmp_path: Path) -> None:
    queries, qrels, warnings = judgments.caption_queries(queries_file(tmp_path, *CAPTIONS))
    texts = {query.id: query.query.text for query in queries}
    # "a dog" is said of three files, so it asks for none of them.
    assert texts.pop("a.jpg#en") in {"a brown dog on grass", "a dog that runs"}
    assert texts == {"a.jpg#de": "ein Hund", "b.jpg#en": "a cat"}
    assert qrels == {
        "a.jpg#en": {"a.jpg": 1},
        "a.jpg#de": {"a.jpg": 1},
        "b.jpg#en": {"b.jpg": 1},
    }
    assert [query.language for query in queries] == ["en", "de", "en"]
    assert warnings[0] == "1 files have no caption of their own and are not asked for: c.jpg"
    assert "systems that search words find them too easily" in warnings[1]


def test_captions_in_a_csv(tmp_path: Path) -> None:
    text = 'file,caption,caption_zh\na.jpg,"a dog,\n\nrunning",狗\n,no file,\nb.jpg,,\n'
    queries, qrels, warnings = judgments.caption_queries(written(tmp_path / "c.csv", text))
    assert [(query.id, query.query.text) for query in queries] == [("a.jpg", "a dog, running")]
    assert qrels == {"a.jpg": {"a.jpg": 1}}
    assert "2 rows are left out: row 2: no file, row 3: no captions" in warnings[0]


def test_the_choice_of_captions_is_the_seeds(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"file": f"{n}", "captions": [f"{n} {c}" for c in "abcdef"]} for n in range(30)
    ]
    path = queries_file(tmp_path, *rows)
    first = judgments.caption_queries(path, limit=10, seed=1)
    assert len(first[0]) == len(first[1]) == 10
    assert first == judgments.caption_queries(path, limit=10, seed=1)
    other = judgments.caption_queries(path, limit=10, seed=2)
    assert {query.id for query in first[0]} != {query.id for query in other[0]}
    # Which caption a file has does not depend on how many files there are.
    whole = {q.id: q.query.text for q in judgments.caption_queries(path, seed=1)[0]}
    assert all(whole[query.id] == query.query.text for query in first[0])
    assert len({text.split()[1] for text in whole.values()}) > 3


def test_captions_of_files_that_the_library_lacks_are_left_out(tmp_path: Path) -> None:
    path = queries_file(tmp_path, *CAPTIONS)
    queries, _, warnings = judgments.caption_queries(path, resolver=resolver_of("x/b.jpg"))
    # Captions that only missing files share are the file's own again.
    assert [query.id for query in queries] == ["b.jpg#en"]
    assert "2 files" in warnings[0]
    assert "a.jpg, c.jpg" in warnings[0]
    with pytest.raises(InputError, match="none of the 3 files"):
        judgments.caption_queries(path, resolver=resolver_of("z.jpg"))


def test_bad_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gives no queries"):
        judgments.caption_queries(queries_file(tmp_path, "{", "[]", {"file": "a"}))
    with pytest.raises(InputError, match="limit of queries is 0"):
        judgments.caption_queries(queries_file(tmp_path, *CAPTIONS), limit=0)
    with pytest.raises(InputError, match="cannot read"):
        judgments.caption_queries(tmp_path / "no.csv")
