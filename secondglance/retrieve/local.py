"""The part that the in-process stores share: records in SQLite, an index derived from them.

SQLite is the truth. Every stored vector has a row number that is never used again, so an index that
knows its last row catches up by reading what came after, also when another process wrote it. An
upsert of an unchanged vector keeps its row and leaves the index alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from secondglance.errors import DimensionError, InputError, StoreError
from secondglance.media.sqlite import database_uri
from secondglance.retrieve.fields import FIELDS, Value, comparable
from secondglance.retrieve.filter_compilers import to_sql
from secondglance.retrieve.filters import Filter
from secondglance.retrieve.payload import Row, check_limit, load, rows_of, unit
from secondglance.types import Match, Record

if TYPE_CHECKING:
    from secondglance.types import Vector

Rows: TypeAlias = npt.NDArray[np.int64]
Matrix: TypeAlias = npt.NDArray[np.float32]

TIE_MARGIN = 1e-5
"""float32 scores of equal vectors differ by less; candidates this near the cut are rescored."""

_SCHEMA_VERSION = 1
_BUSY_S = 10.0
_CHUNK = 500
# Vectors taken in at once: many, for an index adds them on all cores.
_READ = 16_384
_COLUMNS = ", ".join(f'"{field}"' for field in FIELDS)
_TYPE = {"string": "TEXT", "tags": "TEXT", "number": "REAL", "time": "REAL"}
_TYPES = ", ".join(f'"{field}" {_TYPE[kind]}' for field, kind in FIELDS.items())
# Vectors and payloads stand apart from the columns, so that a filter reads little.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    row INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, {_TYPES});
CREATE INDEX IF NOT EXISTS records_kind ON records (kind);
CREATE TABLE IF NOT EXISTS contents (
    row INTEGER PRIMARY KEY, payload TEXT NOT NULL, vector BLOB NOT NULL);
"""


class LocalStore(ABC):
    """Base of the stores that live in a folder.

    Several threads may share one object. Several processes may open the same folder: writers take
    turns, and searches see what others have written.

    Args:
        folder: Where `records.sqlite` and the index live; made if missing.
        dim: Length of the vectors.

    Raises:
        DimensionError: The folder holds vectors of another length.
        StoreError: The folder cannot be used, or its database is damaged.
    """

    def __init__(self, folder: Path, *, dim: int) -> None:
        if dim < 1:
            raise InputError(f"dim is {dim}; it must be at least 1")
        self._dim = dim
        self._folder = Path(folder)
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._revision = 0
        self._removals = 0
        path = self._folder / "records.sqlite"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._writable = os.access(self._folder, os.W_OK)
            self._database = sqlite3.connect(
                database_uri(path),
                uri=True,
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            with self._session() as database:
                self._set_up(database)
        except OSError as error:
            raise StoreError(
                f"cannot make the store folder {self._folder}: {error.strerror}",
                remedy="choose a folder that can be written",
            ) from error
        except StoreError:
            self._disconnect()
            raise

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    def upsert(self, records: Sequence[Record]) -> None:
        """Writes records in one transaction; an id that exists is replaced."""
        rows = rows_of(records, dim=self._dim)
        with self._session() as database, transaction(database, write=True):
            removed = added = 0
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                known = _known(database, [row.id for row in chunk])
                for row in chunk:
                    replaced, written = _write(database, row, known.get(row.id))
                    removed += replaced
                    added += written
            _advance(database, added=added, removed=removed)

    def delete(self, ids: Sequence[str]) -> None:
        """Removes records; unknown ids are ignored."""
        with self._session() as database, transaction(database, write=True):
            rows = [row for row, _, _ in _known(database, ids).values()]
            _delete(database, rows)
            _advance(database, added=0, removed=len(rows))

    def search(self, vector: Vector, *, limit: int, filter: Filter | None = None) -> list[Match]:
        """The `limit` nearest records by cosine, best first; ties by id."""
        check_limit(limit)
        query = unit(vector, dim=self._dim, what="the query vector")
        with self._session() as database, transaction(database):
            self._catch_up(database)
            allowed = None if filter is None else _allowed(database, filter)
            if allowed is not None and not allowed.size:
                return []
            rows, vectors = self._nearest(query, limit, allowed)
            # Summed row by row in float64, equal vectors score equally wherever they lie, so ties
            # are true ties.
            scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            best = self._cut(database, rows, scores, limit)
            payloads = _payloads(database, [row for _, _, row in best])
        return [
            Match(id=key, score=-negative, payload=load(payloads[row]))
            for negative, key, row in best
        ]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records that exist among `ids`, in the order of `ids`."""
        with self._session() as database, transaction(database):
            known = _known(database, ids)
        return [
            Record(
                id=key,
                vector=np.frombuffer(known[key][2], dtype="<f4").astype(np.float32),
                payload=load(known[key][1]),
            )
            for key in ids
            if key in known
        ]

    def ids(self) -> Iterator[str]:
        """Every id, in no order; what is written meanwhile may be missed."""
        after = 0
        while True:
            with self._session() as database:
                query = "SELECT row, id FROM records WHERE row > ? ORDER BY row LIMIT 10000"
                rows = database.execute(query, (after,)).fetchall()
            if not rows:
                return
            yield from (key for _, key in rows)
            after = rows[-1][0]

    def count(self, *, filter: Filter | None = None) -> int:
        """How many records there are, or how many a filter keeps."""
        condition, values = ("1", []) if filter is None else to_sql(filter)
        with self._session() as database:
            query = f"SELECT count(*) FROM records WHERE {condition}"
            (number,) = database.execute(query, values).fetchone()
        return int(number)

    def flush(self) -> None:
        """Returns when everything written before survives a kill of this process."""
        if not self._writable:
            return
        with self._session() as database:
            # Commits already survive a kill; the checkpoint brings them through a power cut too.
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Flushes and lets go of files. May be called twice."""
        with self._lock:
            if self._database is not None:
                try:
                    self.flush()
                finally:
                    self._disconnect()

    @abstractmethod
    def _nearest(self, query: Vector, limit: int, allowed: Rows | None) -> tuple[Rows, Matrix]:
        """Rows and vectors of at least the `limit` best, with all that tie at the cut.

        Args:
            query: Unit vector of shape (dim,).
            limit: How many are wanted.
            allowed: Ascending rows that may be returned; None for all.
        """

    @abstractmethod
    def _last_row(self) -> int:
        """The highest row that the index has taken in; 0 if none."""

    @abstractmethod
    def _live_rows(self) -> Rows:
        """Ascending rows that the index would return."""

    @abstractmethod
    def _add(self, rows: Rows, vectors: Matrix) -> None:
        """Takes in vectors of shape (n, dim); rows ascend and lie after all known ones."""

    @abstractmethod
    def _remove(self, rows: Rows) -> None:
        """Drops rows, all of them known."""

    @abstractmethod
    def _prepare(self, database: sqlite3.Connection, count: int) -> None:
        """Called before the index catches up to `count` rows; may empty or replace it."""

    def _catch_up(self, database: sqlite3.Connection) -> None:
        revision, removals = state(database)
        if (revision, removals) == (self._revision, self._removals):
            return
        (count,) = database.execute("SELECT count(*) FROM records").fetchone()
        self._prepare(database, count)
        if removals != self._removals:
            live = numbers(database, "SELECT row FROM records")
            gone = np.setdiff1d(self._live_rows(), live, assume_unique=True)
            if gone.size:
                self._remove(gone)
        cursor = database.execute(
            "SELECT row, vector FROM contents WHERE row > ? ORDER BY row", (self._last_row(),)
        )
        while chunk := cursor.fetchmany(_READ):
            rows = np.array([row for row, _ in chunk], dtype=np.int64)
            joined = np.frombuffer(b"".join(blob for _, blob in chunk), dtype="<f4")
            self._add(rows, joined.reshape(len(chunk), self._dim).astype(np.float32))
        self._revision, self._removals = revision, removals

    def _cut(
        self,
        database: sqlite3.Connection,
        rows: Rows,
        scores: npt.NDArray[np.float64],
        limit: int,
    ) -> list[tuple[float, str, int]]:
        numbers = [int(row) for row in rows]
        ids = dict(_select(database, "SELECT row, id FROM records WHERE row IN", numbers))
        ranked = sorted(
            (-float(score), ids[row], row) for row, score in zip(numbers, scores, strict=True)
        )
        return ranked[:limit]

    def _set_up(self, database: sqlite3.Connection) -> None:
        # Payloads of one answer lie in as many pages; SQLite's own 2 MB hold 128 of them.
        database.execute("PRAGMA cache_size=-65536")
        if self._writable:
            # Pages of the default 4 KiB hold one common vector and waste the rest.
            database.execute("PRAGMA page_size=16384")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(_SCHEMA)
            with transaction(database, write=True):
                stamp = {"version": _SCHEMA_VERSION, "dim": self._dim, "revision": 0, "removals": 0}
                database.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", stamp.items())
                _add_columns(database)
        meta = dict(database.execute("SELECT key, value FROM meta"))
        if meta["version"] != _SCHEMA_VERSION:
            raise StoreError(
                f"the store in {self._folder} has version {meta['version']}, and this program"
                f" reads {_SCHEMA_VERSION}",
                remedy="use the release that made it, or index again into a new library",
            )
        if meta["dim"] != self._dim:
            raise DimensionError(
                f"the store in {self._folder} holds vectors of length {meta['dim']},"
                f" not {self._dim}",
                remedy="use the embedder that the library was made with",
            )

    @contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._database is None:
                raise StoreError("the store is closed", remedy="open it again")
            try:
                yield self._database
            except sqlite3.Error as error:
                raise _store_error(error, self._folder) from error

    def _disconnect(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


@contextmanager
def transaction(database: sqlite3.Connection, *, write: bool = False) -> Iterator[None]:
    """One SQLite transaction, rolled back by any exception."""
    database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _add_columns(database: sqlite3.Connection) -> None:
    """Columns of fields that came after the folder was made; no payload in it has them yet."""
    known = {name for _, name, *_ in database.execute("PRAGMA table_info(records)")}
    for field, kind in FIELDS.items():
        if field not in known:
            database.execute(f'ALTER TABLE records ADD COLUMN "{field}" {_TYPE[kind]}')


def _store_error(error: sqlite3.Error, folder: Path) -> StoreError:
    text = str(error)
    if "locked" in text or "busy" in text:
        remedy = "another process is writing; wait for it to end and try again"
    elif "malformed" in text or "not a database" in text:
        remedy = "the database is damaged; restore it, or delete the folder and index again"
    elif "full" in text:
        remedy = "free some disk space"
    else:
        remedy = "check that the folder exists and can be written"
    return StoreError(f"the store in {folder} failed: {text}", remedy=remedy)


def state(database: sqlite3.Connection) -> tuple[int, int]:
    """How many changes the index has to follow, and how many of them are removals."""
    meta = dict(database.execute("SELECT key, value FROM meta WHERE key != 'index'"))
    return int(meta["revision"]), int(meta["removals"])


def _advance(database: sqlite3.Connection, *, added: int, removed: int) -> None:
    for key, step in (("revision", added + removed), ("removals", removed)):
        database.execute("UPDATE meta SET value = value + ? WHERE key = ?", (step, key))


def _known(database: sqlite3.Connection, ids: Sequence[str]) -> dict[str, tuple[int, str, bytes]]:
    query = "SELECT id, row, payload, vector FROM records JOIN contents USING (row) WHERE id IN"
    # What SQLite cannot bind was never stored.
    storable = [key for key in ids if comparable(key) == key]
    found = _select(database, query, storable)
    return {key: (row, payload, vector) for key, row, payload, vector in found}


def _write(
    database: sqlite3.Connection, row: Row, known: tuple[int, str, bytes] | None
) -> tuple[int, int]:
    """Writes one record; returns how many rows were removed from and added to the index."""
    blob = row.vector.astype("<f4").tobytes()
    if known is not None and known[2] == blob:
        if known[1] != row.payload:
            assignments = ", ".join(f'"{field}" = ?' for field in FIELDS)
            database.execute(
                f"UPDATE records SET {assignments} WHERE row = ?", (*row.columns, known[0])
            )
            database.execute(
                "UPDATE contents SET payload = ? WHERE row = ?", (row.payload, known[0])
            )
        return 0, 0
    if known is not None:
        _delete(database, [known[0]])
    marks = ", ".join("?" * len(FIELDS))
    number = database.execute(
        f"INSERT INTO records (id, {_COLUMNS}) VALUES (?, {marks})", (row.id, *row.columns)
    ).lastrowid
    database.execute("INSERT INTO contents VALUES (?, ?, ?)", (number, row.payload, blob))
    return int(known is not None), 1


def _delete(database: sqlite3.Connection, rows: Sequence[int]) -> None:
    for table in ("records", "contents"):
        database.executemany(f"DELETE FROM {table} WHERE row = ?", ((row,) for row in rows))


def _allowed(database: sqlite3.Connection, condition: Filter) -> Rows:
    sql, values = to_sql(condition)
    return numbers(database, f"SELECT row FROM records WHERE {sql}", values)


def numbers(database: sqlite3.Connection, query: str, values: Sequence[Value] = ()) -> Rows:
    """The row numbers that a query returns, ascending."""
    found = database.execute(query, values).fetchall()
    return np.sort(np.array(found, dtype=np.int64).reshape(-1))


def vectors_of(database: sqlite3.Connection, rows: Rows, *, dim: int) -> tuple[Rows, Matrix]:
    """Those of `rows` that exist, ascending, and their vectors (n, dim)."""
    wanted = [int(row) for row in np.sort(rows)]
    found = sorted(_select(database, "SELECT row, vector FROM contents WHERE row IN", wanted))
    numbers_ = np.array([row for row, _ in found], dtype=np.int64)
    joined = np.frombuffer(b"".join(blob for _, blob in found), dtype="<f4")
    return numbers_, joined.reshape(len(found), dim).astype(np.float32)


def _payloads(database: sqlite3.Connection, rows: Sequence[int]) -> dict[int, str]:
    return dict(_select(database, "SELECT row, payload FROM contents WHERE row IN", rows))


def _select(
    database: sqlite3.Connection, query: str, keys: Sequence[str] | Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(keys), _CHUNK):
        chunk = list(keys[start : start + _CHUNK])
        yield from database.execute(f"{query} ({', '.join('?' * len(chunk))})", chunk)
