"""What the contract suites share: the stores under test, records and the expected answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.retrieve.filters import Filter
from secondglance.retrieve.milvus_store import MilvusStore
from secondglance.retrieve.store import SCORE_TOLERANCE, Store
from secondglance.types import Match, Payload, Record, join_tags
from tests.milvus_server import TOKEN

if TYPE_CHECKING:
    from secondglance.types import Vector

DIM = 24
# "milvus-uri" is Milvus Lite behind an address: the code path of a server, without one.
NAMES = [
    "exact",
    "faiss-flat",
    "faiss-hnsw",
    "faiss-sq8",
    "faiss-ivfpq",
    "milvus-lite",
    "milvus-uri",
    "milvus-server",
]

ODD_STRINGS = [
    'quote " quote',
    "it's",
    "back\\slash",
    "trailing\\",
    "\\",
    "new\nline\r\ttab",
    "50% off_now",
    "*?[a-z]",
    "snow ☃ 東京 é",
    "emoji 😀 family 👨‍👩‍👧",
    "\U0001f600",
    '" or true or path == "',
    '") or (id != "',
    '\\" or 1 == 1 or "',
    "'; DROP TABLE records; --",
    "$meta",
    "{injected}",
    "nul\x00byte",
    "undecodable \udcff byte",
    "a/b",
    "",
    " ",
    "A/B",
    "\u2028\u0085\ufeff",
]

TAGS = [
    ["beach", "Sea"],
    ["Beach chair"],
    [],
    ["ÉTÉ", "50%_off"],
    ["snow ☃ 東京", "back\\slash", "*[a]"],
    ["BEACH", 'quote " or'],
]


@dataclass
class Opener:
    """Opens one kind of store again and again on the same data."""

    name: str
    folder: Path
    uri: str
    collection: str

    def __call__(self, dim: int = DIM) -> Store:
        if self.name == "exact":
            return ExactStore(self.folder, dim=dim)
        if self.name == "faiss-flat":
            return FaissStore(self.folder, dim=dim, index="flat")
        if self.name == "faiss-hnsw":
            return FaissStore(self.folder, dim=dim, index="hnsw")
        if self.name == "faiss-sq8":
            return FaissStore(self.folder, dim=dim, index="sq8")
        if self.name == "faiss-ivfpq":
            return FaissStore(self.folder, dim=dim, index="ivfpq")
        if self.name == "milvus-lite":
            return MilvusStore(self.folder / "vectors.db", dim=dim)
        token = TOKEN if self.name == "milvus-server" else None
        return MilvusStore(self.uri, dim=dim, collection=self.collection, token=token, timeout_s=60)

    @property
    def exact(self) -> bool:
        return self.name in {"exact", "faiss-flat", "milvus-lite", "milvus-uri"}

    @property
    def remote(self) -> bool:
        return self.name in {"milvus-uri", "milvus-server"}


def unit_vectors(count: int, dim: int = DIM, seed: int = 0) -> Vector:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Vector = np.divide(vectors, lengths, dtype=np.float32)
    return units


def payload_of(number: int) -> Payload:
    """A spread of payloads: each key is missing somewhere."""
    payload: dict[str, str | int | float] = {"path": f"folder{number % 4}/img_{number}.jpg"}
    payload["kind"] = ("image", "video", "text")[number % 3]
    payload["item"] = f"item{number // 2}"
    if number % 2:
        payload["taken"] = 1_700_000_000.5 + 86_400 * number
        payload["width"] = 100 * number
    if number % 5:
        payload["size"] = number**3
        payload["name"] = f"IMG_{number}.JPG"
    if payload["kind"] == "video":
        payload["start_s"], payload["end_s"] = number / 3, number / 3 + 1.25
    if number % 7 == 0:
        payload["text"] = ODD_STRINGS[number % len(ODD_STRINGS)]
    if number % 3:
        payload["tags"] = join_tags(TAGS[number % len(TAGS)])
        payload["camera"] = ("Canon EOS R5", "Apple iPhone 15", "50%_off \\ *[x]")[number % 4 % 3]
        payload["codec"], payload["format"] = ODD_STRINGS[number % len(ODD_STRINGS)], "jpeg"
        payload["rating"], payload["iso_speed"] = number % 7 - 1, 100 * number
    if number % 4:
        payload["lat"], payload["lon"] = 47.3 + number / 100, 8.5 - number / 50
        payload["altitude_m"], payload["f_number"] = number - 40.5, 1.4 * (number % 5)
        payload["lens"] = f"RF{number}mm"
    if number % 6 == 0:
        payload["fps"], payload["focal_mm"], payload["exposure_s"] = 29.97, number, 1 / (number + 1)
    payload["unfiltered"] = number
    return payload


def records(count: int, *, start: int = 0, seed: int = 0) -> list[Record]:
    vectors = unit_vectors(count, seed=seed)
    return [
        Record(id=f"r{start + i:05d}", vector=vectors[i], payload=payload_of(start + i))
        for i in range(count)
    ]


def expected(
    written: list[Record], query: Vector, limit: int, filter: Filter | None = None
) -> list[tuple[str, float]]:
    """Ids and cosines in float64, best first, ties by id."""
    direction = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    kept = [r for r in written if filter is None or filter.matches(r.payload)]
    scored = sorted((-float(r.vector.astype(np.float64) @ direction), r.id) for r in kept)
    return [(name, -score) for score, name in scored[:limit]]


def assert_same(found: list[Match], wanted: list[tuple[str, float]]) -> None:
    assert [m.id for m in found] == [name for name, _ in wanted]
    for match, (_, score) in zip(found, wanted, strict=True):
        assert match.score == pytest.approx(score, abs=SCORE_TOLERANCE)
