"""Milvus: an embedded Lite folder, a server, a cluster or Zilliz Cloud, with the same code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from secondglance.errors import InputError, StoreError
from secondglance.retrieve import (
    milvus_errors,
    milvus_filters,
    milvus_index,
    milvus_lite,
    milvus_schema,
    milvus_server,
)
from secondglance.retrieve.filter_compilers import milvus_list
from secondglance.retrieve.filters import Filter
from secondglance.retrieve.milvus_connection import Connection
from secondglance.retrieve.milvus_filters import Asked, Hit
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
        self._lacks: frozenset[str] = frozenset()
        self._consistency = consistency.capitalize()
        self._wanted = index
        self._kind: IndexKind | None = "flat"
        self._rows = expected
        self._wrote = False
        self._connection = Connection(
            uri, token=token, timeout_s=timeout_s, retry_s=retry_s, tls=tls or Tls()
        )
        self._local = self._connection.path is not None
        self._timeout_s = self._connection.timeout_s
        self._patterns = milvus_server.knows_patterns(self._connection.version)
        # After a kill, Lite replays its log into memory; how much is not said.
        self._unflushed = _LITE_UNFLUSHED if self._local else 0
        try:
            with self._connection.calling() as client:
                self._open_collection(client)
        except BaseException:
            self._connection.close()
            raise

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        return self._dim

    @property
    def capabilities(self) -> Capabilities:
        """Lite is exact and belongs to one process; a server is neither."""
        local = self._local
        return Capabilities(
            exact=local,
            remote=not local,
            concurrent_processes=not local,
            index="Milvus Lite (FLAT)"
            if local
            else milvus_index.described(self._kind, self.count(), self._dim, wanted=self._wanted),
            full_text=self._connection.has_full_text,
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
        first = limit + milvus_filters.SLACK + (limit if self._kind == "ivf_sq8" else 0)
        self._seal_if_large()

        def find(asked: Asked) -> list[Hit]:
            search = partial(self._nearest, query, asked)
            found, seen = milvus_filters.nearest(search, asked, limit=limit, first=first)
            if seen is None or (self._kind == "flat" and asked.rest is None):
                return found
            # With a filter, an approximate index may return fewer than there are: HNSW of version
            # 2.3 found one of 1,000. It looks further the more it is asked for.
            total, wider = self._count(asked.expression), first
            while seen is not None and seen < total and wider < MAX_LIMIT:
                wider = min(4 * wider, MAX_LIMIT)
                found, seen = milvus_filters.nearest(search, asked, limit=limit, first=wider)
            if seen is not None and seen < total:
                found = milvus_filters.ranked(self._kept(asked, query))
            return found[:limit]

        return [
            Match(
                id=hit["id"],
                score=round(float(hit["distance"]), milvus_filters.RANK_DIGITS),
                payload=load(hit["entity"]["payload"]),
            )
            for hit in self._asking(filter, find)
        ]

    def _nearest(self, query: Vector, asked: Asked, wanted: int) -> list[Hit]:
        quantised = self._kind == "ivf_sq8"
        with self._connection.calling() as client:
            (found,) = client.search(
                self._collection,
                data=[query],
                limit=wanted,
                filter=asked.expression,
                output_fields=["payload", "vector"] if quantised else ["payload"],
                search_params={
                    "metric_type": "COSINE",
                    "params": milvus_index.search_params(self._kind, wanted),
                },
                consistency_level=self._consistency,
                timeout=self._timeout_s,
            )
        return milvus_index.exactly_scored(found, query) if quantised else list(found)

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
        return (row["id"] for row in self._rows_of_all(["id"]))

    def count(self, *, filter: Filter | None = None) -> int:
        """How many records there are, or how many a filter keeps."""

        def count(asked: Asked) -> int:
            if asked.rest is not None:
                return sum(1 for _ in self._kept(asked))
            return self._count(asked.expression)

        return self._asking(filter, count)

    def _count(self, expression: str) -> int:
        (row,) = self._query(filter=expression, output_fields=["count(*)"])
        return int(row["count(*)"])

    def _kept(self, asked: Asked, query: Vector | None = None) -> Iterator[Hit]:
        """All that a filter keeps which the server knows in part; by the query, with cosines."""
        found = self._rows_of_all(["id", "payload"], asked.expression)
        kept = (row for row in found if asked.keeps(row["payload"]))
        if query is None:
            yield from kept
            return
        while few := [row["id"] for row in islice(kept, BATCH_ROWS // 2)]:
            fields = ["id", "payload", "vector"]
            rows = self._query(filter=f"id in {milvus_list(few)}", output_fields=fields)
            yield from milvus_filters.scored(rows, query)

    def _rows_of_all(self, fields: list[str], expression: str = "") -> Iterator[Hit]:
        if not milvus_server.pages_itself(self._connection.version):
            yield from milvus_filters.paged(self._query, expression, fields, size=BATCH_ROWS)
            return
        asked = {"batch_size": BATCH_ROWS, "output_fields": fields, "timeout": self._timeout_s}
        with self._connection.calling() as client:
            pages = client.query_iterator(self._collection, filter=expression, **asked)
            page = pages.next()
        while page:
            yield from page
            with self._connection.calling():
                page = pages.next()
        pages.close()

    def flush(self) -> None:
        """Returns when everything written before survives a kill of this process.

        A server has an acknowledged write in its log, and Lite has handed it to the system; the
        log is brought to the disk here.
        """
        if not self._local and self._unflushed >= _SERVER_UNFLUSHED:
            self._write("flush")
            self._unflushed = 0
        with self._connection.calling():
            self._seal_if_large()
            if self._connection.path is not None:
                milvus_lite.sync_log(self._connection.path)

    def close(self) -> None:
        """Flushes and lets go of the connection and the Lite folder. May be called twice."""
        if not self._connection.is_open:
            return
        try:
            if self._unflushed and (self._local or self._growing()):
                with self._connection.calling() as client:
                    client.flush(self._collection, timeout=_FLUSH_TIMEOUT_S)
        finally:
            self._connection.close()

    def _open_collection(self, client: Any) -> None:
        milvus_schema.finish_renewal(client, self._collection, timeout_s=self._timeout_s)
        if not client.has_collection(self._collection, timeout=self._timeout_s):
            milvus_schema.create(
                client,
                self._collection,
                dim=self._dim,
                index=self._new_index(self._rows),
                timeout_s=self._timeout_s,
            )
        self._lacks = milvus_schema.lacking(
            client,
            self._collection,
            dim=self._dim,
            label=self._connection.label,
            timeout_s=self._timeout_s,
        )
        if not self._local:
            found = client.describe_index(self._collection, "vector", timeout=self._timeout_s)
            self._kind = milvus_index.kind_of(found)
            if self._wanted not in ("auto", self._kind):
                milvus_schema.rebuild_index(
                    client,
                    self._collection,
                    self._new_index(0),
                    label=self._connection.label,
                    timeout_s=self._timeout_s,
                )
                self._kind = self._wanted
        milvus_schema.load_rows(client, self._collection, timeout_s=self._timeout_s)

    def _asking(self, filter: Filter | None, work: Callable[[Asked], T]) -> T:
        """Does something with a filter, as far as server and collection can answer it."""
        unknown = sorted(self._lacks & filter.fields()) if filter is not None else []
        if unknown:
            raise StoreError(
                f"the store was made before there was a field {unknown[0]!r}",
                remedy="run `secondglance index` on the library once, which brings it up to date",
            )
        if self._patterns:
            try:
                return work(milvus_filters.ask(filter, patterns=True))
            except StoreError as error:
                if not milvus_errors.refuses_pattern(error.__cause__):
                    raise
                self._patterns = False
        return work(milvus_filters.ask(filter, patterns=False))

    def _renew(self) -> None:
        """Before an older collection is written: copies it into one with all columns."""
        if not self._lacks:
            return
        with self._connection.calling() as client:
            milvus_schema.renew(
                client,
                self._collection,
                dim=self._dim,
                index=self._new_index(self._rows),
                timeout_s=self._timeout_s,
            )
            self._open_collection(client)

    def _write(self, call: str, *args: Any, **options: Any) -> None:
        self._wrote = True
        timeout_s = _FLUSH_TIMEOUT_S if call == "flush" else self._timeout_s

        def once() -> None:
            with self._connection.calling() as client:
                getattr(client, call)(self._collection, *args, timeout=timeout_s, **options)

        self._connection.patiently(once)

    def _query(self, **options: Any) -> list[dict[str, Any]]:
        # Always strong, whatever searches may miss: the catalog is compared with these rows.
        def once() -> list[dict[str, Any]]:
            with self._connection.calling() as client:
                rows: list[dict[str, Any]] = client.query(
                    self._collection,
                    consistency_level="Strong",
                    timeout=self._timeout_s,
                    **options,
                )
                return rows

        return self._connection.patiently(once) if self._wrote else once()

    def _new_index(self, count: int) -> dict[str, Any]:
        wanted: IndexKind = "flat" if self._local else self._wanted
        return milvus_index.choose_index(count, self._dim, wanted=wanted).build

    def _growing(self) -> bool:
        with self._connection.calling() as client:
            sealed = client.get_collection_stats(self._collection, timeout=self._timeout_s)
        return self.count() - int(sealed["row_count"]) >= _SERVER_CLOSING

    def _seal_if_large(self) -> None:
        if not self._local or self._unflushed < _LITE_UNFLUSHED:
            return
        with self._connection.calling() as client:
            client.flush(self._collection, timeout=self._timeout_s)
            self._unflushed = 0
