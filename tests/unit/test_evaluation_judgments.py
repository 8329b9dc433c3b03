from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import judgments
from secondglance.evaluation.judgments import Resolver, described
from secondglance.evaluation.types import EvaluationQuery
from secondglance.types import Query


def written(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8", newline="")
    return path


def queries_file(folder: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return written(folder / "queries.jsonl", "\n".join(lines))


def asked(*ids: str) -> list[EvaluationQuery]:
    return [described(id, Query(text=f"words of {id}")) for id in ids]


# Queries.


def test_queries_as_scenes_writes_them(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "1.jpg").touch()
    path = queries_file(
        tmp_path,
        {"id": "picture-000-en", "text": "a red bus", "image": "", "language": "en", "medium": "p"},
        {"id": "picture-000-image", "text": "", "image": "queries/1.jpg", "language": ""},
        "",
    )
    (words, image), warnings = judgments.read_queries(path)
    assert warnings == []
    assert words == EvaluationQuery(
        id="picture-000-en",
        query=Query(text="a red bus"),
        kind="text",
        language="en",
        length="1-3",
    )
    assert (image.kind, image.language, image.length) == ("image", "", "")
    assert image.query == Query(image=tmp_path / "queries" / "1.jpg")


def test_everything_that_a_query_may_have(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    row = {"id": 7, "text": " ein Hund ", "video": "clip.mp4", "not": "Katze", "lang": "de"}
    (query,), _ = judgments.read_queries(queries_file(tmp_path, row | {"instruction": "Find."}))
    assert (query.id, query.kind, query.language) == ("7", "mixed", "de")
    assert query.query == Query(
        text="ein Hund", video=tmp_path / "clip.mp4", not_text="Katze", instruction="Find."
    )


def test_queries_whose_files_are_missing_are_left_out_and_named(tmp_path: Path) -> None:
    path = queries_file(tmp_path, {"id": "a", "image": "no.jpg"}, {"id": "b", "text": "bus"})
    queries, (warning,) = judgments.read_queries(path)
    assert [query.id for query in queries] == ["b"]
    assert "1 queries are left out" in warning
    assert f"a ({tmp_path / 'no.jpg'})" in warning
    with pytest.raises(InputError, match="files of all 1 queries are missing"):
        judgments.read_queries(queries_file(tmp_path, {"id": "a", "image": "no.jpg"}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("3", "line 2: not a JSON object"),
        ({"text": "bus"}, "line 2: no id"),
        ({"id": "", "text": "bus"}, "line 2: no id"),
        ({"id": ["x"], "text": "bus"}, "line 2: the id .* is no text"),
        ({"id": True, "text": "bus"}, "line 2: the id True is no text"),
        ({"id": "x"}, "line 2: neither text, image nor video"),
        ({"id": "x", "not": "bus"}, "neither text, image nor video"),
        ({"id": "x", "text": ["bus"]}, "text is .*, not text"),
        ({"id": "x", "text": "\ud800"}, "half of a surrogate pair"),
        ({"id": "fine", "text": "bus"}, r"1 ids come twice: fine \(lines 1 and 2\)"),
    ],
)
def test_bad_queries_are_named_by_their_lines(tmp_path: Path, row: Any, message: str) -> None:
    path = queries_file(tmp_path, {"id": "fine", "text": "bus"}, row)
    with pytest.raises(InputError, match=message):
        judgments.read_queries(path)


def test_many_bad_lines_are_counted_and_some_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"8 malformed: line 1: .*line 5: .* and 3 more") as error:
        judgments.read_queries(queries_file(tmp_path, *["{"] * 8))
    assert "line 6" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        judgments.read_queries(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="has no queries"):
        judgments.read_queries(queries_file(tmp_path, "", " "))
    (tmp_path / "latin").write_bytes(b"q 0 caf\xe9 1\n")
    for read in (judgments.read_queries, judgments.read_qrels, judgments.read_run):
        with pytest.raises(InputError, match="is not UTF-8"):
            read(tmp_path / "latin")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("红色的公共汽车", "zh"),
        ("iPhone 手机", "zh"),
        ("赤いバス", "ja"),
        ("バス", "ja"),
        ("빨간 버스", "ko"),
        ("รถบัสสีแดง", "th"),
        ("κόκκινο λεωφορείο", "el"),
        ("a red bus", ""),
        ("красный автобус", ""),
        ("حافلة حمراء", ""),
        ("α-particle", ""),
        ("", ""),
    ],
)
def test_language_is_guessed_where_the_script_tells(text: str, language: str) -> None:
    assert judgments.guessed_language(text) == language


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("", ""),
        ("...!", ""),
        ("bus", "1-3"),
        ("a red bus", "1-3"),
        ("a red bus - here!", "4-8"),
        ("it isn't a well-known bus, or so it's", "4-8"),
        ("one two three four five six seven eight nine", "9+"),
        ("红色的公车", "1-3"),
        ("红色的公共汽车", "4-8"),
        ("빨간 버스", "1-3"),
        ("हिन्दी में लाल बस", "4-8"),
    ],
)
def test_length_in_words(text: str, length: str) -> None:
    assert judgments.length_class(text) == length


# Judgments and runs.

ODD = ["a b.jpg", "100%.jpg", "50%20off.jpg", "tab\tname", "new\nline", "全角　空白.jpg", "né.png",
       "bad\udcff.jpg", "nb\xa0sp", "line\u2028sep", "q#1", "\x1c", " x "]  # fmt: skip


def test_what_is_written_is_read_for_any_id(tmp_path: Path) -> None:
    qrels = {id: {other: place - 1 for place, other in enumerate(ODD)} for id in ODD}
    judgments.write_qrels(tmp_path / "qrels", qrels)
    assert judgments.read_qrels(tmp_path / "qrels") == (qrels, [])
    run = {id: {other: 1 / (place + 3) for place, other in enumerate(ODD)} for id in ODD}
    judgments.write_run(tmp_path / "run", run, "my system")
    assert judgments.read_run(tmp_path / "run") == (run, [])
    first = (tmp_path / "run").read_text("utf-8").split("\n")[0].split(" ")
    assert first[:4] == ["a%20b.jpg", "Q0", "a%20b.jpg", "1"]
    assert first[5] == "my%20system"


def test_a_run_is_written_the_best_first(tmp_path: Path) -> None:
    judgments.write_run(tmp_path / "run", {"q": {"a": 0.5, "b": 2, "c": 0.5}}, "x")
    assert (tmp_path / "run").read_text() == "q Q0 b 1 2 x\nq Q0 a 2 0.5 x\nq Q0 c 3 0.5 x\n"


def test_qrels_in_the_ways_people_write_them(tmp_path: Path) -> None:
    text = "\ufeffq1 0 a 1\r\n\r\nq1\t0\tmy photo 50%20.jpg\t2\n q2   0\t b%20c -1 \n"
    qrels, warnings = judgments.read_qrels(written(tmp_path / "qrels", text))
    assert qrels == {"q1": {"a": 1, "my photo 50%20.jpg": 2}, "q2": {"b c": -1}}
    assert warnings == []


def test_same_judgment_twice_is_warned_of(tmp_path: Path) -> None:
    qrels, warnings = judgments.read_qrels(written(tmp_path / "q", "q 0 a 1\nq 0 a 1\nq 0 a 1\n"))
    assert qrels == {"q": {"a": 1}}
    assert warnings == [f"{tmp_path / 'q'}: 2 judged twice, counted once: q a, q a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q 0 a 1\nq 0 a 2\n", r"1 judged twice, with different grades: q a \(1 and 2\)"),
        ("q 0 a 1\nq a 1\n", "1 malformed: line 2 has 3 columns"),
        (
            "q 0 my photo.jpg 1\n",
            "line 1 has 5 columns.*separate the columns by tabs, or write %20",
        ),
        ("q 0 a yes\n", "line 1 has the grade 'yes'"),
        ("q 0 a 0.5\n", "line 1 has the grade '0.5'"),
        ("q 0 a 99999999999999999999\n", "line 1 has the grade"),
        ("q 0 a 1001\n", "at most 1000"),
        ("\n", "has no judgments"),
    ],
)
def test_bad_qrels(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judgments.read_qrels(written(tmp_path / "qrels", text))


def test_a_run_as_systems_write_it(tmp_path: Path) -> None:
    text = "q\tQ0\ta\t414\t  1.72\tSTANDARD more junk\nq Q0 b 0 2e0 x and more\n"
    run, warnings = judgments.read_run(written(tmp_path / "run", text))
    assert (run, warnings) == ({"q": {"a": 1.72, "b": 2.0}}, [])


def test_ties_of_a_run_are_warned_of(tmp_path: Path) -> None:
    text = "q Q0 a 1 1 x\nq Q0 b 2 1 x\nr Q0 a 1 1 x\n"
    _, (warning,) = judgments.read_run(written(tmp_path / "run", text))
    assert "1 queries have results with the same score" in warning
    assert warning.endswith(": q")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 0.5\n", "line 1 has 5 columns"),
        ("q Q0 a 1 high x\n", "line 1 has the score 'high'"),
        ("q Q0 a 1 nan x\n", "line 1 has the score 'nan'"),
        ("q Q0 my photo.jpg 1 0.5 x\n", "line 1 has the rank 'photo.jpg'"),
        ("q Q0 a 1 2 x\nq Q0 a 2 1 x\n", "1 ranked twice: q a"),
        ("", "has no results"),
    ],
)
def test_bad_runs(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        judgments.read_run(written(tmp_path / "run", text))


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
