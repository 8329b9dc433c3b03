"""One writer at a time: the lock of a library folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from secondglance.errors import LibraryBusyError, LibraryError

LOCK_FILE = "index.lock"


@contextlib.contextmanager
def writing(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes from writing to a library.

    Args:
        folder: The library folder.
        wait: For another process to be done, instead of an error.

    Raises:
        LibraryBusyError: Another process is writing.
        LibraryError: The folder cannot be written.
    """
    if not os.access(folder, os.W_OK):
        raise LibraryError(
            f"the library {folder} cannot be written",
            remedy="make it writable, or copy it to a disk that is; it can still be searched "
            "where it is, if its store is faiss, exact or a Milvus server",
        )
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise LibraryBusyError(
            f"another process is indexing into {folder}",
            remedy="wait until it is done and run the command again, or say --wait",
        ) from None
    try:
        yield
    finally:
        lock.release()
