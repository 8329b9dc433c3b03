"""Filters for servers that know few `like` patterns, asked of Milvus Lite, which knows all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from secondglance.retrieve import milvus_filters
from secondglance.retrieve.filters import parse_filter
from secondglance.retrieve.milvus_store import MilvusStore
from tests.contract.stores import DIM, assert_same, expected, records, unit_vectors
from tests.contract.test_store_filters import EXPRESSIONS, random_filter

WRITTEN = records(120)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusStore]:
    store = MilvusStore(tmp_path_factory.mktemp("old") / "vectors.db", dim=DIM)
    store._patterns = False
    store.upsert(WRITTEN)
    yield store
    store.close()


def test_no_pattern_reaches_the_server() -> None:
    random = np.random.default_rng(3)
    for filter in [*map(parse_filter, EXPRESSIONS), *(random_filter(random) for _ in range(40))]:
        asked = milvus_filters.ask(filter, patterns=False)
        assert " like " not in asked.expression
        assert asked.rest in (None, filter)
    for text in ('path like "a/%"', 'not path like "a%" and kind == "image"', 'path like "%"'):
        assert milvus_filters.ask(parse_filter(text), patterns=False).rest is None
    for text in ('path like "%.jpg"', 'not tags has "beach"', 'path not like "a_"'):
        assert milvus_filters.ask(parse_filter(text), patterns=False).rest is not None


def test_what_is_left_over_is_checked_here(old: MilvusStore) -> None:
    query = unit_vectors(1, seed=5)[0]
    for text in EXPRESSIONS:
        filter = parse_filter(text)
        wanted = expected(WRITTEN, query, 200, filter)
        assert old.count(filter=filter) == len(wanted), text
        assert_same(old.search(query, limit=200, filter=filter), wanted)
        assert_same(old.search(query, limit=3, filter=filter), wanted[:3])


def test_few_matches_in_a_cut_list_are_looked_for_one_by_one(
    old: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_filters, "MAX_LIMIT", 20)
    query = unit_vectors(1, seed=6)[0]
    filter = parse_filter('path like "%img_1_.jpg"')
    wanted = expected(WRITTEN, query, 9, filter)
    assert len(wanted) == 9
    assert_same(old.search(query, limit=9, filter=filter), wanted)


@pytest.mark.parametrize(
    "prefix", ["a", "\ud7ff", "\U0010ffff", "a\U0010ffff", "\ufffd", '"', "\\"]
)
def test_a_prefix_is_a_range(prefix: str) -> None:
    above = milvus_filters._following(prefix)
    for other in (prefix, prefix + "x", prefix + "\U0010ffff", "", "b", "\ue000", "\U0010ffff"):
        inside = other >= prefix and (above is None or other < above)
        assert inside == other.startswith(prefix), (prefix, other)
