"""What a decode worker may meet: files that hang, kill their worker, or take too much memory."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from secondglance.errors import MediaError
from secondglance.ingest import decode
from secondglance.ingest.decode import Decoded, Limits
from secondglance.ingest.images import Preprocessing
from secondglance.ingest.media_types import FileKind


def hazardous_decode_all(
    files: Sequence[tuple[Path, FileKind, Sequence[Path]]], spec: Preprocessing, limits: Limits
) -> list[Decoded | MediaError]:
    """`decode_all`, but for files whose names say what befalls the worker."""
    for path, *_ in files:
        _befall(path, limits)
    return decode.decode_all(files, spec, limits)


def _befall(path: Path, limits: Limits) -> None:
    if path.name.startswith("hangs"):
        time.sleep(600)
    if path.name.startswith("kills"):
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name.startswith("greedy"):
        bytearray(limits.max_memory_mb << 20)
    if path.name.startswith("slow"):
        path.with_suffix(".pid").write_text(str(os.getpid()))
        time.sleep(60)


def hazardous_take(path: Path, folder: Path, *_: object, **__: object) -> NoReturn:
    """Instead of `server.intake.take`: the file's first word says what befalls the worker."""
    word = path.read_bytes().split()[0]
    (folder / "half-written.png").write_bytes(b"x")
    if word == b"kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == b"greedy":
        bytearray(64 << 30)
    time.sleep(600)
    raise AssertionError("it lives")


def killing_thumbnail(*_: object) -> NoReturn:
    """Instead of `server.intake.thumbnail`: kills its worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")
