"""The SQLite file under the cache of scores: opening it, checking it, keeping it small."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
OPEN_TRIES = 20
LOG_BYTES = 1 << 20
"""The write-ahead log beside the file, about."""
USE_NOTED_NS = 600 * 10**9
"""How old the note of a last use may be: what is asked for often is not written each time."""

SCORE_BYTES = 100
"""Room that a score takes, at most: measured are 76 to 89, after keys came and went at random."""
FILE_BYTES = 250
"""Room that the hash of a file takes, besides its path."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS scores (
        key BLOB PRIMARY KEY, score REAL NOT NULL, log_odds REAL, used_ns INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS files (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        ctime_ns INTEGER NOT NULL, hash TEXT NOT NULL, used_ns INTEGER NOT NULL
    ) WITHOUT ROWID""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_KEYS = {"scores": "key", "files": "path"}


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, or makes it. Transactions are left to `transaction`.

    Raises:
        sqlite3.DatabaseError: It is damaged, or cannot be used.
    """
    for left in reversed(range(OPEN_TRIES)):
        try:
            return _connect(path)
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself where two processes turn to WAL at once.
            if not (left and is_busy(error)):
                raise
            time.sleep(BUSY_TIMEOUT_S / OPEN_TRIES)
    raise AssertionError("the last try returns or raises")


def is_sound(path: Path) -> bool:
    """Whether the file can be opened and holds together; reads all of it."""
    try:
        with contextlib.closing(connect(path)) as db:
            for table, key in _KEYS.items():
                db.execute(f"SELECT {key}, used_ns FROM {table} LIMIT 1")
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False


def is_busy(error: sqlite3.Error) -> bool:
    """Whether other processes kept the file to themselves for too long."""
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the content of the file is at fault, rather than the disk or its permissions."""
    return not isinstance(error, sqlite3.OperationalError) or "no such" in str(error)


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of what the block writes, or nothing."""
    # Immediate: one that reads before it writes could not wait for other processes.
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # some errors end it by themselves
            db.execute("ROLLBACK")
        raise


def note_use(db: sqlite3.Connection, table: str, rows: Sequence[tuple[bytes, object]]) -> None:
    """Notes that rows were asked for, given as (key, time of the last use)."""
    now = time.time_ns()
    stale = [
        (now, key)
        for key, used_ns in rows
        if not isinstance(used_ns, int) or abs(now - used_ns) >= USE_NOTED_NS
    ]
    if stale:
        with transaction(db):
            statement = f"UPDATE {table} SET used_ns = ? WHERE {_KEYS[table]} = ?"
            db.executemany(statement, stale)


def shrink(db: sqlite3.Connection, max_bytes: int) -> None:
    """Drops a quarter of the rows, least recently used first, until the rest fits."""

    def file_bytes() -> int:
        return _number(db, "PRAGMA page_count") * _number(db, "PRAGMA page_size")

    def row_bytes() -> int:
        # Not the pages in use: rows that go leave holes in pages, which new rows fill.
        scores = _number(db, "SELECT count(*) FROM scores") * SCORE_BYTES
        each = f"2 * length(path) + {FILE_BYTES}"
        return scores + _number(db, f"SELECT coalesce(sum({each}), 0) FROM files")

    if file_bytes() < max_bytes // 2:  # counting the rows of a large file takes a while
        return
    while row_bytes() > max_bytes:
        with transaction(db):
            for table, key in _KEYS.items():
                db.execute(
                    f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} "
                    f"ORDER BY used_ns LIMIT (SELECT count(*) / 4 + 1 FROM {table}))"
                )
    if file_bytes() > max_bytes:  # it was made under a larger limit
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _connect(path: Path) -> sqlite3.Connection:
    # `timeout` is SQLite's busy_timeout.
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last scores, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        db.execute(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // 4096}")
        version = _number(db, "PRAGMA user_version")
        if version == 0:
            with transaction(db):
                for statement in _SCHEMA:
                    db.execute(statement)
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"it has schema {version}, not {SCHEMA_VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _number(db: sqlite3.Connection, statement: str) -> int:
    return int(db.execute(statement).fetchone()[0])
