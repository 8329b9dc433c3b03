"""Queries as people write them, and what tables are broken down by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.evaluation import judgments
from secondglance.evaluation.types import EvaluationQuery
from secondglance.types import Query
from tests.queries import queries_file


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
