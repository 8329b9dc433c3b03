"""FAISS in this process: flat while that is fast, HNSW above.

The index is derived. It is saved to a file of its own name, whose name and checksum are then
committed to SQLite, so that the stamp and the file cannot disagree: whatever is missing, damaged or
made with other settings is built again, and what is merely old catches up.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from secondglance.errors import InputError, StoreError
from secondglance.retrieve.exact import within_cut
from secondglance.retrieve.local import TIE_MARGIN, LocalStore, Matrix, Rows, state, transaction
from secondglance.retrieve.store import Capabilities

if TYPE_CHECKING:
    from secondglance.types import Vector

# The stubs that come with FAISS leave out what its Python layer adds to the SWIG classes.
faiss: Any = _faiss

Layout = Literal["flat", "hnsw"]

# A filtered search compares this many vectors directly rather than walk the graph, which loses
# recall where few of its nodes are allowed.
_EXACT_SUBSET = 10_000
_EXACT_SHARE = 0.1
# HNSW cannot forget a vector; with more dead ones than this share it is built again.
_DEAD_SHARE = 0.2
# An auto index goes back to flat only well below the threshold, lest it flip to and fro.
_BACK_TO_FLAT = 0.5
# `flush` saves the index once this much of it is unsaved; `close` always does.
_UNSAVED_ROWS = 10_000
_UNSAVED_SHARE = 0.1
# A temporary file this old is what a kill left.
_ABANDONED_S = 3600.0
# HNSW asks for a few more than wanted, so that ties at the cut are seen.
_SLACK = 16


class FaissStore(LocalStore):
    """Vectors and payloads in SQLite, searched by a FAISS index on inner products.

    Args:
        folder: Where `records.sqlite` and `index-*.faiss` live; made if missing.
        dim: Length of the vectors.
        index: `flat` is exact, `hnsw` approximate; `auto` goes from one to the other by size.
        hnsw_threshold: Number of vectors above which `auto` takes HNSW.
        hnsw_m: Links per node and layer (M in Malkov and Yashunin, arXiv:1603.09320).
        ef_construction: Candidates considered when a node is linked.
        ef_search: Candidates considered by a search; raised to the limit where that is higher.

    Raises:
        DimensionError: The folder holds vectors of another length.
        InputError: An argument is out of range.
        StoreError: The folder cannot be used, or its database is damaged.
    """

    _layout: Layout
    _index: Any
    _rows: Rows
    _dead: npt.NDArray[np.bool_]
    _unsaved: int

    def __init__(
        self,
        folder: Path,
        *,
        dim: int,
        index: Literal["auto", "flat", "hnsw"] = "auto",
        hnsw_threshold: int = 50_000,
        hnsw_m: int = 32,
        ef_construction: int = 200,
        ef_search: int = 128,
    ) -> None:
        if index not in ("auto", "flat", "hnsw"):
            raise InputError(f"index is {index!r}; allowed: auto, flat, hnsw")
        smallest = {"hnsw_m": (hnsw_m, 2), "ef_construction": (ef_construction, 1)}
        smallest |= {"ef_search": (ef_search, 1), "hnsw_threshold": (hnsw_threshold, 0)}
        for name, (value, least) in smallest.items():
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}")
        self._choice: Literal["auto", "flat", "hnsw"] = index
        self._threshold = hnsw_threshold
        self._m = hnsw_m
        self._ef_construction = ef_construction
        self._ef_search = ef_search
        super().__init__(folder, dim=dim)
        try:
            with self._session() as database:
                self._restore(database)
        except BaseException:
            self._disconnect()
            raise

    @property
    def capabilities(self) -> Capabilities:
        """Exact while flat; open to several processes."""
        hnsw = f"HNSW (M={self._m}, ef={self._ef_search})"
        return Capabilities(
            exact=self._layout == "flat",
            remote=False,
            concurrent_processes=True,
            index="flat" if self._layout == "flat" else hnsw,
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

    # ---- searching

    def _nearest(self, query: Vector, limit: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        total = self._rows.size
        if allowed is not None and allowed.size <= max(_EXACT_SUBSET, _EXACT_SHARE * total):
            vectors = self._vectors()[np.searchsorted(self._rows, allowed)]
            best = within_cut(vectors @ query, limit)
            return allowed[best], vectors[best]
        wanted = min(limit + _SLACK, total)
        while True:
            positions, scores = self._ask(query, wanted, allowed)
            tied = len(scores) > limit and scores[-1] >= scores[limit - 1] - TIE_MARGIN
            if self._layout == "hnsw" or not tied or wanted >= total:
                break
            wanted = min(wanted * 4, total)
        return self._rows[positions], self._vectors()[positions]

    def _ask(self, query: Vector, wanted: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        if wanted == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        selector = None
        if allowed is not None or self._dead.any():
            chosen = ~self._dead
            if allowed is not None:
                chosen &= np.isin(self._rows, allowed, assume_unique=True)
            selector = faiss.IDSelectorBitmap(np.packbits(chosen, bitorder="little"))
        if self._layout == "hnsw":
            parameters = faiss.SearchParametersHNSW(
                sel=selector, efSearch=max(self._ef_search, wanted)
            )
        else:
            parameters = faiss.SearchParameters(sel=selector)
        scores, positions = self._index.search(query[None], wanted, params=parameters)
        # FAISS pads short answers with -1.
        found = positions[0] >= 0
        return positions[0][found], scores[0][found]

    def _vectors(self) -> Matrix:
        """The vectors inside the index, without a copy; valid until the index changes."""
        total = self._rows.size
        if not total:
            return np.empty((0, self._dim), dtype=np.float32)
        held = self._index.storage if self._layout == "hnsw" else self._index
        flat = faiss.downcast_index(held)
        view = faiss.rev_swig_ptr(flat.get_xb(), total * self._dim)
        return cast("Matrix", view.reshape(total, self._dim))

    # ---- changing

    def _last_row(self) -> int:
        return int(self._rows[-1]) if self._rows.size else 0

    def _live_rows(self) -> Rows:
        return self._rows[~self._dead]

    def _prepare(self, count: int) -> None:
        wanted = self._wanted(count)
        if wanted != self._layout:
            self._reset(wanted)

    def _add(self, rows: Rows, vectors: Matrix) -> None:
        self._index.add(np.ascontiguousarray(vectors))
        self._rows = np.concatenate([self._rows, rows])
        self._dead = np.concatenate([self._dead, np.zeros(rows.size, dtype=np.bool_)])
        self._unsaved += rows.size

    def _remove(self, rows: Rows) -> None:
        gone = np.isin(self._rows, rows, assume_unique=True)
        self._unsaved += rows.size
        if self._layout == "flat":
            # Positions close up in order, as `_rows` does.
            self._index.remove_ids(np.flatnonzero(gone))
            self._rows, self._dead = self._rows[~gone], self._dead[~gone]
            return
        self._dead |= gone
        if self._dead.sum() > _DEAD_SHARE * self._rows.size:
            # Everything that lives is then read again from SQLite.
            self._reset("hnsw")

    def _wanted(self, count: int) -> Layout:
        if self._choice != "auto":
            return self._choice
        share = _BACK_TO_FLAT if self._layout == "hnsw" else 1.0
        return "hnsw" if count > share * self._threshold else "flat"

    def _reset(self, layout: Layout) -> None:
        """Starts an empty index; position i in it holds row `_rows[i]`."""
        self._layout = layout
        if layout == "flat":
            self._index = faiss.IndexFlatIP(self._dim)
        else:
            self._index = faiss.IndexHNSWFlat(self._dim, self._m, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = self._ef_construction
        self._rows = np.empty(0, dtype=np.int64)
        self._dead = np.empty(0, dtype=np.bool_)
        self._unsaved = 0

    # ---- saving

    def _save(self, database: sqlite3.Connection) -> None:
        temporary = self._folder / f"index-{uuid.uuid4().hex}.tmp"
        path = temporary.with_suffix(".faiss")
        try:
            faiss.write_index(self._index, str(temporary))
            # FAISS reads its own part and stops; the rest says which row each position holds.
            with temporary.open("ab") as file:
                file.write(self._rows.astype("<i8").tobytes())
                file.write(self._dead.tobytes())
            _sync(temporary)
            temporary.replace(path)
            _sync(self._folder)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise StoreError(
                f"the index cannot be saved in {self._folder}: {error}",
                remedy="the vectors are safe; free some disk space, and it is built again",
            ) from error
        stamp = {
            "file": path.name,
            "crc32": _checksum(path),
            "rows": int(self._rows.size),
            "settings": self._settings(),
        }
        database.execute("INSERT OR REPLACE INTO meta VALUES ('index', ?)", (json.dumps(stamp),))
        self._unsaved = 0
        for old in self._folder.glob("index-*"):
            # A fresh temporary file may be what another process is writing.
            if old != path and (old.suffix == ".faiss" or _age_s(old) > _ABANDONED_S):
                old.unlink(missing_ok=True)

    def _restore(self, database: sqlite3.Connection) -> None:
        """Loads the saved index if it is whole and made with these settings."""
        (count,) = database.execute("SELECT count(*) FROM records").fetchone()
        found = database.execute("SELECT value FROM meta WHERE key = 'index'").fetchone()
        stamp: dict[str, Any] = json.loads(found[0]) if found else {"settings": ["flat"]}
        # What was HNSW stays so down to where `auto` would take it back.
        self._layout = stamp["settings"][0]
        self._reset(self._wanted(count))
        if stamp["settings"] != self._settings():
            return
        path = self._folder / str(stamp["file"])
        saved = int(stamp["rows"])
        try:
            # FAISS may crash on a damaged file, so it only reads one whose checksum holds.
            if _checksum(path) != stamp["crc32"]:
                return
            index = faiss.read_index(str(path))
            with path.open("rb") as file:
                file.seek(-9 * saved, os.SEEK_END)
                rows = np.frombuffer(file.read(8 * saved), dtype="<i8").astype(np.int64)
                dead = np.frombuffer(file.read(saved), dtype=np.bool_).copy()
        except (OSError, RuntimeError):
            # Deleted, or written by a release of FAISS that this one cannot read.
            return
        if index.ntotal != saved or index.d != self._dim:
            return
        self._index, self._rows, self._dead = index, rows, dead
        # Unlike any state of the database, so that the first use compares and catches up.
        self._revision = self._removals = -1

    def _settings(self) -> list[str | int]:
        """What a saved index must agree with."""
        if self._layout == "flat":
            return ["flat", self._dim]
        return ["hnsw", self._dim, self._m, self._ef_construction]


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
