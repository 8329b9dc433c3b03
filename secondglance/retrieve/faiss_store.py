"""FAISS in this process: flat while that is fast, HNSW above, quantised where memory is short.

The index is derived from SQLite (see `index_file` for how it is saved). An opened index is mapped
from its file, so opening reads little; the first change reads all of it into memory, for a mapped
one cannot grow.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from secondglance.errors import InputError, StoreError
from secondglance.retrieve import index_file, vector_index
from secondglance.retrieve.exact import within_cut
from secondglance.retrieve.local import (
    TIE_MARGIN,
    LocalStore,
    Matrix,
    Rows,
    numbers,
    state,
    transaction,
    vectors_of,
)
from secondglance.retrieve.store import Capabilities
from secondglance.retrieve.vector_index import FaissIndex, GpuIndex, Layout, LayoutChoice, Tuning

if TYPE_CHECKING:
    from secondglance.types import Vector

# A filtered search compares this many vectors directly rather than walk the graph, which loses
# recall where few of its nodes are allowed.
_EXACT_SUBSET = 10_000
_EXACT_SHARE = 0.1
# Where the index holds no exact vectors, this many are read from SQLite and compared.
_READ_SUBSET = 2_000
# A graph or lists cannot forget a vector; with more dead ones than this share they are built again.
_DEAD_SHARE = 0.2
# Lists that were made for this many times fewer vectors are made again.
_OUTGROWN = 4
# `flush` saves the index once this much of it is unsaved; `close` always does.
_UNSAVED_ROWS = 10_000
_UNSAVED_SHARE = 0.1
# An approximate search asks for a few more than wanted, so that ties at the cut are seen.
_SLACK = 16
_EXACT = ("flat", "gpu")


class FaissStore(LocalStore):
    """Vectors and payloads in SQLite, searched by a FAISS index on inner products.

    Args:
        folder: Where `records.sqlite` and `index-*.faiss` live; made if missing.
        dim: Length of the vectors.
        index: `flat` is exact; `hnsw` a graph; `sq8` a graph over 8-bit vectors; `ivfpq` lists of
            product-quantised vectors; `gpu` exact on a GPU; `auto` chooses by size and memory,
            never the GPU. Answers of the quantised ones are compared again by the true vectors.
        hnsw_threshold: Number of vectors up to which `auto` is flat.
        hnsw_m: Links per node and layer (M in Malkov and Yashunin, arXiv:1603.09320).
        ef_construction: Candidates considered when a node is linked.
        ef_search: Candidates that a search considers at first.
        memory_bytes: What `auto` reckons with; none: the machine's or container's memory.
        device: Of `gpu`, as torch names it; none: the first GPU.

    Raises:
        DimensionError: The folder holds vectors of another length.
        InputError: An argument is out of range.
        StoreError: The folder cannot be used, its database is damaged, or there is no GPU.
    """

    _index: FaissIndex | GpuIndex
    _rows: Rows
    _dead: npt.NDArray[np.bool_]
    _dead_count: int
    _trained_for: int
    _mapped: bool
    _unsaved: int

    def __init__(
        self,
        folder: Path,
        *,
        dim: int,
        index: LayoutChoice = "auto",
        hnsw_threshold: int = 50_000,
        hnsw_m: int = 32,
        ef_construction: int = 80,
        ef_search: int = 128,
        memory_bytes: int | None = None,
        device: str | None = None,
    ) -> None:
        self._choice = vector_index.checked(index)
        if hnsw_threshold < 0:
            raise InputError(f"hnsw_threshold is {hnsw_threshold}; it must be at least 0")
        if memory_bytes is not None and memory_bytes < 1:
            raise InputError(f"memory_bytes is {memory_bytes}; it must be at least 1")
        self._threshold = hnsw_threshold
        self._tuning = Tuning(m=hnsw_m, ef_construction=ef_construction, ef_search=ef_search)
        self._memory = memory_bytes or vector_index.memory_bytes()
        self._device = device
        if index == "gpu":
            # Whether there is one is known now, not at the first search.
            GpuIndex(dim=max(dim, 1), expected=0, device=device or "cuda")
        super().__init__(folder, dim=dim)
        try:
            with self._session() as database:
                self._restore(database, mapped=True)
        except BaseException:
            self._disconnect()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """Exact while flat or on a GPU; open to several processes."""
        with self._lock:
            layout, held = self._index.layout, self._rows.size
        return Capabilities(
            # One that is to be quantised is flat only until there is something to learn from.
            exact=layout in _EXACT and self._choice in ("auto", *_EXACT),
            remote=False,
            concurrent_processes=True,
            index=vector_index.describe(
                layout, held, dim=self._dim, tuning=self._tuning, memory=self._memory
            ),
        )

    def flush(self) -> None:
        """Returns when all is durable; saves the index if much of it is not on disk yet."""
        super().flush()
        with self._session() as database:
            bearable = max(_UNSAVED_ROWS, _UNSAVED_SHARE * self._rows.size)
            behind = state(database)[0] - self._revision
            if behind + self._unsaved > bearable:
                with transaction(database):
                    self._catch_up(database)
                if self._unsaved > bearable:
                    self._save(database)

    def close(self) -> None:
        """Flushes, saves the index if it has changed, and lets go of files."""
        with self._lock:
            if self._database is None:
                return
            try:
                with self._session() as database:
                    with transaction(database):
                        self._catch_up(database)
                    if self._unsaved and self._writable:
                        self._save(database)
            finally:
                super().close()

    def compact(self) -> None:
        """Builds the index again if it holds dead vectors, and saves it."""
        with self._session() as database:
            with transaction(database):
                self._catch_up(database)
                if not self._dead_count:
                    return
                self._reset(database, self._index.layout, self._rows.size - self._dead_count)
                self._catch_up(database)
            if self._writable:
                self._save(database)

    # ---- searching

    def _nearest(self, query: Vector, limit: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        total, held = self._rows.size, self._index.vectors()
        few = allowed is not None and allowed.size <= max(_EXACT_SUBSET, _EXACT_SHARE * total)
        if few and allowed is not None:
            if held is not None:
                vectors = held[self._positions(allowed)]
                best = within_cut(vectors @ query, limit)
                return allowed[best], vectors[best]
            if allowed.size <= _READ_SUBSET:
                return self._read(allowed)
        keep = self._keep(allowed)
        living = total if keep is None else int(keep.sum())
        wanted = min(limit * self._index.again + _SLACK, living)
        while True:
            positions, scores = self._ask(query, wanted, keep, scan=few)
            tied = len(scores) > limit and scores[-1] >= scores[limit - 1] - TIE_MARGIN
            if self._index.layout not in _EXACT or not tied or wanted >= living:
                break
            wanted = min(wanted * 4, living)
        if held is not None:
            return self._rows[positions], held[positions]
        return self._read(self._rows[positions])

    def _ask(
        self, query: Vector, wanted: int, keep: npt.NDArray[np.bool_] | None, *, scan: bool
    ) -> tuple[Rows, Matrix]:
        if wanted == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        if scan and keep is not None:
            return self._index.scan(query, wanted, keep)
        return self._index.search(query, wanted, keep)

    def _keep(self, allowed: Rows | None) -> npt.NDArray[np.bool_] | None:
        """Which positions may be found; none: all."""
        if allowed is None:
            return ~self._dead if self._dead_count else None
        # What a filter allows is in the records, so it lives.
        chosen = np.zeros(self._rows.size, dtype=np.bool_)
        chosen[self._positions(allowed)] = True
        return chosen

    def _positions(self, rows: Rows) -> Rows:
        first, last = int(self._rows[0]), int(self._rows[-1])
        if last - first + 1 == self._rows.size:
            return rows - first
        return np.searchsorted(self._rows, rows)

    def _read(self, rows: Rows) -> tuple[Rows, Matrix]:
        """The true vectors, from the records."""
        with self._session() as database:
            return vectors_of(database, rows, dim=self._dim)

    # ---- changing

    def _last_row(self) -> int:
        return int(self._rows[-1]) if self._rows.size else 0

    def _live_rows(self) -> Rows:
        return self._rows[~self._dead]

    def _prepare(self, database: sqlite3.Connection, count: int) -> None:
        stamp = index_file.read_stamp(database)
        if self._mapped or (stamp is not None and stamp.revision > self._revision):
            # Another process may have saved a newer one, which saves building the same again.
            current = stamp is not None and stamp.revision == state(database)[0]
            self._restore(database, mapped=current)
        wanted = self._wanted(count)
        outgrown = wanted == "ivfpq" and count > _OUTGROWN * self._trained_for
        if wanted != self._index.layout or outgrown:
            self._reset(database, wanted, count)

    def _add(self, rows: Rows, vectors: Matrix) -> None:
        self._index.add(vectors)
        self._rows = np.concatenate([self._rows, rows])
        self._dead = np.concatenate([self._dead, np.zeros(rows.size, dtype=np.bool_)])
        self._unsaved += rows.size

    def _remove(self, rows: Rows) -> None:
        gone = np.isin(self._rows, rows, assume_unique=True)
        self._unsaved += rows.size
        if self._index.compacts:
            # Positions close up in order, as `_rows` does.
            self._index.keep(~gone)
            self._rows, self._dead = self._rows[~gone], self._dead[~gone]
            return
        self._dead |= gone
        self._dead_count = int(self._dead.sum())
        if self._dead_count > _DEAD_SHARE * self._rows.size:
            # Everything that lives is then read again from SQLite.
            with self._session() as database:
                living = self._rows.size - self._dead_count
                self._reset(database, self._index.layout, living)

    def _wanted(self, count: int) -> Layout:
        chosen = self._chosen(count)
        return "flat" if count < vector_index.LEAST_TRAINING.get(chosen, 0) else chosen

    def _chosen(self, count: int) -> Layout:
        if self._choice != "auto":
            return self._choice
        return vector_index.choose(
            count,
            dim=self._dim,
            m=self._tuning.m,
            threshold=self._threshold,
            memory=self._memory,
            now=self._index.layout,
        )

    def _reset(self, database: sqlite3.Connection, layout: Layout, count: int) -> None:
        """Starts an empty index for `count` vectors; position i in it holds row `_rows[i]`."""
        sample = np.empty((0, self._dim), dtype=np.float32)
        if layout in vector_index.TRAINING:
            sample = self._sample(database, vector_index.TRAINING[layout])
        if layout == "gpu":
            self._index = GpuIndex(dim=self._dim, expected=count, device=self._device)
        else:
            self._index = FaissIndex(
                layout, dim=self._dim, tuning=self._tuning, expected=count, sample=sample
            )
        self._rows = np.empty(0, dtype=np.int64)
        self._dead = np.empty(0, dtype=np.bool_)
        self._dead_count = self._unsaved = 0
        self._trained_for = max(count, 1)
        self._mapped = False
        # Nothing is known of earlier states any more: the next use takes in all records.
        self._revision = self._removals = -1

    def _untrained(self, layout: Layout, sample: Matrix) -> FaissIndex:
        return FaissIndex(layout, dim=self._dim, tuning=self._tuning, expected=0, sample=sample)

    def _sample(self, database: sqlite3.Connection, size: int) -> Matrix:
        rows = numbers(database, "SELECT row FROM records")
        if rows.size > size:
            rows = np.random.default_rng(0).choice(rows, size=size, replace=False)
        return vectors_of(database, rows, dim=self._dim)[1]

    # ---- saving

    def _save(self, database: sqlite3.Connection) -> None:
        index = self._index
        if not isinstance(index, FaissIndex):
            # On a GPU it is read from the records at each start.
            self._unsaved = 0
            return
        try:
            path, crc32 = index_file.save(
                self._folder, index.write, rows=self._rows, dead=self._dead
            )
            status = path.stat()
        except (OSError, RuntimeError) as error:
            raise StoreError(
                f"the index cannot be saved in {self._folder}: {error}",
                remedy="the vectors are safe; free some disk space, and it is built again",
            ) from error
        stamp = index_file.Stamp(
            file=path.name,
            crc32=crc32,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            rows=int(self._rows.size),
            revision=self._revision,
            removals=self._removals,
            trained_for=self._trained_for,
            settings=self._settings(index.layout),
        )
        index_file.write_stamp(database, stamp)
        self._unsaved = 0
        index_file.tidy(self._folder, path)

    def _restore(self, database: sqlite3.Connection, *, mapped: bool) -> None:
        """Loads the saved index if it is whole and made with these settings."""
        (count,) = database.execute("SELECT count(*) FROM records").fetchone()
        stamp = index_file.read_stamp(database)
        kept: Any = stamp.settings[0] if stamp else "flat"
        # What is saved stays so until `auto` has reason to leave it.
        self._index = self._untrained("flat", np.empty((0, self._dim), dtype=np.float32))
        self._index.layout = kept
        wanted = self._wanted(count)
        loaded = None
        if stamp is not None and wanted != "gpu" and self._fits(stamp, wanted):
            loaded = self._load(stamp, wanted, mapped=mapped)
        if loaded is None or stamp is None:
            self._reset(database, wanted, count)
            return
        self._index, self._rows, self._dead = loaded
        self._dead_count = int(self._dead.sum())
        self._mapped, self._unsaved = mapped, 0
        self._trained_for = stamp.trained_for
        # Where a stamp does not say, -1 is unlike any state, and the first use compares.
        self._revision, self._removals = stamp.revision, stamp.removals

    def _load(
        self, stamp: index_file.Stamp, layout: Layout, *, mapped: bool
    ) -> tuple[FaissIndex, Rows, npt.NDArray[np.bool_]] | None:
        path = self._folder / stamp.file
        try:
            if not index_file.intact(path, stamp):
                return None
            index = FaissIndex.read(path, layout, tuning=self._tuning, mapped=mapped)
            rows, dead = index_file.read_rows(path, stamp.rows)
        except (OSError, RuntimeError):
            # Deleted, or written by a release of FAISS that this one cannot read.
            return None
        return (index, rows, dead) if len(index) == stamp.rows and index.dim == self._dim else None

    def _fits(self, stamp: index_file.Stamp, layout: Layout) -> bool:
        return stamp.settings[:3] == self._settings(layout)

    def _settings(self, layout: Layout) -> list[str | int]:
        """What a saved index must agree with."""
        graph = [self._tuning.m] if layout in ("hnsw", "sq8") else []
        return [layout, self._dim, *graph]
