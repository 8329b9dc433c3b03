"""What a picture looks like, in 200 bytes, and the catalog's table of these.

A difference hash, the picture in 9 x 8 grey cells with one bit for each neighbouring pair, set
where the left one is darker; and the picture in 8 x 8 colours, which tells apart what has few
edges. Copies that were resized or compressed anew differ little in both.

Source of the hash: Neal Krawetz, "Kind of Like That" (2013), hackerfactor.com/blog/archives/529.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from secondglance.ingest.catalog import CHUNK, Catalog
from secondglance.ingest.images import load_rgb
from secondglance.media.pictures import open_picture

BITS = 64
DRAFT_PIXELS = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS looks (
    hash TEXT PRIMARY KEY, bits BLOB NOT NULL, colours BLOB NOT NULL) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a picture looks like.

    Attributes:
        bits: The difference hash, 8 bytes.
        colours: 8 x 8 RGB cells, row by row, 192 bytes.
    """

    bits: bytes
    colours: bytes


def look(image: Image.Image) -> Look:
    """The look of an upright RGB picture."""
    grey = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey, dtype=np.int16)
    bits = np.packbits(cells[:, :-1] < cells[:, 1:])
    return Look(bits.tobytes(), image.resize((8, 8), Image.Resampling.BOX).tobytes())


def look_at(path: Path, max_pixels: int) -> Look:
    """The `look` of a picture file; for a decode worker.

    Raises:
        MediaError: It cannot be read.
    """
    with open_picture(path, max_pixels=max_pixels) as image:
        return look(load_rgb(image, draft_size=(DRAFT_PIXELS, DRAFT_PIXELS)))


def note(catalog: Catalog, looks: Iterable[tuple[str, Look]]) -> None:
    """Keeps the looks of contents: (content hash, `look`)."""
    rows = [(content, look.bits, look.colours) for content, look in looks]
    if rows:
        with catalog.transaction() as database:
            database.execute(_SCHEMA)
            database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?)", rows)


def looks_of(catalog: Catalog, contents: Sequence[str]) -> dict[str, Look]:
    """The looks that are known, by content hash."""
    found: dict[str, Look] = {}
    with catalog.transaction() as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'looks'").fetchone():
            return found  # made by an earlier release, and only read since
        for start in range(0, len(contents), CHUNK):
            some = contents[start : start + CHUNK]
            query = f"SELECT * FROM looks WHERE hash IN ({', '.join('?' * len(some))})"
            found |= {row[0]: Look(*row[1:]) for row in database.execute(query, some)}
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


def all_looks(catalog: Catalog) -> dict[str, Look]:
    """The looks of all contents that some file holds, by content hash."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        rows = database.execute(
            "SELECT * FROM looks WHERE hash IN (SELECT hash FROM files) ORDER BY hash"
        )
        return {row[0]: Look(*row[1:]) for row in rows}


def drop(catalog: Catalog, contents: Sequence[str]) -> None:
    """Forgets the looks of contents that are removed."""
    with catalog.transaction() as database:
        database.execute(_SCHEMA)
        database.executemany("DELETE FROM looks WHERE hash = ?", ((each,) for each in contents))
