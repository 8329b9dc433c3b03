"""Contents whose payloads name a file that moved, is gone, or got another caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from secondglance.ingest.catalog import Catalog, FileRow

_OUTDATED = """
SELECT c.hash, c.described_by FROM contents c
WHERE c.done
  AND EXISTS (SELECT 1 FROM files f WHERE f.hash = c.hash)
  AND NOT EXISTS (
    SELECT 1 FROM files f WHERE f.hash = c.hash
    AND c.described_by = f.path || char(10) || f.root || char(10) || f.caption)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outdated:
    """A content whose records describe a file that moved or got another caption."""

    hash: str
    file: FileRow


def outdated(catalog: Catalog) -> list[Outdated]:
    """Contents described by a path that no longer holds them, or by an older caption."""
    with catalog.transaction() as database:
        rows = database.execute(_OUTDATED).fetchall()
    found = []
    for content, described_by in rows:
        files = catalog.files_with(content)
        # Of several files with one content, the one that describes it goes on doing so.
        same = [file for file in files if described_by.startswith(f"{file.path}\n")]
        found.append(Outdated(hash=content, file=(same or files)[0]))
    return found


def describe(catalog: Catalog, descriptions: Sequence[tuple[str, str]]) -> None:
    """Notes what payloads now say: (content, its `description`)."""
    with catalog.transaction() as database:
        database.executemany(
            "UPDATE contents SET described_by = ? WHERE hash = ?",
            ((said, content) for content, said in descriptions),
        )
