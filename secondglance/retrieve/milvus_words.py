"""The word index as a collection of Milvus, which ranks by BM25 itself (2.5 and newer, and Lite 3).

Documents and queries pass through the same tokens and English stems as in the library's own index
(see `lexical`), so that only the arithmetic of the ranking differs: Milvus ranks text, names and
folders apart, which are added up here by the weights of `lexical.WEIGHTS`; and Milvus Lite counts
how common a word is for each of its segments by itself.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from pymilvus import DataType, Function, FunctionType, MilvusClient

from secondglance.errors import StoreError
from secondglance.retrieve import milvus_lite, milvus_schema
from secondglance.retrieve.filter_compilers import milvus_list, milvus_literal
from secondglance.retrieve.lexical import (
    LEAST_WEIGHT,
    MAX_TERMS,
    STORE_MARKER,
    WEIGHTS,
    Document,
    WordMatch,
    parsed,
)
from secondglance.retrieve.milvus_connection import Connection
from secondglance.retrieve.milvus_schema import MAX_TEXT_BYTES
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.retrieve.tokens import tokenize
from secondglance.types import Kind

VERSION = 1
"""Of the columns and tokens; a collection of another version is emptied and filled again."""
FIELDS = ("text", "name", "folder")


def words_collection(collection: str) -> str:
    """The collection of words that goes with one of vectors."""
    return f"{collection}_words"


class MilvusWords:
    """A collection of documents by their words, beside the one of vectors.

    Args:
        folder: Of the library.
        connection: Its own; closed with it.
        collection: Of the vectors; this one adds `_words`.

    Raises:
        StoreError: The server cannot be used, or does not rank by words.
    """

    def __init__(self, folder: Path, connection: Connection, *, collection: str) -> None:
        self._connection = connection
        self._collection = words_collection(collection)
        self._marker = folder / STORE_MARKER
        self._lock = FileLock(folder / "words.lock")
        self._stems = Stems()
        try:
            if not connection.has_full_text:
                raise StoreError(
                    f"Milvus at {connection.label} does not rank by words",
                    remedy="use 2.5 or newer, or set search.words_in = library",
                )
            with connection.calling() as client:
                if not client.has_collection(self._collection, timeout=connection.timeout_s):
                    self._marker.unlink(missing_ok=True)
                    self._create(client)
                milvus_schema.load_rows(client, self._collection, timeout_s=connection.timeout_s)
        except BaseException:
            self.close()
            raise

    def is_filled(self) -> bool:
        """Whether all that was to be written when the collection was made has been noted."""
        try:
            return self._marker.read_text() == f"{VERSION} {self._collection}"
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Empties the index, which is not filled then."""
        self._marker.unlink(missing_ok=True)
        with self._connection.calling() as client:
            client.drop_collection(self._collection, timeout=self._connection.timeout_s)
            self._create(client)
            milvus_schema.load_rows(client, self._collection, timeout_s=self._connection.timeout_s)

    def mark_filled(self) -> None:
        """Says that from now on the index only follows changes."""
        self._marker.write_text(f"{VERSION} {self._collection}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Others that want to write wait for its end."""
        with self._lock:
            yield

    def replace(self, contents: Sequence[str], documents: Sequence[Document]) -> None:
        """Makes `documents` all that the index has of `contents`."""
        rows = []
        for new in documents:
            texts = (self._stems.of(tokenize(t).all) for t in (new.text, new.name, new.folder))
            row = {"id": new.record, "content": new.content, "kind": new.kind}
            rows.append(
                {**row, **{name: _fitting(t) for name, t in zip(FIELDS, texts, strict=True)}}
            )

        def write() -> None:
            with self.writing(), self._connection.calling() as client:
                options = {"timeout": self._connection.timeout_s}
                gone = f"content in {milvus_list(contents)}"
                client.delete(self._collection, filter=gone, **options)
                for start in range(0, len(rows), 200):
                    client.upsert(self._collection, rows[start : start + 200], **options)

        self._connection.patiently(write)
        if self._connection.path is not None:
            milvus_lite.sync_log(self._connection.path)

    def count(self) -> int:
        """How many documents there are."""
        with self._connection.calling() as client:
            (row,) = client.query(
                self._collection,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._connection.timeout_s,
            )
        return int(row["count(*)"])

    def search(
        self, text: str, *, limit: int, kind: Kind | None = None, without: str = ""
    ) -> list[WordMatch]:
        """As `WordIndex.search`; how common a word is, is seen from the documents found."""
        phrases, tokens = parsed(text)
        terms = list(dict.fromkeys(self._stems.of(tokens).split()))[:MAX_TERMS]
        if not terms:
            return []
        within = "" if kind is None else f"kind == {milvus_literal(kind)}"
        scores: dict[str, float] = {}
        rows: dict[str, dict[str, str]] = {}
        for field, weight in zip(FIELDS, WEIGHTS, strict=True):
            for hit in self._found(field, " ".join(terms), min(limit, MAX_LIMIT), within):
                rows[hit["id"]] = hit["entity"]
                # Lite counts distances, which are negative.
                score = weight * abs(float(hit["distance"]))
                scores[hit["id"]] = scores.get(hit["id"], 0.0) + score
        held = {id: _words_of(row) for id, row in rows.items()}
        weights = self._weights(terms, held)
        telling = {term for term in terms if weights[term] > LEAST_WEIGHT}
        whole = sum(weights.values())
        wanted = [f" {self._stems.of(phrase.split())} " for phrase in phrases]
        unwanted = set(self._stems.of(tokenize(without).all).split())
        found = [
            WordMatch(
                content=row["content"],
                record=id,
                kind=row["kind"],  # type: ignore[arg-type]
                score=scores[id],
                share=sum(weights[term] * _best_place(term, row) for term in terms) / whole,
            )
            for id, row in rows.items()
            if (not telling or telling & held[id])
            and all(any(phrase in f" {row[name]} " for name in FIELDS) for phrase in wanted)
            and not (unwanted and unwanted <= held[id])
        ]
        return sorted(found, key=lambda match: (-match.score, match.record))[:limit]

    def close(self) -> None:
        """Lets go of the connection. May be called twice."""
        self._stems.close()
        self._connection.close()

    def _found(self, field: str, text: str, limit: int, within: str) -> list[dict[str, Any]]:
        with self._connection.calling() as client:
            (found,) = client.search(
                self._collection,
                data=[text],
                anns_field=f"{field}_words",
                limit=limit,
                filter=within,
                output_fields=["content", "kind", *FIELDS],
                search_params={"metric_type": "BM25", "params": {}},
                consistency_level="Strong",
                timeout=self._connection.timeout_s,
            )
        return list(found)

    def _weights(self, terms: Sequence[str], held: Mapping[str, set[str]]) -> dict[str, float]:
        """Inverse document frequencies; of terms that the list was cut for, at most."""
        count = self.count()
        holders = {term: sum(term in words for words in held.values()) for term in terms}
        return {
            term: max(math.log((count - found + 0.5) / (found + 0.5)), LEAST_WEIGHT)
            for term, found in holders.items()
        }

    def _create(self, client: Any) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=1024)
        schema.add_field("content", DataType.VARCHAR, max_length=1024)
        schema.add_field("kind", DataType.VARCHAR, max_length=16)
        params = MilvusClient.prepare_index_params()
        for name in FIELDS:
            schema.add_field(
                name,
                DataType.VARCHAR,
                max_length=MAX_TEXT_BYTES,
                enable_analyzer=True,
                # Our tokens are ASCII words with spaces between; nothing is left to analyse.
                analyzer_params={"tokenizer": "standard"},
            )
            schema.add_field(f"{name}_words", DataType.SPARSE_FLOAT_VECTOR)
            schema.add_function(
                Function(
                    name=f"{name}_bm25",
                    function_type=FunctionType.BM25,
                    input_field_names=[name],
                    output_field_names=[f"{name}_words"],
                )
            )
            params.add_index(
                f"{name}_words",
                index_type="SPARSE_INVERTED_INDEX",
                metric_type="BM25",
                # Those of SQLite's FTS5.
                params={"bm25_k1": 1.2, "bm25_b": 0.75},
            )
        timeout_s = max(self._connection.timeout_s, 60.0)
        client.create_collection(
            self._collection, schema=schema, consistency_level="Strong", timeout=timeout_s
        )
        client.create_index(self._collection, params, timeout=timeout_s, sync=False)


class Stems:
    """Tokens in the form that any analyser takes for one word each: stemmed, and ASCII.

    The stems are those of SQLite's FTS5 (Porter's algorithm), which hands them out itself.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5(token, tokenize='porter ascii')")
        self._db.execute("CREATE VIRTUAL TABLE terms USING fts5vocab(words, 'instance')")
        self._known: dict[str, str] = {}

    def of(self, tokens: Sequence[str]) -> str:
        """The stems in the order of the tokens, with spaces between."""
        return " ".join(self._stem(token) for token in tokens)

    def _stem(self, token: str) -> str:
        if not token.isascii():
            return f"u{token.encode().hex()}"
        found = self._known.get(token)
        if found is None:
            self._db.execute("DELETE FROM words")
            self._db.execute("INSERT INTO words (rowid, token) VALUES (1, ?)", (token,))
            row = self._db.execute("SELECT term FROM terms").fetchone()
            found = self._known[token] = str(row[0]) if row else token
        return found

    def close(self) -> None:
        """Lets go of the database. May be called twice."""
        self._db.close()


def _words_of(row: Mapping[str, str]) -> set[str]:
    return {word for name in FIELDS for word in row[name].split(" ")}


def _best_place(term: str, row: Mapping[str, str]) -> float:
    """How much a word counts where the document has it; 0 where it has not."""
    places = zip(FIELDS, WEIGHTS, strict=True)
    return max((w for name, w in places if f" {term} " in f" {row[name]} "), default=0.0)


def _fitting(text: str) -> str:
    """As many whole words as a column takes; all of it is ASCII."""
    return text if len(text) <= MAX_TEXT_BYTES else text[:MAX_TEXT_BYTES].rpartition(" ")[0]
