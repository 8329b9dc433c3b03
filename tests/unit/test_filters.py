from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from secondglance.errors import InputError
from secondglance.retrieve.fields import FIELDS
from secondglance.retrieve.filter_compilers import milvus_literal, to_milvus, to_sql
from secondglance.retrieve.filters import (
    And,
    Compare,
    In,
    Like,
    Not,
    Or,
    and_,
    compare,
    has,
    is_in,
    kind_is,
    like,
    parse_filter,
)
from secondglance.types import join_tags, split_tags


def posix(*parts: int) -> float:
    return datetime(*parts, tzinfo=timezone.utc).timestamp()  # type: ignore[misc,arg-type]


def test_the_example_of_the_guide() -> None:
    parsed = parse_filter('kind == "video" and taken >= 2024-01-01 and path like "holiday/%"')
    assert parsed == And(
        (
            Compare("kind", "==", "video"),
            Compare("taken", ">=", posix(2024, 1, 1)),
            Like("path", "holiday/%"),
        )
    )
    assert parsed.matches({"kind": "video", "taken": posix(2024, 5, 5), "path": "holiday/a.mp4"})
    assert not parsed.matches({"kind": "video", "taken": posix(2023, 5, 5), "path": "holiday/a"})


def test_precedence_parentheses_and_case() -> None:
    a, b, c = (Compare("size", "==", float(n)) for n in (1, 2, 3))
    assert parse_filter("size==1 or size==2 AND size==3") == Or((a, And((b, c))))
    assert parse_filter("(size==1 Or size==2) and size==3") == And((Or((a, b)), c))
    assert parse_filter("NOT size==1 and size==2") == And((Not(a), b))
    assert parse_filter("not (size==1 and size==2)") == Not(And((a, b)))
    assert parse_filter("\n((size\t==1))  ") == a


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("width in (1, 2)", In("width", (1.0, 2.0))),
        ("width in [1,2,]", In("width", (1.0, 2.0))),
        ("width not in (1)", In("width", (1.0,), negated=True)),
        ("kind in ('image', \"text\")", In("kind", ("image", "text"))),
        ("name NOT LIKE 'a_'", Like("name", "a_", negated=True)),
        ("size > -1.5e3", Compare("size", ">", -1500.0)),
        ("size > .5", Compare("size", ">", 0.5)),
    ],
)
def test_forms(text: str, parsed: object) -> None:
    assert parse_filter(text) == parsed


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"a\"b"', 'a"b'),
        (r"'it\'s'", "it's"),
        ('"it\'s"', "it's"),
        (r'"back\\slash"', "back\\slash"),
        (r'"line\nbreak\ttab\r"', "line\nbreak\ttab\r"),
        (r'"50\%"', r"50\%"),
        ('"東京 😀 (and) or"', "東京 😀 (and) or"),
        ('""', ""),
    ],
)
def test_strings(literal: str, value: str) -> None:
    assert parse_filter(f"path == {literal}") == Compare("path", "==", value)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("2024-02-29", posix(2024, 2, 29)),
        ('"2024-02-29"', posix(2024, 2, 29)),
        ("2024-01-01T10:00", posix(2024, 1, 1, 10)),
        ("2024-01-01T10:00:30", posix(2024, 1, 1, 10, 0, 30)),
        ("2024-01-01T10:00:30.25Z", posix(2024, 1, 1, 10, 0, 30) + 0.25),
        ("2024-01-01T10:00+02:00", posix(2024, 1, 1, 8)),
        ("2024-01-01T10:00-0130", posix(2024, 1, 1, 11, 30)),
        ('"2024-01-01 10:00"', posix(2024, 1, 1, 10)),
        ("1969-12-31", -86_400.0),
        ("1700000000.5", 1_700_000_000.5),
    ],
)
def test_times(literal: str, value: float) -> None:
    assert parse_filter(f"taken < {literal}") == Compare("taken", "<", value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ('kind = "video"', "character 6.*=="),
        ('kind == "video" && size > 1', "'&'.*write and"),
        ('kind == "video', "close the quote"),
        ('(kind == "video"', r"the end.*expected \)"),
        ('kind == "video")', r"'\)'.*character 16"),
        ("kind", "the end.*comparison"),
        ("size >", "the end.*a number"),
        ("== 3", "expected.*a field"),
        ("size in ()", r"'\)'"),
        ("size in 3", "'3'"),
        ('colour == "red"', "'colour'.*kind, path"),
        ("hieght > 3", "'hieght'; did you mean 'height'"),
        ('caption == "x"', "'caption'; did you mean 'text'"),
        ("ISO > 100", "did you mean 'iso_speed'"),
        ('tags == "beach"', 'tags has "beach"'),
        ('tags in ("beach")', 'tags has "beach"'),
        ('tags like "b%"', 'tags has "beach"'),
        ('path has "beach"', "'path' is a string"),
        ('tags has " "', "is empty"),
        ("tags has 3", "expected a string"),
        ("kind > 3", "'kind' is a string"),
        ('kind == "vdeo"', "'vdeo'.*image, video, text"),
        ('kind in ("image", "vdeo")', "'vdeo'"),
        ('size > "3"', "'size' is a number"),
        ("size in (1, 'x')", "'size' is a number.*'x'"),
        ("size > 2024-01-01", "'size'.*2024-01-01"),
        ("size > 1e999", "finite"),
        ("taken > 2024", "2024.*2024-01-31"),
        ("taken > 2024-02-30", "'2024-02-30'"),
        ("taken > 2024-1-1", "'2024-1-1'"),
        ("taken > 2024-01-01T25:00", "T25:00"),
        ("taken > 2024-01-01T10:00:61", "10:00:61"),
        ('taken > "yesterday"', "'yesterday'"),
        ('width like "1%"', "string field"),
        (r'path == "C:\dir"', r"unknown escape \\d"),
        (r'path like "a\\"', "lone backslash"),
        ("not " * 100 + "size > 1", "nested"),
        (" or ".join(["size == 1"] * 500), "500 conditions"),
        (f"size in ({','.join('1' * 3000)})", "3000 values"),
        ('path == "' + "x" * 30_000 + '"', "characters"),
    ],
)
def test_errors_say_what_and_where(text: str, says: str) -> None:
    with pytest.raises(InputError, match=f"(?s){says}"):
        parse_filter(text)


def test_deep_parentheses_are_harmless() -> None:
    assert parse_filter("(" * 3000 + "size > 1" + ")" * 3000) == Compare("size", ">", 1.0)


def test_tags() -> None:
    payload = {"tags": join_tags(["Summer beach", "É", "summer BEACH", "a|b", " ", "x_y"])}
    assert payload["tags"] == "|Summer beach|É|a/b|x_y|"
    assert split_tags(payload["tags"]) == ["Summer beach", "É", "a/b", "x_y"]
    for tag in ("summer beach", "e\u0301", "A|B", "a/b", " Summer   Beach ", "x_y"):
        assert has("tags", tag).matches(payload), tag
    for tag in ("beach", "summer", "x%", "xzy", "a"):
        assert not has("tags", tag).matches(payload), tag
    assert parse_filter('tags HAS "É" and not tags has "sea"').matches(payload)
    assert not has("tags", "beach").matches({})
    assert join_tags([]) == join_tags(["|", " "][1:]) == ""


def test_fields_of_a_filter() -> None:
    parsed = parse_filter(
        '(kind == "image" or not size in (1, 2)) and tags has "x" and iso_speed > 3'
    )
    assert parsed.fields() == {"kind", "size", "tags", "iso_speed"}


def test_like() -> None:
    def hit(pattern: str, value: str) -> bool:
        return like("path", pattern).matches({"path": value})

    assert hit("a%", "abc")
    assert hit("a%", "a")
    assert hit("%b%", "a\nb\nc")
    assert hit("a_c", "a😀c")
    assert not hit("a_c", "ac")
    assert not hit("A%", "abc")
    assert not hit("b", "abc")
    assert hit("50\\%", "50%")
    assert not hit("50\\%", "50x")
    assert hit("a\\\\b", "a\\b")
    assert hit("[a-z].*", "[a-z].*")
    assert not hit("[a-z]", "q")


@pytest.mark.parametrize("field", [name for name, kind in FIELDS.items() if kind != "tags"])
def test_missing_keys(field: str) -> None:
    value: Any = "image" if FIELDS[field] == "string" else 0.0
    for op in ("==", "!=", "<", "<=", ">", ">="):
        assert not compare(field, op, value).matches({})
    assert not is_in(field, [value]).matches({})
    assert not is_in(field, [value], negated=True).matches({})
    assert Not(is_in(field, [value])).matches({})
    assert Not(compare(field, "!=", value)).matches({"other": 1})


def test_building_in_code() -> None:
    video = kind_is("video")
    assert video == Compare("kind", "==", "video")
    assert kind_is("image", "text") == In("kind", ("image", "text"))
    assert and_(None, None) is None
    assert and_(video, None) == video
    assert and_(video, parse_filter("size > 1")) == And((video, Compare("size", ">", 1.0)))
    bad: Any = "="
    calls: list[Callable[[], object]] = [
        lambda: kind_is("vdeo"),
        lambda: kind_is(),
        lambda: compare("nothing", "==", 1),
        lambda: compare("size", bad, 1),
        lambda: compare("size", "==", float("nan")),
        lambda: is_in("size", []),
        lambda: like("size", "1"),
        lambda: like("path", "\\"),
    ]
    for call in calls:
        with pytest.raises(InputError):
            call()


def test_sql_is_two_valued_and_parametrised() -> None:
    text = '" OR 1 = 1 --'
    sql, values = to_sql(And((compare("path", "==", text), Not(compare("size", ">", 3)))))
    assert values == [text, 3.0]
    assert text not in sql
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (path TEXT, size REAL)")
    database.executemany("INSERT INTO t VALUES (?, ?)", [(text, None), (None, None), (text, 5)])
    assert database.execute(f"SELECT {sql} FROM t", values).fetchall() == [(1,), (0,), (0,)]
    database.close()


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("plain", '"plain"'),
        ('" or true or "', '"\\" or true or \\""'),
        ('\\" or true', '"\\\\\\" or true"'),
        ("tail\\", '"tail\\\\"'),
        ("a\nb\r\t", '"a\\nb\\r\\t"'),
        ("{x} 😀 %", '"{x} 😀 %"'),
        (3.0, "3.0"),
        (-1.5e-7, "-1.5e-07"),
    ],
)
def test_milvus_literals(value: str | float, literal: str) -> None:
    assert milvus_literal(value) == literal


@pytest.mark.parametrize("text", ['" or id != "', "\\", '\\"', '\\\\"', "a\nb", "\u2028", "'"])
def test_milvus_text_stays_one_literal(text: str) -> None:
    """Read back by the rules of the server's grammar, a literal ends where it was closed."""
    literal = milvus_literal(text)
    position, read = 1, ""
    names = {"n": "\n", "r": "\r", "t": "\t"}
    while literal[position] != '"':
        if literal[position] == "\\":
            position += 1
            read += names.get(literal[position], literal[position])
        else:
            assert literal[position] not in "\r\n"
            read += literal[position]
        position += 1
    assert position == len(literal) - 1
    assert read == text


def test_milvus_expressions() -> None:
    assert to_milvus(parse_filter('kind == "video" and not size in (1, 2)')) == (
        '((has_kind == true and (kind == "video"))'
        " and (not (has_size == true and (size in [1.0, 2.0]))))"
    )
    assert to_milvus(like("path", "a\\_b%")) == ('(has_path == true and ((path like "a\\\\_b%")))')
    assert to_milvus(like("path", "ab")) == '(has_path == true and ((path == "ab")))'
