"""Which sidecars files have, and from what the metadata of each content was read.

Two tables of the catalog: `sidecars` holds the stamp of each file's sidecars as the last scan saw
them, `described` what a content's payloads were made from. Where these differ, metadata is read
again, and the vectors stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from secondglance.ingest.catalog import Catalog
from secondglance.ingest.metadata import VERSION
from secondglance.types import Kind

# A content is described by one of its files, whose path `described_by` begins with.
_STALE = f"""
SELECT c.hash, c.kind, c.path, coalesce(s.stamp, '') FROM (
    SELECT hash, kind, substr(described_by, 1, instr(described_by, char(10)) - 1) AS path
    FROM contents WHERE done AND kind IN ('image', 'video')) c
JOIN seen ON seen.path = c.path
LEFT JOIN sidecars s ON s.path = c.path
LEFT JOIN described d ON d.hash = c.hash
WHERE d.said IS NOT '{VERSION}:' || coalesce(s.stamp, '')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A content whose metadata is to be read again.

    Attributes:
        content: Its hash.
        kind: Of the content.
        path: The file that describes it; the last scan came across it.
        stamp: Of the sidecars of that file.
    """

    content: str
    kind: Kind
    path: str
    stamp: str


def stamps(catalog: Catalog) -> dict[str, str]:
    """The stamp of every file that has sidecars."""
    with catalog.transaction() as database:
        return dict(database.execute("SELECT path, stamp FROM sidecars").fetchall())


def set_stamps(catalog: Catalog, changed: Mapping[str, str]) -> None:
    """Notes the stamps of files; an empty one where the sidecars are gone."""
    with catalog.transaction() as database:
        database.executemany("INSERT OR REPLACE INTO sidecars VALUES (?, ?)", changed.items())
        database.execute("DELETE FROM sidecars WHERE stamp = ''")


def stale(catalog: Catalog) -> list[Stale]:
    """Contents to describe again, as far as the last scan came across their files."""
    with catalog.transaction() as database:
        rows = database.execute(_STALE).fetchall()
    return [
        Stale(content=content, kind=kind, path=path, stamp=stamp)
        for content, kind, path, stamp in rows
    ]


def note(catalog: Catalog, said: Iterable[tuple[str, str]]) -> None:
    """Notes what payloads were made from: (content, stamp of the sidecars)."""
    with catalog.transaction() as database:
        database.executemany(
            "INSERT OR REPLACE INTO described VALUES (?, ?)",
            ((content, f"{VERSION}:{stamp}") for content, stamp in said),
        )
