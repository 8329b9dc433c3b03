"""Opening SQLite databases where nothing may be written."""

from __future__ import annotations

import os
from pathlib import Path


def database_uri(path: Path) -> str:
    """The URI of a database: for reading only where its folder cannot be written."""
    if os.access(path.parent, os.W_OK):
        return path.absolute().as_uri()
    log = path.with_name(f"{path.name}-wal")
    # SQLite can read a log only through its shared-memory file; where there is no log to read,
    # `immutable` does without one.
    immutable = not (log.is_file() and log.stat().st_size)
    return f"{path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if immutable else "")
