"""Contents whose words changed: a queue in the catalog that its own tables fill.

Triggers note every content of which a file was added, removed, moved or captioned anew, in the
transaction that does it, whatever program writes. What follows the catalog (the word index) takes
entries from here, does its work and only then strikes them out; so a kill between any two steps
leaves the entry, and the work is done again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondglance.errors import CatalogError

_BUSY_S = 30.0
_NOTE = "INSERT OR REPLACE INTO reworded (hash)"
_NOTE_ALL = f"{_NOTE} SELECT DISTINCT hash FROM files WHERE hash IS NOT NULL"
# Before an insert, for REPLACE removes the old row without a trigger of its own.
_TRIGGERS = {
    "reworded_replaced": f"""BEFORE INSERT ON files BEGIN
        {_NOTE} SELECT hash FROM files WHERE path = NEW.path AND hash IS NOT NULL; END""",
    "reworded_added": f"""AFTER INSERT ON files WHEN NEW.hash IS NOT NULL BEGIN
        {_NOTE} VALUES (NEW.hash); END""",
    "reworded_changed": f"""AFTER UPDATE OF path, root, caption, hash ON files BEGIN
        {_NOTE} SELECT OLD.hash WHERE OLD.hash IS NOT NULL;
        {_NOTE} SELECT NEW.hash WHERE NEW.hash IS NOT NULL; END""",
    "reworded_removed": f"""AFTER DELETE ON files WHEN OLD.hash IS NOT NULL BEGIN
        {_NOTE} VALUES (OLD.hash); END""",
    # Payloads say something else now.
    "reworded_described": f"""AFTER UPDATE OF described_by ON contents BEGIN
        {_NOTE} VALUES (NEW.hash); END""",
    "reworded_read_again": f"""AFTER INSERT ON described BEGIN
        {_NOTE} VALUES (NEW.hash); END""",
}
# AUTOINCREMENT: a number is never used again, so an entry that was renewed is another entry.
_SCHEMA = """CREATE TABLE IF NOT EXISTS reworded (
    entry INTEGER PRIMARY KEY AUTOINCREMENT, hash TEXT NOT NULL UNIQUE)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reworded:
    """An entry of the queue.

    Attributes:
        entry: Its number.
        content: Hash of the content.
        files: The files that hold it now, as (path, root, caption); none if it is gone.
        records: Ids of its records.
        kind: Of the content; empty if it is gone.
    """

    entry: int
    content: str
    files: tuple[tuple[str, str, str], ...]
    records: tuple[str, ...]
    kind: str


class RewordedQueue:
    """The queue of one catalog, over a connection of its own.

    Args:
        path: Of the catalog, which exists.

    Raises:
        CatalogError: The catalog cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        with self._errors():
            self._db = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
        try:
            self.is_new = self._install()
            """Whether nobody noted changes until now; every content is in the queue then."""
        except CatalogError:
            self._db.close()
            raise

    def _install(self) -> bool:
        with self._errors():
            query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            there = {row[0] for row in self._db.execute(query)}
            if there >= _TRIGGERS.keys():
                return False
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:  # commits, or rolls back
                self._db.execute(_SCHEMA)
                for name, action in _TRIGGERS.items():
                    self._db.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {action}")
                self._db.execute(_NOTE_ALL)
            return True

    def note_all(self) -> None:
        """Puts every content that a file holds into the queue."""
        with self._errors():
            self._db.execute(_NOTE_ALL)

    def __len__(self) -> int:
        with self._errors():
            return int(self._db.execute("SELECT count(*) FROM reworded").fetchone()[0])

    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        with self._errors():
            return self._db.execute("SELECT 1 FROM reworded LIMIT 1").fetchone() is None

    def first(self, limit: int) -> list[Reworded]:
        """The oldest entries; contents whose vectors are not stored yet stay in the queue."""
        with self._errors():
            rows = self._db.execute(
                "SELECT entry, hash FROM reworded r WHERE NOT EXISTS (SELECT 1 FROM contents c "
                "WHERE c.hash = r.hash AND NOT c.done) ORDER BY entry LIMIT ?",
                (limit,),
            ).fetchall()
            return [self._entry(number, content) for number, content in rows]

    def _entry(self, number: int, content: str) -> Reworded:
        files = self._db.execute(
            "SELECT path, root, caption, kind FROM files WHERE hash = ? ORDER BY path", (content,)
        ).fetchall()
        records = self._db.execute(
            "SELECT id FROM records WHERE hash = ? ORDER BY id", (content,)
        ).fetchall()
        return Reworded(
            entry=number,
            content=content,
            files=tuple((path, root, caption) for path, root, caption, _ in files),
            records=tuple(id_ for (id_,) in records),
            kind=files[0][3] if files else "",
        )

    def strike(self, entries: Sequence[Reworded]) -> None:
        """Removes entries that were dealt with, unless they were renewed since."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            with self._db:
                self._db.executemany(
                    "DELETE FROM reworded WHERE entry = ?", ((e.entry,) for e in entries)
                )

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise CatalogError(
                f"cannot use the catalog {self._path}: {error}",
                remedy="check that the disk has room and that the folder may be written",
            ) from error
