"""Whether catalog and store agree: every record of every file is stored, once, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from secondglance.ingest.catalog import Catalog
from secondglance.pipelines.build import Parts
from secondglance.retrieve.store import Store

SHOWN = 20
"""Ids and files that a report names; counts are of all."""

AT_ONCE = 1000

LOST = "cannot be found in the store; index again"
"""Why files are marked that `repair` has indexed again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a comparison found.

    Attributes:
        files: That the catalog knows.
        contents: That are done.
        records: That the catalog names for these.
        stored: Records in the store.
        missing: Records of done contents that the store lacks.
        foreign: Ids in the store that the catalog does not know.
        duplicates: Ids that the store holds more than once.
        unfinished: Contents that a run was stopped in, while it stored them or removed them; the
            next run goes on.
        lost_files: Files whose records are missing.
        examples: Some of the ids, by what is wrong with them.
        repaired: Whether foreign and missing records were dealt with.
    """

    files: int
    contents: int
    records: int
    stored: int
    missing: int
    foreign: int
    duplicates: int
    unfinished: int
    lost_files: tuple[str, ...]
    examples: dict[str, list[str]]
    repaired: bool = False

    @property
    def agrees(self) -> bool:
        """Unfinished contents are no disagreement: the catalog knows that they are not done."""
        return not (self.missing or self.foreign or self.duplicates or self.lost_files)

    @property
    def remedy(self) -> str | None:
        """What to do, if anything."""
        if self.repaired:
            return "run `secondglance index` on your folders to index again what was lost"
        if not self.agrees:
            return "run `secondglance status --verify --repair`, then `secondglance index`"
        if self.unfinished:
            return "run `secondglance index` again to finish what was interrupted"
        return None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return {"agrees": self.agrees, **asdict(self), "remedy": self.remedy}


def verify(parts: Parts, *, repair: bool = False) -> Verification:
    """Compares the catalog with the store, id by id.

    Holds the ids of the library in memory: about 100 MB for a million records.

    Args:
        parts: Of the library.
        repair: Delete foreign records, and mark files with missing ones so that the next `index`
            does them again.

    Raises:
        StoreError: The store cannot be reached.
    """
    catalog = parts.catalog
    known, unfinished = dict(_records(catalog, done=True)), dict(_records(catalog, done=False))
    stored: set[str] = set()
    repeated: list[str] = []
    foreign: list[str] = []
    store = parts.store() if catalog.get_meta("dim") is not None else None
    for id_ in store.ids() if store else ():
        if id_ in stored:
            repeated.append(id_)
        elif id_ not in known and id_ not in unfinished:
            foreign.append(id_)
        stored.add(id_)
    missing = sorted(known.keys() - stored)
    lost = sorted({known[id_] for id_ in missing} | set(_without_records(catalog)))
    if repair:  # of a repeated id all copies are deleted
        lost = sorted({*lost, *(known[id_] for id_ in repeated if id_ in known)})
    files = [file.path for content in lost for file in catalog.files_with(content)]
    if repair and store:
        _repair(catalog, store, foreign=[*foreign, *repeated], lost=lost)
    with catalog.transaction() as database:
        contents, open_ = database.execute(
            f"SELECT count(*) FILTER (WHERE {_SETTLED}), count(*) FILTER (WHERE NOT {_SETTLED}) "
            "FROM contents c"
        ).fetchone()
    return Verification(
        files=catalog.file_count(),
        contents=contents,
        records=len(known),
        stored=store.count() if store else 0,
        missing=len(missing),
        foreign=len(foreign),
        duplicates=len(repeated),
        unfinished=open_,
        lost_files=tuple(files),
        examples={
            "missing": missing[:SHOWN],
            "foreign": sorted(foreign)[:SHOWN],
            "duplicates": sorted(repeated)[:SHOWN],
        },
        repaired=repair,
    )


# Of a content that no file holds any more, the records are about to go, or gone already.
_SETTLED = """
(coalesce(c.done, 0) AND coalesce(c.hash IN (SELECT hash FROM files WHERE hash IS NOT NULL), 0))
"""


def _records(catalog: Catalog, *, done: bool) -> Iterator[tuple[str, str]]:
    """Record ids and their contents."""
    with catalog.transaction() as database:
        yield from database.execute(
            "SELECT r.id, r.hash FROM records r LEFT JOIN contents c ON c.hash = r.hash "
            f"WHERE {_SETTLED} = ?",
            (int(done),),
        ).fetchall()


def _without_records(catalog: Catalog) -> list[str]:
    """Contents of files that are marked done though the contents are not."""
    with catalog.transaction() as database:
        rows = database.execute(
            "SELECT DISTINCT f.hash FROM files f LEFT JOIN contents c ON c.hash = f.hash "
            "WHERE f.state = 'done' AND coalesce(c.done, 0) = 0"
        ).fetchall()
    return [str(row[0]) for row in rows]


def _repair(catalog: Catalog, store: Store, *, foreign: Sequence[str], lost: Sequence[str]) -> None:
    for start in range(0, len(foreign), AT_ONCE):
        store.delete(foreign[start : start + AT_ONCE])
    store.flush()
    with catalog.transaction() as database:
        for content in lost:
            database.execute("UPDATE contents SET done = 0 WHERE hash = ?", (content,))
            database.execute(
                "UPDATE files SET state = 'unreadable', error = ? WHERE hash = ?", (LOST, content)
            )
