"""The embedded Milvus: started once per folder and process, stopped with its last user."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from secondglance.errors import InputError, StoreError

GRPC_OPTIONS = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": 0}
"""Of its clients. pymilvus would ping an idle connection every ten seconds, which Lite's server
answers by closing it, with a message on stderr; a connection within a machine needs no pings."""

_users: dict[Path, int] = {}
_lock = threading.Lock()


def acquire(path: Path) -> str:
    """Starts Milvus Lite on a folder, or joins the one that runs; returns its local address.

    Raises:
        InputError: The path does not end in `.db`.
        StoreError: The folder is held by another process, is damaged or cannot be written, or
            Milvus Lite is not installed.
    """
    if path.suffix != ".db":
        raise InputError(
            f"{path} is no Milvus Lite folder: its name must end in .db",
            remedy="use a name like vectors.db, or an address like http://host:19530",
        )
    try:
        from milvus_lite.server_manager import server_manager_instance as manager
    except ImportError as error:
        raise StoreError(
            "Milvus Lite is not installed", remedy='pip install "pymilvus[milvus-lite]"'
        ) from error
    with _lock:
        failure = _Failure()
        logger = logging.getLogger("milvus_lite.server_manager")
        propagate = logger.propagate
        # The manager only logs why it failed, with a traceback that no user should meet.
        logger.addHandler(failure)
        logger.propagate = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            address = manager.start_and_get_uri(str(path))
        except OSError as error:
            raise _refused(path, error) from error
        finally:
            logger.removeHandler(failure)
            logger.propagate = propagate
        if address is None:
            raise _refused(path, failure.error) from failure.error
        _users[path] = _users.get(path, 0) + 1
        return str(address)


def release(path: Path) -> None:
    """Gives up one use; the last one writes everything out and unlocks the folder."""
    from milvus_lite.server_manager import server_manager_instance as manager

    with _lock:
        left = _users.pop(path, 0) - 1
        if left > 0:
            _users[path] = left
        elif left == 0:
            manager.release_server(str(path))


def sync_log(path: Path) -> None:
    """Brings the write-ahead log to the disk, which Milvus Lite itself leaves to the system."""
    for log in path.glob("**/wal/*.arrow"):
        try:
            descriptor = os.open(log, os.O_RDONLY)
        except FileNotFoundError:
            # Written into a segment, synced and deleted since the listing.
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Failure(logging.Handler):
    """Keeps the exception that a log record carries."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.error = record.exc_info[1]


def _refused(path: Path, error: BaseException | None) -> StoreError:
    if type(error).__name__ == "DataDirLockedError":
        return StoreError(
            f"{path} is open in another process, and Milvus Lite serves one at a time",
            remedy="close the other program, or use a Milvus server",
        )
    if path.is_file():
        return StoreError(
            f"{path} is a file, and Milvus Lite keeps a folder",
            remedy="it may come from Milvus Lite 2; move it away and index again",
        )
    return StoreError(
        f"Milvus Lite cannot open {path}: {error}",
        remedy="check that it can be written; if it is damaged, restore it or index again",
    )
