"""Files that are replaced whole: whoever reads one sees the old content or the new."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end of the block.

    If the block or the exchange fails, `path` stays as it was, and the other file is removed.

    Raises:
        OSError: The file cannot take the place of `path`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replaces a file by one of JSON, which is on the disk before it takes its place.

    Raises:
        OSError: It cannot be written; the old one stands.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.flush()
        # A power cut after the rename must not leave an empty file.
        os.fsync(file.fileno())
