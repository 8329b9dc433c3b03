"""Milvus: an embedded Lite folder, a server, a cluster or Zilliz Cloud, with the same code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from pymilvus import MilvusClient

from secondglance.errors import DimensionError, InputError, SecondGlanceError, StoreError
from secondglance.retrieve import (
    milvus_errors,
    milvus_index,
    milvus_lite,
    milvus_schema,
    milvus_server,
)
from secondglance.retrieve.fields import FIELDS
from secondglance.retrieve.filter_compilers import FLAGGED, milvus_list, to_milvus
from secondglance.retrieve.filters import Filter
from secondglance.retrieve.milvus_index import IndexKind
from secondglance.retrieve.milvus_schema import BATCH_ROWS, batches, chunks, entity
from secondglance.retrieve.milvus_server import Consistency, Tls
from secondglance.retrieve.payload import check_limit, load, rows_of, unit
from secondglance.retrieve.store import MAX_LIMIT, Capabilities
from secondglance.types import Match, Record

if TYPE_CHECKING:
    from secondglance.types import Vector

T = TypeVar("T")

# Milvus Lite scans unflushed rows in Python; more than this are brought into a segment first.
_LITE_UNFLUSHED = 1_000
# A server searches rows that are not sealed by a coarse interim index: 48 % of the nearest 100 of
# 10,000 random vectors on version 2.3. Sealed ones it searches exactly until HNSW is built.
_SERVER_UNFLUSHED = 10_000
# A flush makes a segment, and many small segments are slow. A server searches fewer rows than this
# one by one, exactly.
_SERVER_CLOSING = 1_000
_FLUSH_TIMEOUT_S = 120.0
_LOAD_TIMEOUT_S = 600.0  # a server reads a large collection into memory first
# Work on local disks may stall behind a compaction; it is not lost.
_LITE_TIMEOUT_S = 600.0
# Scores of equal vectors differ in the last float32 bits, with their place in a segment.
_RANK_DIGITS = 6
_SLACK = 16


class MilvusStore:
    """A collection of a Milvus database, by cosine.

    Lite is searched exactly (FLAT), servers through an index chosen by size. A Lite folder belongs
    to one process at a time; stores of one process share it. Writes wait for a server that went
    away, and so do reads after a write: both are parts of a job, which repeats what it did.

    Args:
        uri: A path that ends in `.db` for Milvus Lite (a folder since its version 3), or the
            address of a server: `http://host:19530`, `https://...`, `tcp://...`.
        dim: Length of the vectors.
        collection: Made if missing.
        token: `user:password` or an API key; not for Lite.
        timeout_s: Longest wait for a server, per call.
        retry_s: Longest wait of a job for a server that went away.
        consistency: What a search on a server may miss.
        index: Of a server's collection, which is rebuilt where it has another; `auto` chooses for
            new ones and leaves others as they are.
        expected: How many vectors a new collection will have, as far as is known.
        tls: For an encrypted connection.

    Raises:
        DimensionError: The collection holds vectors of another length.
        InputError: The address, the name of the collection or the TLS settings are malformed.
        StoreError: The server cannot be reached, is too old, refuses the token or cannot build the
            index; the Lite folder is damaged or held elsewhere; the collection is not ours.
    """

    def __init__(
        self,
        uri: str | Path,
        *,
        dim: int,
        collection: str = "secondglance",
        token: str | None = None,
        timeout_s: float = 10,
        retry_s: float = 120,
        consistency: Consistency = "strong",
        index: IndexKind = "auto",
        expected: int = 0,
        tls: Tls | None = None,
    ) -> None:
        if dim < 1:
            raise InputError(f"dim is {dim}; it must be at least 1")
        if not (collection.isascii() and collection.isidentifier() and len(collection) <= 255):
            raise InputError(
                f"collection {collection!r} is no Milvus name",
                remedy="use letters, digits and _, not starting with a digit",
            )
        self._dim = dim
        self._collection = collection
        self._lock = threading.RLock()
        self._client: Any = None
        self._lacks: frozenset[str] = frozenset()
        self._path: Path | None = None
        self._retry_s = retry_s
        self._consistency = consistency.capitalize()
        self._wanted = index
        self._kind: IndexKind | None = "flat"
        self._version: tuple[int, int] | None = None
        self._rows = expected
        self._wrote = False
        address = str(uri)
        if "://" in address:
            self._label = milvus_server.without_secrets(address)
            self._timeout_s = timeout_s
        else:
            self._path = Path(address).absolute()
            self._label = str(self._path)
            self._timeout_s = _LITE_TIMEOUT_S
            address = milvus_lite.acquire(self._path)
        # After a kill, Lite replays its log into memory; how much is not said.
        self._unflushed = 0 if self._path is None else _LITE_UNFLUSHED
        try:
            with self._session(connecting=True):
                if self._path is None:
                    self._client, self._version = milvus_server.connect(
                        address, token=token, tls=tls or Tls(), timeout_s=timeout_s
                    )
                else:
                    self._client = MilvusClient(
                        address, timeout=timeout_s, grpc_options=milvus_lite.GRPC_OPTIONS
                    )
                self._open_collection()
        except BaseException:
            self._release()
            raise

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    @property
    def capabilities(self) -> Capabilities:
        """Lite is exact and belongs to one process; a server is neither."""
        local = self._path is not None
        return Capabilities(
            exact=local,
            remote=not local,
            concurrent_processes=not local,
            index="Milvus Lite (FLAT)"
            if local
            else milvus_index.described(self._kind, self.count(), self._dim, wanted=self._wanted),
            full_text=(self._version or (0, 0)) >= milvus_server.FULL_TEXT_VERSION,
        )

    def upsert(self, records: Sequence[Record]) -> None:
        """Writes records in batches below the gRPC limit; an id that exists is replaced.

        Raises:
            InputError: As every store; also a payload above 65,535 bytes of JSON.
        """
        entities = [entity(row) for row in rows_of(records, dim=self._dim)]
        self._renew()
        for batch in batches(entities):
            self._write("upsert", batch)
            self._unflushed += len(batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Removes records; unknown ids are ignored."""
        self._renew()
        for chunk in chunks(ids):
            self._write("delete", filter=f"id in {milvus_list(chunk)}")
            self._unflushed += len(chunk)

    def search(self, vector: Vector, *, limit: int, filter: Filter | None = None) -> list[Match]:
        """The `limit` nearest records by cosine, best first; ties by id.

        Raises:
            InputError: As every store; also a limit above `MAX_LIMIT`.
        """
        check_limit(limit)
        if limit > MAX_LIMIT:
            raise InputError(
                f"limit is {limit}; Milvus returns at most {MAX_LIMIT}",
                remedy="ask for fewer, or use the faiss store",
            )
        query = unit(vector, dim=self._dim, what="the query vector")
        expression = self._expression(filter)
        quantised = self._kind == "ivf_sq8"
        wanted = min(limit + _SLACK + (limit if quantised else 0), MAX_LIMIT)
        self._seal_if_large()
        while True:
            with self._session():
                (found,) = self._client.search(
                    self._collection,
                    data=[query],
                    limit=wanted,
                    filter=expression,
                    output_fields=["payload", "vector"] if quantised else ["payload"],
                    search_params={
                        "metric_type": "COSINE",
                        "params": milvus_index.search_params(self._kind, wanted),
                    },
                    consistency_level=self._consistency,
                    timeout=self._timeout_s,
                )
            if quantised:
                found = milvus_index.exactly_scored(found, query)
            scores = [round(float(hit["distance"]), _RANK_DIGITS) for hit in found]
            # A tie at the cut can only be broken by id once all of it is here.
            tied = len(found) == wanted and scores[-1] >= scores[limit - 1] - 10**-_RANK_DIGITS
            if not tied or wanted == MAX_LIMIT:
                break
            wanted = min(wanted * 4, MAX_LIMIT)
        ranked = sorted(zip(scores, found, strict=True), key=lambda pair: (-pair[0], pair[1]["id"]))
        return [
            Match(id=hit["id"], score=score, payload=load(hit["entity"]["payload"]))
            for score, hit in ranked[:limit]
        ]

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The records that exist among `ids`, in the order of `ids`."""
        known: dict[str, Record] = {}
        for chunk in chunks(ids):
            for values in self._query(
                filter=f"id in {milvus_list(chunk)}", output_fields=["id", "vector", "payload"]
            ):
                known[values["id"]] = Record(
                    id=values["id"],
                    vector=np.asarray(values["vector"], dtype=np.float32),
                    payload=load(values["payload"]),
                )
        return [known[each] for each in ids if each in known]

    def ids(self) -> Iterator[str]:
        """Every id, in no order; what is written meanwhile may be missed."""
        asked = {"batch_size": BATCH_ROWS, "output_fields": ["id"], "timeout": self._timeout_s}
        with self._session():
            pages = self._client.query_iterator(self._collection, **asked)
            page = pages.next()
        while page:
            yield from (entity["id"] for entity in page)
            with self._session():
                page = pages.next()
        pages.close()

    def count(self, *, filter: Filter | None = None) -> int:
        """How many records there are, or how many a filter keeps."""
        (row,) = self._query(filter=self._expression(filter), output_fields=["count(*)"])
        return int(row["count(*)"])

    def flush(self) -> None:
        """Returns when everything written before survives a kill of this process.

        A server has an acknowledged write in its log, and Lite has handed it to the system; the
        log is brought to the disk here.
        """
        if self._path is None and self._unflushed >= _SERVER_UNFLUSHED:
            self._write("flush")
            self._unflushed = 0
        with self._session():
            self._seal_if_large()
            if self._path is not None:
                milvus_lite.sync_log(self._path)

    def close(self) -> None:
        """Flushes and lets go of the connection and the Lite folder. May be called twice."""
        with self._lock:
            if self._client is None:
                return
            try:
                if self._unflushed and (self._path is not None or self._growing()):
                    with self._session():
                        self._client.flush(self._collection, timeout=_FLUSH_TIMEOUT_S)
            finally:
                self._release()

    def _open_collection(self) -> None:
        milvus_schema.finish_renewal(self._client, self._collection, timeout_s=self._timeout_s)
        if not self._client.has_collection(self._collection, timeout=self._timeout_s):
            milvus_schema.create(
                self._client,
                self._collection,
                dim=self._dim,
                index=self._new_index(self._rows),
                timeout_s=_LOAD_TIMEOUT_S,
            )
        description = self._client.describe_collection(self._collection, timeout=self._timeout_s)
        fields = {field["name"]: field for field in description["fields"]}
        missing = [name for name in milvus_schema.column_names() if name not in fields]
        if any(name not in FIELDS or name in FLAGGED for name in missing):
            raise StoreError(
                f"the collection {self._collection!r} at {self._label} lacks {', '.join(missing)}",
                remedy="it was made by another program or release; name another collection",
            )
        self._lacks = frozenset(missing)
        dim = int(fields["vector"]["params"]["dim"])
        if dim != self._dim:
            raise DimensionError(
                f"the collection {self._collection!r} at {self._label} holds vectors of length"
                f" {dim}, not {self._dim}",
                remedy="use the embedder that it was made with, or name another collection",
            )
        if self._path is None:
            found = self._client.describe_index(self._collection, "vector", timeout=self._timeout_s)
            self._kind = milvus_index.kind_of(found)
            if self._wanted not in ("auto", self._kind):
                milvus_schema.rebuild_index(
                    self._client,
                    self._collection,
                    self._new_index(0),
                    label=self._label,
                    timeout_s=self._timeout_s,
                )
                self._kind = self._wanted
        self._client.load_collection(self._collection, timeout=_LOAD_TIMEOUT_S)

    def _expression(self, filter: Filter | None) -> str:
        """A filter for Milvus, as far as an older collection can answer it."""
        if filter is None:
            return ""
        if unknown := sorted(self._lacks & filter.fields()):
            raise StoreError(
                f"the store was made before there was a field {unknown[0]!r}",
                remedy="run `secondglance index` on the library once, which brings it up to date",
            )
        return to_milvus(filter)

    def _renew(self) -> None:
        """Before an older collection is written: copies it into one with all columns."""
        if not self._lacks:
            return
        with self._session():
            milvus_schema.renew(
                self._client,
                self._collection,
                dim=self._dim,
                index=self._new_index(self._rows),
                timeout_s=self._timeout_s,
            )
            self._open_collection()

    def _write(self, call: str, *args: Any, **options: Any) -> None:
        self._wrote = True
        timeout_s = _FLUSH_TIMEOUT_S if call == "flush" else self._timeout_s

        def once() -> None:
            with self._session():
                getattr(self._client, call)(self._collection, *args, timeout=timeout_s, **options)

        self._patiently(once)

    def _query(self, **options: Any) -> list[dict[str, Any]]:
        # Always strong, whatever searches may miss: the catalog is compared with these rows.
        def once() -> list[dict[str, Any]]:
            with self._session():
                rows: list[dict[str, Any]] = self._client.query(
                    self._collection,
                    consistency_level="Strong",
                    timeout=self._timeout_s,
                    **options,
                )
                return rows

        return self._patiently(once) if self._wrote else once()

    def _patiently(self, work: Callable[[], T]) -> T:
        if self._path is not None:
            return work()
        return milvus_server.patiently(work, patience_s=self._retry_s)

    def _new_index(self, count: int) -> dict[str, Any]:
        wanted: IndexKind = "flat" if self._path is not None else self._wanted
        return milvus_index.choose_index(count, self._dim, wanted=wanted).build

    def _growing(self) -> bool:
        with self._session():
            sealed = self._client.get_collection_stats(self._collection, timeout=self._timeout_s)
        return self.count() - int(sealed["row_count"]) >= _SERVER_CLOSING

    def _seal_if_large(self) -> None:
        if self._path is None or self._unflushed < _LITE_UNFLUSHED:
            return
        with self._session():
            self._client.flush(self._collection, timeout=self._timeout_s)
            self._unflushed = 0

    @contextmanager
    def _session(self, *, connecting: bool = False) -> Iterator[None]:
        # Lite takes one writer per collection, and one lock is cheap beside a call.
        with self._lock:
            if self._client is None and not connecting:
                raise StoreError("the store is closed", remedy="open it again")
            try:
                yield
            except SecondGlanceError:
                raise
            except Exception as error:
                # The client lets exceptions of its own, of gRPC and of protobuf through.
                raise self._store_error(error) from error

    def _store_error(self, error: Exception) -> StoreError:
        if self._path is None:
            return milvus_errors.server_error(error, self._label)
        return StoreError(
            f"Milvus Lite in {self._label} failed: {milvus_errors.text_of(error)}",
            remedy="if it is damaged, restore it, or delete it and index again",
        )

    def _release(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
        if self._path is not None:
            milvus_lite.release(self._path)
