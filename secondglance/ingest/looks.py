"""What a picture looks like, in 64 bits, and the catalog's table of these.

A difference hash: the picture in 9 x 8 grey cells, one bit for each neighbouring pair of cells,
set where the left one is darker. Copies that were resized or compressed anew differ in few bits.

Source: Neal Krawetz, "Kind of Like That" (2013), hackerfactor.com/blog/archives/529.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from secondglance.ingest.catalog import CHUNK, Catalog
from secondglance.ingest.images import load_rgb
from secondglance.media.pictures import open_picture

BITS = 64
DRAFT_PIXELS = 256
_HALF_RANGE = 1 << (BITS - 1)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (
    hash TEXT PRIMARY KEY, look INTEGER NOT NULL) WITHOUT ROWID
"""


def look(image: Image.Image) -> int:
    """The difference hash of an upright RGB picture, in 0 .. 2**64 - 1."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey, dtype=np.int16)
    bits = cells[:, :-1] < cells[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def look_at(path: Path, max_pixels: int) -> int:
    """The `look` of a picture file; for a decode worker.

    Raises:
        MediaError: It cannot be read.
    """
    with open_picture(path, max_pixels=max_pixels) as image:
        return look(load_rgb(image, draft_size=(DRAFT_PIXELS, DRAFT_PIXELS)))


def note(catalog: Catalog, looks: Iterable[tuple[str, int]]) -> None:
    """Keeps the looks of contents: (content hash, `look`)."""
    # SQLite's integers are signed.
    rows = [(content, value - 2 * _HALF_RANGE * (value >= _HALF_RANGE)) for content, value in looks]
    if rows:
        with catalog.transaction() as database:
            database.execute(_SCHEMA)
            database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?)", rows)


def looks_of(catalog: Catalog, contents: Sequence[str]) -> dict[str, int]:
    """The looks that are known, by content hash."""
    found: dict[str, int] = {}
    with catalog.transaction() as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'looks'").fetchone():
            return found  # made by an earlier release, and only read since
        for start in range(0, len(contents), CHUNK):
            some = contents[start : start + CHUNK]
            marks = ", ".join("?" * len(some))
            rows = database.execute(f"SELECT hash, look FROM looks WHERE hash IN ({marks})", some)
            found |= {content: value % (2 * _HALF_RANGE) for content, value in rows}
    return found


def unlooked(catalog: Catalog) -> list[tuple[str, str]]:
    """Pictures whose look is not known, each once: (content hash, a file that holds it)."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        return database.execute(
            "SELECT f.hash, min(f.path) FROM files f JOIN contents c ON c.hash = f.hash "
            "WHERE c.kind = 'image' AND c.done AND f.state = 'done' "
            "AND f.hash NOT IN (SELECT hash FROM looks) GROUP BY f.hash ORDER BY 2"
        ).fetchall()


def all_looks(catalog: Catalog) -> Iterator[tuple[str, int]]:
    """Every look of a content that some file holds."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        rows = database.execute(
            "SELECT hash, look FROM looks WHERE hash IN (SELECT hash FROM files) ORDER BY hash"
        ).fetchall()
    return ((content, value % (2 * _HALF_RANGE)) for content, value in rows)


def drop(catalog: Catalog, contents: Sequence[str]) -> None:
    """Forgets the looks of contents that are removed."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        database.executemany("DELETE FROM looks WHERE hash = ?", ((each,) for each in contents))
