"""Who still uses a store: a lock that every open library shares, and that removal takes alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from pathlib import Path

from secondglance.sections import StoreSettings

try:
    import fcntl
except ImportError:  # where files that are open cannot be removed anyway
    fcntl = None  # type: ignore[assignment]


def lock_file(data: Path, store: StoreSettings) -> Path:
    """The file whose lock stands for one store of one generation."""
    place = json.dumps([store.backend, store.uri, store.collection])
    return data / f"in-use-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}.lock"


class Lease:
    """A lock, held until `release` or the end of the process.

    Of a folder that cannot be written, and on systems without such locks, it holds nothing.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def holds(self) -> bool:
        """Whether there is a lock that others heed."""
        return self._descriptor is not None

    @classmethod
    def take(cls, path: Path, *, alone: bool = False) -> Lease | None:
        """Takes the lock without waiting; None if somebody else stands in the way.

        Args:
            path: Of the lock's file; made if missing.
            alone: Nobody else may hold it, instead of nobody alone.
        """
        if fcntl is None:
            return cls(None)
        descriptor = _open(path)
        if descriptor is None:
            return cls(None)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            # Some network folders know no locks.
            return None if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else cls(None)
        return cls(descriptor)

    def release(self) -> None:
        """Lets go. May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _open(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        return os.open(path, os.O_RDONLY)
    return None
