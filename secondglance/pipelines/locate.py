"""From a record to its file, and to no other file.

Whoever may name records must not reach beyond the folders that were indexed: links are followed
first, then a file has to lie inside its folder.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from secondglance.pipelines.build import Parts
from secondglance.types import Kind, Payload

_ID = re.compile("[0-9a-f]{32}")
"""As `records.record_id` writes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A record and the file that holds it.

    Attributes:
        id: Of the record.
        kind: `image`, `video` or `text`.
        path: Without links, inside an indexed folder; None if there is no such file now.
        root: The indexed folder, without links; None as `path`.
        payload: What the store keeps of the record.
    """

    id: str
    kind: Kind
    path: Path | None
    root: Path | None
    payload: Payload

    def stretch(self) -> tuple[float, float, float]:
        """Start, end and keyframe of a film's stretch, in seconds."""
        start_s, end_s = (float(self.payload.get(name, 0)) for name in ("start_s", "end_s"))
        return start_s, end_s, float(self.payload.get("keyframe_s", start_s))


def locate(parts: Parts, id: str) -> Located | None:
    """A record by its id; None if there is none.

    Of several files with the same content it is the first that is there, that which the record
    names before the others.
    """
    if _ID.fullmatch(id) is None or parts.catalog.get_meta("dim") is None:
        return None
    found = parts.store().get([id])
    if not found:
        return None
    payload = found[0].payload
    named = os.path.join(str(payload["root"]), str(payload["path"]))  # noqa: PTH118
    files = parts.catalog.files_with(str(payload["item"]))
    path, root = None, None
    for file in sorted(files, key=lambda file: file.path != named):
        path = inside(Path(file.path), Path(file.root))
        if path is not None:
            root = Path(os.path.realpath(file.root))
            break
    kind: Kind = payload["kind"]  # type: ignore[assignment]
    return Located(id=id, kind=kind, path=path, root=root, payload=payload)


def inside(path: Path, root: Path) -> Path | None:
    """A regular file without links, if it lies in a folder; None if not, or if it is not there."""
    try:
        real, folder = path.resolve(strict=True), root.resolve(strict=True)
        regular = stat.S_ISREG(real.lstat().st_mode)
    except (OSError, RuntimeError, ValueError):  # RuntimeError: a loop of links
        return None
    return real if regular and real.is_relative_to(folder) else None


def open_inside(path: Path, root: Path) -> BinaryIO | None:
    """Opens a regular file that lies in a folder; None as `inside`.

    What was opened is what was looked at, even if somebody swaps files and links meanwhile.
    """
    real = inside(path, root)
    if real is None:
        return None
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = os.fdopen(os.open(real, flags), "rb")
    except OSError:
        return None
    opened = os.fstat(file.fileno())
    again = inside(path, root)
    try:
        same = again is not None and os.path.samestat(opened, again.lstat())
    except OSError:
        same = False
    if same and stat.S_ISREG(opened.st_mode):
        return file
    file.close()
    return None
