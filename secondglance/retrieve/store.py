"""The protocol that every vector store implements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from secondglance.types import Match, Record

if TYPE_CHECKING:
    from secondglance.retrieve.filters import Filter
    from secondglance.types import Vector

SCORE_TOLERANCE = 1e-4
"""Largest difference between a store's score and the exact float32 cosine."""
MAX_LIMIT = 16_384
"""Most results of one Milvus search (`quotaAndLimits.limits.topK`); more are asked of no store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do, so that callers ask instead of guessing by name.

    Attributes:
        exact: Search examines every vector, so recall is 1.
        remote: Vectors live in another process or machine.
        concurrent_processes: Several processes may hold the store open.
        index: How it searches, for people: "flat", "HNSW (M=32, ef=128)".
        full_text: It can rank by words itself; secondglance has its own word index for all stores.
    """

    exact: bool
    remote: bool
    concurrent_processes: bool
    index: str
    full_text: bool = False


class Store(Protocol):
    """Vectors with payloads, by id.

    All methods raise `StoreError` with a remedy when the store cannot be reached or written.
    """

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    def upsert(self, records: Sequence[Record]) -> None:
        """Writes records; an id that exists is replaced. Durable when `flush` returns.

        Raises:
            DimensionError: A vector's shape is not (dim,).
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Removes records; unknown ids are ignored."""
        ...

    def search(self, vector: Vector, *, limit: int, filter: Filter | None = None) -> list[Match]:
        """The `limit` nearest records by cosine, best first; ties by id.

        Args:
            vector: Query of shape (dim,); any length but zero, it is normalised here.
            limit: At least 1.
            filter: Only records for which this holds.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records that exist among `ids`, in the order of `ids`."""
        ...

    def ids(self) -> Iterator[str]:
        """Every id, in no order; what is written meanwhile may be missed."""
        ...

    def count(self, *, filter: Filter | None = None) -> int:
        """How many records there are."""
        ...

    def flush(self) -> None:
        """Returns when everything written before survives a kill of this process."""
        ...

    def close(self) -> None:
        """Flushes and lets go of files and connections. May be called twice."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do, as it stands now."""
        ...
