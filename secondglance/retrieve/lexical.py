"""The word index: captions, passages, file names and folders by BM25, in any language.

SQLite's FTS5 keeps it in one file: writing is a transaction, an update costs what it changes, and
nothing is rebuilt as the library grows. FTS5 sees only tokens that `tokens` made, parted by
spaces, and stems them as English (Porter's algorithm, on ASCII words); the same is done to a
query, whose words reach FTS5 one by one in quotes and so are never syntax.

A document is a file's content (its captions, names and folders), or one passage of a text. What
is here follows from the catalog and the store, so a file that is lost can be built again.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondglance.errors import StoreError
from secondglance.media.sqlite import database_uri
from secondglance.retrieve.tokens import tokenize
from secondglance.types import Kind

FILE_NAME = "words.sqlite"
STORE_MARKER = "words-in-store"
"""File in a library's folder that says that its store has the words, and this index goes stale."""
VERSION = 1
"""Of the tables and of `tokens`; an index of another version is emptied and filled again."""

WEIGHTS = (1.0, 0.6, 0.3)
"""How much a word counts in the text, in a file's name, in the names of its folders."""

MAX_TERMS = 32
"""Of a query; of a longer one, the rarest."""

MAX_MATCHES = 20_000
"""Documents that the words of a query may have together: scoring each takes some microseconds. In a
library with more, the query's most common words, which tell the least, are not asked for."""

LEAST_WEIGHT = 1e-6
"""Of a word that half of the documents have, or more: what FTS5 gives it."""

_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS docs (
    doc INTEGER PRIMARY KEY, content TEXT NOT NULL, record TEXT NOT NULL, kind TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS docs_by_content ON docs (content);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(text, name, folder, tokenize='porter ascii');
"""
_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|「([^」]+)」')


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What the words of one file, or of one passage of a text, are.

    Attributes:
        content: Hash of the file's content.
        record: Id of its record, for pictures and passages; of one of them, for videos.
        kind: Of the content.
        text: Captions and tags, or the passage.
        name: File names without their suffix.
        folder: Names of folders.
    """

    content: str
    record: str
    kind: Kind
    text: str = ""
    name: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordMatch:
    """A document that has words of the query.

    Attributes:
        content: As in `Document`.
        record: As in `Document`.
        kind: As in `Document`.
        score: BM25, higher is better.
        share: How much of what the query says this document has, 0..1: its score beside that
            of a document with each word of the query once.
    """

    content: str
    record: str
    kind: Kind
    score: float
    share: float


class WordIndex:
    """One file; safe to use from several threads and processes.

    Args:
        path: Of the file; made if missing. Where its folder cannot be written, it is only read.

    Raises:
        StoreError: It cannot be opened or written, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._count: tuple[int, int] | None = None
        with self._errors():
            self._db = sqlite3.connect(
                database_uri(path),
                uri=True,
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
        try:
            with self._errors():
                if os.access(path.parent, os.W_OK):
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.execute("PRAGMA synchronous = NORMAL")
                    self._db.executescript(_SCHEMA)
        except StoreError:
            self._db.close()
            raise

    def is_filled(self) -> bool:
        """Whether all that was to be written when the file was made has been noted."""
        with self._errors():
            row = self._db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        return row is not None and row[0] == VERSION

    def clear(self) -> None:
        """Empties the index, which is not filled then."""
        with self.writing():
            for table in ("meta", "docs", "words"):
                self._db.execute(f"DELETE FROM {table}")

    def mark_filled(self) -> None:
        """Says that from now on the index only follows changes."""
        with self.writing():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (VERSION,))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction; other processes that want to write wait for its end."""
        with self._errors():
            if self._db.in_transaction:  # inside another one of this thread
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            self._count = None

    def replace(self, contents: Sequence[str], documents: Sequence[Document]) -> None:
        """Makes `documents` all that the index has of `contents`."""
        with self.writing():
            for content in contents:
                old = self._db.execute("SELECT doc FROM docs WHERE content = ?", (content,))
                gone = old.fetchall()
                self._db.executemany("DELETE FROM words WHERE rowid = ?", gone)
                self._db.executemany("DELETE FROM docs WHERE doc = ?", gone)
            for new in documents:
                doc = self._db.execute(
                    "INSERT INTO docs (content, record, kind) VALUES (?, ?, ?)",
                    (new.content, new.record, new.kind),
                ).lastrowid
                columns = (" ".join(tokenize(t).all) for t in (new.text, new.name, new.folder))
                self._db.execute(
                    "INSERT INTO words (rowid, text, name, folder) VALUES (?, ?, ?, ?)",
                    (doc, *columns),
                )

    def count(self) -> int:
        """How many documents there are."""
        with self._errors():
            (version,) = self._db.execute("PRAGMA data_version").fetchone()
            if self._count is None or self._count[0] != version:
                (number,) = self._db.execute("SELECT count(*) FROM docs").fetchone()
                self._count = (version, number)
            return self._count[1]

    def search(
        self, text: str, *, limit: int, kind: Kind | None = None, without: str = ""
    ) -> list[WordMatch]:
        """The documents with words of `text`, best first.

        Any word will do; more and rarer ones count more. Words in double quotes (or “”, „“, «»,
        「」) must stand side by side as they do there.

        Args:
            text: In any language.
            limit: Most documents.
            kind: Only of this kind.
            without: Documents with all of these words are left out.
        """
        phrases, terms = parsed(text)
        with self._errors():
            asked, whole = self._weighed(terms)
            if not asked:
                return []
            expression = " OR ".join(map(_quote, asked))
            for phrase in phrases:
                expression = f"{_quote(phrase)} AND ({expression})"
            unwanted, _ = self._weighed(tokenize(without).all)
            if unwanted:
                expression = f"({expression}) NOT ({' AND '.join(map(_quote, unwanted))})"
            of_kind = "" if kind is None else "AND kind = ?"
            rows = self._db.execute(
                "SELECT content, record, kind, -bm25(words, ?, ?, ?) AS score "
                "FROM words JOIN docs ON docs.doc = words.rowid "
                f"WHERE words MATCH ? {of_kind} ORDER BY score DESC, record LIMIT ?",
                (*WEIGHTS, expression, *([] if kind is None else [kind]), limit),
            ).fetchall()
        return [
            WordMatch(
                content=content, record=record, kind=of, score=score, share=min(1.0, score / whole)
            )
            for content, record, of, score in rows
        ]

    def _weighed(self, terms: Sequence[str]) -> tuple[list[str], float]:
        """The terms that are worth asking for, and the weight of a document with each of them once.

        A term's weight is its inverse document frequency. Asked for are terms that documents have,
        the rarest first, up to `MAX_TERMS` and `MAX_MATCHES`; common ones, which carry no weight
        and match everything, only where there are no others. Unknown terms add to the weight, for
        what they say is in no document.
        """
        count = self.count()
        holders = {term: self._documents_with(term) for term in dict.fromkeys(terms)}
        weights = {
            term: max(math.log((count - found + 0.5) / (found + 0.5)), LEAST_WEIGHT)
            for term, found in holders.items()
        }
        known = sorted((term for term in holders if holders[term]), key=holders.__getitem__)
        telling = [term for term in known if weights[term] > LEAST_WEIGHT]
        asked: list[str] = []
        matches = 0
        for term in (telling or known)[:MAX_TERMS]:
            matches += holders[term]
            if asked and matches > MAX_MATCHES:
                break
            asked.append(term)
        unknown = [term for term in holders if not holders[term]]
        return asked, sum(weights[term] for term in (*asked, *unknown))

    def _documents_with(self, term: str) -> int:
        query = "SELECT count(*) FROM words WHERE words MATCH ?"
        return int(self._db.execute(query, (_quote(term),)).fetchone()[0])

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise _store_error(error, self._path) from error


def parsed(text: str) -> tuple[list[str], tuple[str, ...]]:
    """The phrases of a query, as tokens with spaces between, and all of its tokens."""
    quoted = [next(filter(None, found)) for found in _QUOTED.findall(text)]
    phrases = [" ".join(tokenize(words).stream) for words in quoted]
    return [phrase for phrase in phrases if phrase], tokenize(text).all


def _quote(tokens: str) -> str:
    # Tokens are letters, marks and digits; nothing in them can end the quotes.
    return f'"{tokens}"'


def _store_error(error: sqlite3.Error, path: Path) -> StoreError:
    text = str(error)
    remedy = "check that the disk has room and that the folder may be written"
    if "locked" in text:
        remedy = "another process is writing; wait for it to end and try again"
    elif "fts5" in text and "no such module" in text:
        remedy = "use a Python whose SQLite has FTS5, or set search.lexical = false"
    elif not isinstance(error, sqlite3.OperationalError):
        remedy = "delete the file: it is built again from the catalog and the store"
    return StoreError(f"cannot use the word index {path}: {text}", remedy=remedy)
