"""Captions that came with imported embeddings: a table of the catalog.

A scan finds captions in manifests. What was imported stands in no manifest, so it is kept here, by
path; where a manifest says something of the file, that goes first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from secondglance.ingest.catalog import CHUNK, Catalog

_TABLE = "imported"
_SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS {_TABLE} (path TEXT PRIMARY KEY, caption TEXT NOT NULL)"
    " WITHOUT ROWID"
)


def note_captions(catalog: Catalog, captions: Iterable[tuple[str, str]]) -> None:
    """Keeps captions: (path, caption)."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)", captions)


def captions_among(catalog: Catalog, paths: Sequence[Path]) -> dict[str, str]:
    """The imported captions of files, by path."""
    found: dict[str, str] = {}
    with catalog.transaction() as database:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if database.execute(query, (_TABLE,)).fetchone() is None:
            return {}
        for start in range(0, len(paths), CHUNK):
            some = [str(path) for path in paths[start : start + CHUNK]]
            marks = ", ".join("?" * len(some))
            query = f"SELECT path, caption FROM {_TABLE} WHERE path IN ({marks})"
            found |= dict(database.execute(query, some).fetchall())
    return found


def copy_captions(source: Catalog, target: Catalog) -> None:
    """Lets another catalog know the imported captions, too."""
    after = ""
    query = f"SELECT path, caption FROM {_TABLE} WHERE path > ? ORDER BY path LIMIT 10000"
    while True:
        with source.transaction() as database:
            known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
            if database.execute(known, (_TABLE,)).fetchone() is None:
                return
            rows = database.execute(query, (after,)).fetchall()
        if not rows:
            return
        note_captions(target, rows)
        after = rows[-1][0]
