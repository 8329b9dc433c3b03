"""Brute force with NumPy: the reference for every other store, and enough for small libraries."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.retrieve.local import TIE_MARGIN, LocalStore, Matrix, Rows
from secondglance.retrieve.store import Capabilities

if TYPE_CHECKING:
    from secondglance.types import Vector


class ExactStore(LocalStore):
    """Compares the query with every vector, all of them in memory.

    Args:
        folder: Where `records.sqlite` lives; made if missing.
        dim: Length of the vectors.

    Raises:
        DimensionError: The folder holds vectors of another length.
        StoreError: The folder cannot be used, or its database is damaged.
    """

    def __init__(self, folder: Path, *, dim: int) -> None:
        self._rows: Rows = np.empty(0, dtype=np.int64)
        self._buffer: Matrix = np.empty((0, max(dim, 1)), dtype=np.float32)
        self._expected = 0
        super().__init__(folder, dim=dim)

    @property
    def capabilities(self) -> Capabilities:
        """Exact, in this process, open to several processes."""
        return Capabilities(exact=True, remote=False, concurrent_processes=True, index="exact")

    def _nearest(self, query: Vector, limit: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        rows, vectors = self._rows, self._buffer[: self._rows.size]
        if allowed is not None:
            positions = np.searchsorted(rows, allowed)
            rows, vectors = allowed, vectors[positions]
        best = within_cut(vectors @ query, limit)
        return rows[best], vectors[best]

    def _last_row(self) -> int:
        return int(self._rows[-1]) if self._rows.size else 0

    def _live_rows(self) -> Rows:
        return self._rows

    def _prepare(self, database: sqlite3.Connection, count: int) -> None:
        self._expected = count

    def _add(self, rows: Rows, vectors: Matrix) -> None:
        start, end = self._rows.size, self._rows.size + rows.size
        if end > len(self._buffer):
            # Room for all that is coming, and then some, so that few additions copy the rest.
            room = max(end, self._expected, len(self._buffer) * 5 // 4)
            grown = np.empty((room, self._dim), dtype=np.float32)
            grown[:start] = self._buffer[:start]
            self._buffer = grown
        self._buffer[start:end] = vectors
        self._rows = np.concatenate([self._rows, rows])

    def _remove(self, rows: Rows) -> None:
        keep = ~np.isin(self._rows, rows, assume_unique=True)
        self._buffer = self._buffer[: self._rows.size][keep]
        self._rows = self._rows[keep]


def within_cut(scores: Matrix, limit: int) -> Rows:
    """Positions of the `limit` highest scores and of all that tie with the last of them.

    Args:
        scores: float32 of shape (n,).
        limit: At least 1.
    """
    if limit >= scores.size:
        return np.arange(scores.size)
    cut = np.partition(scores, scores.size - limit)[scores.size - limit]
    return np.flatnonzero(scores >= cut - TIE_MARGIN)
