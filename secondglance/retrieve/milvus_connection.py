"""One client of Milvus Lite or of a Milvus server: calls to it, their errors, and its end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from pymilvus import MilvusClient

from secondglance.errors import SecondGlanceError, StoreError
from secondglance.retrieve import milvus_errors, milvus_lite, milvus_server
from secondglance.retrieve.milvus_server import Tls

T = TypeVar("T")

# Work on local disks may stall behind a compaction; it is not lost.
_LITE_TIMEOUT_S = 600.0


class Connection:
    """A client of its own.

    Attributes:
        path: The folder of Milvus Lite; None for a server.
        label: The folder or the address, without secrets.
        timeout_s: Longest wait per call.
        version: Major and minor of a server; None for Lite, also behind an address, and where the
            server does not say.

    Args:
        uri: A path that ends in `.db`, or the address of a server.
        token: `user:password` or an API key.
        timeout_s: Longest wait for a server, per call.
        retry_s: Longest wait of a job for a server that went away.
        tls: For an encrypted connection.

    Raises:
        InputError: The path or the TLS settings are malformed.
        StoreError: As `MilvusStore`.
    """

    def __init__(
        self, uri: str | Path, *, token: str | None, timeout_s: float, retry_s: float, tls: Tls
    ) -> None:
        address = str(uri)
        self.path: Path | None = None
        self.version: tuple[int, int] | None = None
        self._client: Any = None
        self._is_lite = False
        self._retry_s = retry_s
        self._lock = threading.RLock()
        if "://" in address:
            self.label, self.timeout_s = milvus_server.without_secrets(address), timeout_s
            with self._errors():
                self._client, self.version, self._is_lite = milvus_server.connect(
                    address, token=token, tls=tls, timeout_s=timeout_s
                )
            return
        path = Path(address).absolute()
        self.label, self.timeout_s = str(path), _LITE_TIMEOUT_S
        address = milvus_lite.acquire(path)
        self.path = path
        try:
            with self._errors():
                self._client = MilvusClient(
                    address, timeout=timeout_s, grpc_options=milvus_lite.GRPC_OPTIONS
                )
        except BaseException:
            milvus_lite.release(path)
            raise

    @property
    def is_open(self) -> bool:
        """Whether it was not closed yet."""
        return self._client is not None

    @property
    def has_full_text(self) -> bool:
        """Whether it ranks by words itself: servers from 2.5 on, and Lite, be it elsewhere."""
        is_lite = self.path is not None or self._is_lite
        return is_lite or (self.version or (0, 0)) >= milvus_server.FULL_TEXT_VERSION

    @contextmanager
    def calling(self) -> Iterator[Any]:
        """The client, for one call or a few that belong together.

        Raises:
            StoreError: The connection is closed, or the call failed.
        """
        # Lite takes one writer per collection, and one lock is cheap beside a call within a
        # machine; a server's client carries the calls of several threads at a time.
        with self._lock if self.path is not None else nullcontext():
            client = self._client
            if client is None:
                raise StoreError("the store is closed", remedy="open it again")
            with self._errors():
                yield client

    def patiently(self, work: Callable[[], T]) -> T:
        """Does work of a job, again and again while a server is away."""
        if self.path is not None:
            return work()
        return milvus_server.patiently(work, patience_s=self._retry_s)

    def close(self) -> None:
        """Lets go of the client and of the Lite folder. May be called twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is None:
            return
        client.close()
        if self.path is not None:
            milvus_lite.release(self.path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SecondGlanceError:
            raise
        except Exception as error:
            # The client lets exceptions of its own, of gRPC and of protobuf through.
            if self.path is None:
                raise milvus_errors.server_error(error, self.label) from error
            raise StoreError(
                f"Milvus Lite in {self.label} failed: {milvus_errors.text_of(error)}",
                remedy="if it is damaged, restore it, or delete it and index again",
            ) from error
