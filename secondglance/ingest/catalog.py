"""The catalog: every file that was seen, what became of it, and which records it owns.

A file points at its content by hash; several files may share one content. The ids of a content
are written before its vectors are, and its file is marked done after, so a kill at any moment
leaves either a file that will be done again or records that the next run can find and remove.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secondglance.errors import CatalogError, LibraryError
from secondglance.media.sqlite import database_uri
from secondglance.types import FileFailure, MediaItem

SCHEMA_VERSION = 1
FILE_NAME = "catalog.sqlite"
CHUNK = 500
"""Values of one statement; SQLite's builds differ in how many they take."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY,
    root TEXT NOT NULL,
    kind TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    caption TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT,
    hash TEXT,
    seen_at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_by_hash ON files (hash);
CREATE INDEX IF NOT EXISTS files_by_root ON files (root);
CREATE TABLE IF NOT EXISTS contents (
    hash TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    done INTEGER NOT NULL,
    described_by TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records (
    hash TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (hash, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sidecars (path TEXT PRIMARY KEY, stamp TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS described (hash TEXT PRIMARY KEY, said TEXT NOT NULL) WITHOUT ROWID;
"""

State = Literal["done", "failed", "unreadable"]
"""`failed` files are not tried again until they change; `unreadable` ones are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One file as the catalog knows it; see the module for `hash` and `state`."""

    path: str
    root: str
    kind: str
    size: int
    mtime_ns: int
    caption: str
    state: State
    error: str | None
    hash: str | None

    def same_file_as(self, item: MediaItem) -> bool:
        """Whether size and modification time are as they were."""
        return self.size == item.size and self.mtime_ns == item.mtime_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """A content that is about to be stored, under these ids; see `description`."""

    content: str
    kind: str
    ids: tuple[str, ...]
    described_by: str


_COLUMNS = "path, root, kind, size, mtime_ns, caption, state, error, hash"
_COLUMN_NAMES = _COLUMNS.split(", ")


class Catalog:
    """SQLite file in the library folder. Safe to use from several threads.

    Raises:
        CatalogError: The file is damaged or cannot be opened.
        LibraryError: It was written by a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(
                database_uri(self.path), uri=True, timeout=30, check_same_thread=False
            )
            if os.access(folder, os.W_OK):
                self._db.execute("PRAGMA journal_mode = WAL")
                # A commit must survive a power cut before the next batch counts on it.
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(_SCHEMA)
            self._db.execute("CREATE TEMP TABLE seen (path TEXT PRIMARY KEY) WITHOUT ROWID")
        version = self.get_meta("schema_version")
        if version is None:
            self.set_meta("schema_version", str(SCHEMA_VERSION))
        elif int(version) > SCHEMA_VERSION:
            raise LibraryError(
                f"the library {folder} has schema {version}, this program knows {SCHEMA_VERSION}",
                remedy="update secondglance",
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.OperationalError as error:
            raise CatalogError(
                f"cannot use the catalog {self.path}: {error}",
                remedy="check that the disk has room and that the folder may be written; "
                "what was indexed is kept",
            ) from error
        except sqlite3.DatabaseError as error:
            raise CatalogError(
                f"the catalog {self.path} is damaged: {error}",
                remedy="restore it from a backup, or move it away and index again: "
                "the vectors stay and are not lost",
            ) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The database, for modules with tables or queries of their own; commits at the end."""
        with self._errors(), self._db:
            yield self._db

    def get_meta(self, key: str) -> str | None:
        """A value stored with the library."""
        with self._errors():
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Stores a value with the library."""
        with self._errors(), self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def file(self, path: Path | str) -> FileRow | None:
        """What is known of one file."""
        with self._errors():
            row = self._db.execute(
                f"SELECT {_COLUMNS} FROM files WHERE path = ?", (str(path),)
            ).fetchone()
        return None if row is None else _file_row(row)

    def files_among(self, paths: Sequence[Path]) -> dict[str, FileRow]:
        """What is known of files, by path; one query for several hundred of them."""
        rows: list[tuple[object, ...]] = []
        with self._errors():
            for start in range(0, len(paths), CHUNK):
                some = [str(path) for path in paths[start : start + CHUNK]]
                marks = ", ".join("?" * len(some))
                query = f"SELECT {_COLUMNS} FROM files WHERE path IN ({marks})"
                rows += self._db.execute(query, some).fetchall()
        return {str(row[0]): _file_row(row) for row in rows}

    def files_with(self, content: str) -> list[FileRow]:
        """The files that hold a content, by path."""
        with self._errors():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM files WHERE hash = ? ORDER BY path", (content,)
            ).fetchall()
        return [_file_row(row) for row in rows]

    def content_kinds(self, contents: Sequence[str]) -> dict[str, str]:
        """The kinds of those contents whose vectors are all stored, by hash."""
        kinds: dict[str, str] = {}
        with self._errors():
            for start in range(0, len(contents), CHUNK):
                some = contents[start : start + CHUNK]
                marks = ", ".join("?" * len(some))
                query = f"SELECT hash, kind FROM contents WHERE hash IN ({marks}) AND done"
                kinds |= dict(self._db.execute(query, some).fetchall())
        return kinds

    def announce(self, announcements: Sequence[Announcement]) -> None:
        """Notes the ids of contents before their vectors are written."""
        with self._errors(), self._db:
            for new in announcements:
                self._db.execute(
                    "INSERT OR REPLACE INTO contents VALUES (?, ?, 0, ?)",
                    (new.content, new.kind, new.described_by),
                )
                self._db.executemany(
                    "INSERT OR IGNORE INTO records VALUES (?, ?)",
                    ((new.content, id_) for id_ in new.ids),
                )

    def keep_records(self, content: str, ids: Sequence[str]) -> None:
        """Takes back the announcement of all other ids: their frames were damaged."""
        with self._errors(), self._db:
            self._db.execute("DELETE FROM records WHERE hash = ?", (content,))
            self._db.executemany(
                "INSERT INTO records VALUES (?, ?)", ((content, id_) for id_ in ids)
            )

    def finish(
        self, files: Iterable[tuple[MediaItem, str, str]], *, gone: Iterable[str] = ()
    ) -> None:
        """Marks files done, all at once: (item, content hash, kind). Vectors come before.

        Args:
            files: What is done.
            gone: Files to forget in the same transaction, because they moved.
        """
        with self._errors(), self._db:
            self._db.executemany("DELETE FROM files WHERE path = ?", ((path,) for path in gone))
            for item, content, kind in files:
                self._db.execute("UPDATE contents SET done = 1 WHERE hash = ?", (content,))
                self._put(item, kind=kind, state="done", error=None, content=content)

    def fail(self, item: MediaItem, error: str, *, state: State) -> None:
        """Notes why a file could not be indexed; what was indexed of it before stays."""
        with self._errors(), self._db:
            before = self._db.execute(
                "SELECT hash, kind FROM files WHERE path = ?", (str(item.path),)
            ).fetchone()
            content, kind = before if before and before[0] else (None, item.kind)
            self._put(item, kind=kind, state=state, error=error, content=content)

    def _put(
        self, item: MediaItem, *, kind: str, state: State, error: str | None, content: str | None
    ) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                str(item.path),
                str(item.root),
                kind,
                item.size,
                item.mtime_ns,
                item.caption,
                state,
                error,
                content,
                time.time(),
            ),
        )

    def set_caption(self, item: MediaItem) -> None:
        """Notes another caption, or another root, of an unchanged file."""
        with self._errors(), self._db:
            self._db.execute(
                "UPDATE files SET caption = ?, root = ? WHERE path = ?",
                (item.caption, str(item.root), str(item.path)),
            )

    def start_scan(self) -> None:
        """Forgets what an earlier scan over this connection came across."""
        with self._errors(), self._db:
            self._db.execute("DELETE FROM seen")

    def see(self, paths: Iterable[Path]) -> None:
        """Remembers, for this connection, that the scan came across these paths."""
        # Committed: a transaction left open would hold on to an old view of the tables, from which
        # nothing can be written once another connection has.
        with self._errors(), self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?)", ((str(path),) for path in paths)
            )

    def unseen(self, root: Path) -> list[tuple[str, str]]:
        """The files below a path that the scan did not come across: (path, root)."""
        # A range, not LIKE, which would fold case: "0" is the character after "/".
        with self._errors():
            return self._db.execute(
                "SELECT path, root FROM files WHERE (path = ? OR path > ? AND path < ?) "
                "AND path NOT IN (SELECT path FROM seen)",
                (str(root), f"{root}/", f"{root}0"),
            ).fetchall()

    def knows(self, path: Path) -> bool:
        """Whether this is a file that was indexed, or a folder with such files."""
        with self._errors():
            query = "SELECT 1 FROM files WHERE path = ? OR path > ? AND path < ? LIMIT 1"
            values = (str(path), f"{path}/", f"{path}0")
            return self._db.execute(query, values).fetchone() is not None

    def paths(self) -> Iterator[tuple[str, str]]:
        """Every file and its root, in batches: a large catalog is not held in memory."""
        after = ""
        while True:
            with self._errors():
                rows = self._db.execute(
                    "SELECT path, root FROM files WHERE path > ? ORDER BY path LIMIT 10000",
                    (after,),
                ).fetchall()
            if not rows:
                return
            yield from rows
            after = rows[-1][0]

    def file_count(self) -> int:
        """How many files are known."""
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM files").fetchone()[0])

    def forget(self, paths: Sequence[str]) -> None:
        """Removes files from the catalog; `orphans` then names what only they held."""
        with self._errors(), self._db:
            self._db.executemany("DELETE FROM files WHERE path = ?", ((path,) for path in paths))

    def orphans(self) -> list[str]:
        """Contents that no file holds: replaced, removed, or never finished."""
        with self._errors():
            rows = self._db.execute(
                "SELECT hash FROM contents WHERE hash NOT IN "
                "(SELECT hash FROM files WHERE hash IS NOT NULL)"
            ).fetchall()
        return [str(row[0]) for row in rows]

    def record_ids(self, content: str) -> list[str]:
        """The store's ids of a content."""
        with self._errors():
            rows = self._db.execute(
                "SELECT id FROM records WHERE hash = ? ORDER BY id", (content,)
            ).fetchall()
        return [str(row[0]) for row in rows]

    def drop_contents(self, contents: Sequence[str]) -> None:
        """Removes contents after their vectors were deleted."""
        with self._errors(), self._db:
            for table in ("records", "contents", "described"):
                self._db.executemany(
                    f"DELETE FROM {table} WHERE hash = ?", ((content,) for content in contents)
                )

    def failures(self) -> list[FileFailure]:
        """Every file with an error, by path."""
        with self._errors():
            rows = self._db.execute(
                "SELECT path, error FROM files WHERE error IS NOT NULL ORDER BY path"
            ).fetchall()
        return [FileFailure(path=row[0], reason=row[1]) for row in rows]

    def counts(self) -> dict[str, int]:
        """Files by kind, `failed`, and `records`."""
        with self._errors():
            kinds = self._db.execute(
                "SELECT kind, count(*) FROM files WHERE hash IS NOT NULL GROUP BY kind"
            ).fetchall()
            failed = self._db.execute("SELECT count(*) FROM files WHERE error IS NOT NULL")
            records = self._db.execute("SELECT count(*) FROM records")
            return {
                **{str(kind): int(count) for kind, count in kinds},
                "failed": int(failed.fetchone()[0]),
                "records": int(records.fetchone()[0]),
            }

    def roots(self) -> dict[str, int]:
        """The folders that files were found in, and how many each."""
        with self._errors():
            rows = self._db.execute("SELECT root, count(*) FROM files GROUP BY root ORDER BY root")
            return dict(rows.fetchall())

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        with self._lock:
            self._db.close()


def description(path: Path | str, root: Path | str, caption: str) -> str:
    """What the payloads of a content say of its file."""
    return f"{path}\n{root}\n{caption}"


def _file_row(row: Sequence[object]) -> FileRow:
    return FileRow(**dict(zip(_COLUMN_NAMES, row, strict=True)))  # type: ignore[arg-type]
