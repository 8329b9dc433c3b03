"""Saving an index beside the records it is derived from, so that a kill at any moment is harmless.

The index goes to a file of its own name; its name, size and checksum are then committed to SQLite.
So the stamp and the file cannot disagree: whatever is missing, damaged or made with other settings
is built again, and what is merely old catches up.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

# A temporary file this old is what a kill left.
_ABANDONED_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What SQLite knows of a saved index.

    Attributes:
        file: Its name in the store's folder.
        crc32: Checksum of all of it.
        size: Bytes; with `modified_ns` it tells an untouched file without reading it.
        modified_ns: Time of its last change.
        rows: Positions in it.
        revision: The records' revision that it has caught up to.
        removals: How many of these changes were removals.
        trained_for: Vectors that it was laid out for.
        settings: What it was made with.
    """

    file: str
    crc32: int
    rows: int
    settings: list[str | int]
    size: int = -1
    modified_ns: int = -1
    revision: int = -1
    removals: int = -1
    trained_for: int = 1


def read_stamp(database: sqlite3.Connection) -> Stamp | None:
    """The stamp of the saved index, if there is one."""
    found = database.execute("SELECT value FROM meta WHERE key = 'index'").fetchone()
    return Stamp(**json.loads(found[0])) if found else None


def write_stamp(database: sqlite3.Connection, stamp: Stamp) -> None:
    """Makes a stamp the one that counts."""
    value = json.dumps(asdict(stamp))
    database.execute("INSERT OR REPLACE INTO meta VALUES ('index', ?)", (value,))


def save(
    folder: Path,
    write: Callable[[Path], None],
    *,
    rows: npt.NDArray[np.int64],
    dead: npt.NDArray[np.bool_],
) -> tuple[Path, int]:
    """Writes an index and which row each position holds; durable when it returns.

    Args:
        folder: The store's.
        write: Writes the index itself to a path.
        rows: Row of each position.
        dead: Positions whose rows are gone.

    Returns:
        The file and its checksum.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    temporary = folder / f"index-{uuid.uuid4().hex}.tmp"
    path = temporary.with_suffix(".faiss")
    try:
        write(temporary)
        # FAISS reads its own part and stops; the rest is read from the end.
        with temporary.open("ab") as file:
            file.write(rows.astype("<i8").tobytes())
            file.write(dead.tobytes())
        _sync(temporary)
        temporary.replace(path)
        _sync(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path, _checksum(path)


def tidy(folder: Path, keep: Path) -> None:
    """Deletes other saved indexes and what kills left."""
    for old in folder.glob("index-*"):
        # A fresh temporary file may be what another process is writing.
        if old != keep and (old.suffix == ".faiss" or _age_s(old) > _ABANDONED_S):
            old.unlink(missing_ok=True)


def intact(path: Path, stamp: Stamp) -> bool:
    """Whether a file is what was saved; reads it only where it was touched or copied.

    FAISS may crash on a damaged file, so none is opened that fails this.

    Raises:
        OSError: It cannot be read.
    """
    state = path.stat()
    if (state.st_size, state.st_mtime_ns) == (stamp.size, stamp.modified_ns):
        return True
    return stamp.size in (-1, state.st_size) and _checksum(path) == stamp.crc32


def read_rows(path: Path, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Row of each position, and which positions are dead."""
    with path.open("rb") as file:
        file.seek(-9 * count, os.SEEK_END)
        rows = np.frombuffer(file.read(8 * count), dtype="<i8").astype(np.int64)
        dead = np.frombuffer(file.read(count), dtype=np.bool_).copy()
    return rows, dead


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value
