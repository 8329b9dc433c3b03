"""Filters and odd strings in every store; `Filter.matches` is the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from secondglance.retrieve.fields import FIELDS
from secondglance.retrieve.filters import (
    And,
    Filter,
    Not,
    Operator,
    Or,
    compare,
    has,
    is_in,
    like,
    parse_filter,
)
from secondglance.retrieve.store import Store
from secondglance.types import Record
from tests.contract.stores import ODD_STRINGS, assert_same, expected, records, unit_vectors

T = TypeVar("T")

OPERATORS: tuple[Operator, ...] = ("==", "!=", "<", "<=", ">", ">=")
EXPRESSIONS = [
    'kind == "video"',
    'kind != "video"',
    'kind in ("video", "text")',
    'kind not in ["video"]',
    'not kind == "video"',
    'path like "folder1/%"',
    'path like "%.jpg"',
    'path like "%img_1_.jpg"',
    'path like "%img\\_1%"',
    'path not like "folder1/%"',
    'path like "FOLDER1/%"',
    'path like "%1%2%"',
    'path like "%"',
    'path like "folder_/img_5.jpg"',
    'path < "folder2" and path >= "folder1"',
    "taken >= 2023-11-20 and taken < 2023-12-25T12:00",
    "taken == 1700086400.5",
    "taken != 1700086400.5",
    "not taken > 2023-12-01",
    "not (not taken > 2023-12-01)",
    "size > 1000",
    "size <= 1.25e3",
    "size in (1, 8, 27, 64.0)",
    "not (size in (1, 8, 27))",
    "size not in (1, 8, 27)",
    "size > -5 and not size == 8",
    "width == 0 or width == 300",
    "start_s >= 3 and end_s < 20.5",
    "duration_s > 0",
    "duration_s != 0",
    "not duration_s != 0",
    'text == ""',
    'text != ""',
    'name like "IMG%" and not (kind == "image" or taken > 2024-01-01)',
    '(kind == "image" and size > 100) or (kind == "video" and not width > 900)',
    'root == "x" or modified > 2000-01-01',
    'tags has "beach"',
    'tags has "BEACH" and not tags has "sea"',
    'not tags has "beach"',
    'tags has "chair"',
    'tags has "été"',
    'tags has "E\u0301te\u0301"',
    "tags has '50%_off'",
    'tags has "5%"',
    'tags has "snow ☃ 東京"',
    r'tags has "back\\slash" or tags has "*[A]"',
    "tags has 'quote \" or'",
    'camera == "Canon EOS R5" and iso_speed <= 3200',
    'camera like "%iPhone%" or lens like "RF1_mm"',
    'camera like "%"',
    'not camera like "%"',
    'camera != "Canon EOS R5"',
    r'camera == "50%_off \\ *[x]"',
    'codec == ""',
    'codec not in ("", " ")',
    "rating >= 3",
    "rating == 0 or rating < 0",
    "not rating >= 3",
    "lat > 47.5 and lon < 8",
    "lat > -91",
    "not lat > -91",
    "altitude_m < 0",
    "near(47.5, 8.1, 20)",
    "not near(47.5, 8.1, 20)",
    "near(47.5, 8.1, 20) and near(47.6, 8, 10) and tags has 'beach'",
    "near(89.9, 0, 20000)",
    "f_number in (1.4, 2.8) and exposure_s < 0.1",
    "focal_mm > 50 and fps == 29.97",
    "fps != 29.97",
    'format == "jpeg" and kind == "image"',
]


def each(store: Store, check: Callable[[T], None], of: Iterable[T]) -> None:
    """Checks all, on a server several at a time: it spends most of a search waiting for a tick."""
    with ThreadPoolExecutor(8 if store.capabilities.remote else 1) as pool:
        for _ in pool.map(check, of):
            pass


def test_filters_agree_with_matches(store: Store) -> None:
    written = records(120)
    store.upsert(written)
    query = unit_vectors(1, seed=5)[0]

    def check(text: str) -> None:
        filter = parse_filter(text)
        keeps = sum(filter.matches(r.payload) for r in written)
        assert store.count(filter=filter) == keeps, text
        assert_same(
            store.search(query, limit=200, filter=filter), expected(written, query, 200, filter)
        )
        assert_same(
            store.search(query, limit=3, filter=filter), expected(written, query, 3, filter)
        )

    each(store, check, EXPRESSIONS)


PAYLOADS = [record.payload for record in records(60)]


def random_filter(random: np.random.Generator, depth: int = 0) -> Filter:
    """Any tree of conditions whose values occur in `payload_of`."""
    parts = tuple(random_filter(random, depth + 1) for _ in range(2)) if depth < 4 else ()
    choice = random.integers(6 if parts else 3)
    if choice == 3:
        return Not(parts[0])
    if choice > 3:
        return And(parts) if choice == 4 else Or(parts)
    field = str(random.choice(list(FIELDS)))
    found = [payload[field] for payload in PAYLOADS if field in payload]
    if FIELDS[field] == "tags":
        return has(field, str(random.choice(["beach", "SEA", "50%_off", "none"])))
    value = found[random.integers(len(found))] if found else 1.0
    if FIELDS[field] == "string" and not found:
        value = "x"
    if choice == 0:
        return compare(field, OPERATORS[random.integers(6)], value)
    if choice == 1 or FIELDS[field] != "string":
        return is_in(field, [value, *found[:2]], negated=bool(random.integers(2)))
    pattern = str(value).replace("\\", "\\\\")[: random.integers(1, 9)].rstrip("\\") + "%"
    return like(field, pattern, negated=bool(random.integers(2)))


def test_random_filters_agree_with_matches(store: Store) -> None:
    written = records(60)
    store.upsert(written)
    random = np.random.default_rng(0)
    query = unit_vectors(1, seed=5)[0]

    def check(condition: Filter) -> None:
        keeps = [r.id for r in written if condition.matches(r.payload)]
        found = store.search(query, limit=100, filter=condition)
        assert sorted(m.id for m in found) == keeps, condition

    each(store, check, [random_filter(random) for _ in range(80)])


def test_missing_keys_are_false_on_both_sides(store: Store) -> None:
    store.upsert([Record(id="bare", vector=unit_vectors(1)[0], payload={})])

    def check(field: str) -> None:
        kind = FIELDS[field]
        if kind == "tags":
            assert store.count(filter=has(field, "x")) == 0
            assert store.count(filter=Not(has(field, "x"))) == 1
            return
        empty = "image" if field == "kind" else ""
        value: str | float = empty if kind == "string" else 0.0
        for op in OPERATORS:
            leaf = compare(field, op, value)
            assert store.count(filter=leaf) == 0, (field, op)
        assert store.count(filter=is_in(field, [value])) == 0
        assert store.count(filter=is_in(field, [value], negated=True)) == 0
        if kind == "string":
            assert store.count(filter=like(field, "%")) == 0
            assert store.count(filter=like(field, "x", negated=True)) == 0

    each(store, check, FIELDS)
    assert store.count(filter=parse_filter('not path == "a"')) == 1
    assert store.get(["bare"])[0].payload == {}


def test_odd_strings_are_values_and_nothing_else(store: Store) -> None:
    vectors = unit_vectors(len(ODD_STRINGS))
    written = [
        Record(id=f"o{i:02d}", vector=vectors[i], payload={"path": odd, "text": odd, odd: odd})
        for i, odd in enumerate(ODD_STRINGS)
    ]
    store.upsert(written)
    assert [r.payload for r in store.get([r.id for r in written])] == [r.payload for r in written]

    def check(odd: str) -> None:
        escaped = odd.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        filters = [
            compare("path", "==", odd),
            compare("path", "!=", odd),
            compare("text", "<", odd),
            is_in("path", [odd, "other"]),
            is_in("path", [odd, "other"], negated=True),
            *(
                like("path", pattern, negated=negated)
                for pattern in (
                    escaped,
                    f"{escaped}%",
                    f"%{escaped}",
                    f"%{escaped}%",
                    f"%{escaped}%{escaped}",
                    f"{escaped}_%",
                )
                for negated in (False, True)
            ),
        ]
        for filter in filters:
            keeps = [r.id for r in written if filter.matches(r.payload)]
            found = store.search(vectors[0], limit=100, filter=filter)
            assert sorted(m.id for m in found) == keeps, filter

    each(store, check, ODD_STRINGS)


def test_odd_ids(store: Store) -> None:
    names = [s for s in ODD_STRINGS if s and "\x00" not in s and "\udcff" not in s]
    vectors = unit_vectors(len(names))
    store.upsert([Record(id=n, vector=v, payload={}) for n, v in zip(names, vectors, strict=True)])
    assert [r.id for r in store.get(names)] == names
    store.delete(names[::2])
    assert [r.id for r in store.get(names)] == names[1::2]
    assert store.count() == len(names[1::2])
