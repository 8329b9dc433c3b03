"""Scores that were computed before, on disk, and the reranker that asks there first."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from secondglance.rerank import observing, score_file
from secondglance.rerank.base import Reranker
from secondglance.rerank.batching import READERS
from secondglance.rerank.coarse import coarse_view
from secondglance.rerank.digests import (
    ContentDigest,
    FileIdentity,
    content_digest,
    fingerprint,
    pair_key,
)
from secondglance.types import Content, PairScore

logger = logging.getLogger(__name__)

T = TypeVar("T")

FILE_NAME = "scores.sqlite"
CHUNK = 500
"""Rows of one statement or transaction."""
LOOK_EVERY = 1_000
"""Rows written between two looks at the size."""


class ScoreCache:
    """Scores by key, and hashes of files, in one SQLite file.

    Several threads and several processes may use one file. What goes wrong costs time and never
    an answer: a damaged file is moved aside and begun anew; where nothing can be written, nothing
    is kept. Either is said once, as a warning in the log.

    Args:
        path: The file; made on first use.
        max_mb: Size of the file, at most, in MiB; its log takes about 1 MiB more. What was not
            asked for the longest goes first.
    """

    def __init__(self, path: Path, *, max_mb: int) -> None:
        self.path = path
        self._max_bytes = max_mb << 20
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._usable = True
        self._until_look = 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, PairScore]:
        """The scores that are there, of those asked for."""
        found: dict[bytes, PairScore] = {}
        for start in range(0, len(keys), CHUNK):
            some = self._try(partial(_scores, keys=keys[start : start + CHUNK]), None)
            found |= some or {}
        return found

    def put(self, scores: Mapping[bytes, PairScore]) -> None:
        """Keeps scores; those that failed or are no finite numbers are passed over."""
        now = time.time_ns()
        rows = [
            (key, pair.score, pair.log_odds, now) for key, pair in scores.items() if _is_good(pair)
        ]
        statement = "INSERT OR REPLACE INTO scores VALUES (?, ?, ?, ?)"
        for start in range(0, len(rows), CHUNK):
            self._write(statement, rows[start : start + CHUNK])

    def file_hash(self, identity: FileIdentity) -> str | None:
        """The hash of a file in this state; None if it is not known."""
        return self._try(partial(_file_hash, identity=identity), None)

    def keep_file_hash(self, identity: FileIdentity, digest: str) -> None:
        """Notes the hash of a file in this state; any other state of it is forgotten."""
        state = (identity.size, identity.mtime_ns, identity.ctime_ns)
        row = (os.fsencode(identity.path), *state, digest, time.time_ns())
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", [row])

    def close(self) -> None:
        """Lets go of the file; nothing is found or kept from then on. May be called twice."""
        with self._lock:
            self._usable = False
            self._disconnect()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        def write(db: sqlite3.Connection) -> None:
            with score_file.transaction(db):
                db.executemany(statement, rows)
            self._until_look -= len(rows)
            if self._until_look <= 0:
                self._until_look = LOOK_EVERY
                score_file.shrink(db, self._max_bytes)

        self._try(write, None)

    def _try(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Does `work`, on a new connection or a new file if need be, or goes without the cache."""
        with self._lock:
            for last in (False, True):
                if not self._usable:
                    break
                try:
                    if self._db is None:
                        self._db = score_file.connect(self.path)
                    return work(self._db)
                except sqlite3.Error as error:
                    if score_file.is_busy(error):  # no reason to give up: the next call may pass
                        logger.debug("%s is busy: %s", self.path, error)
                        break
                    self._disconnect()
                    if last:
                        self._give_up(error)
                    elif score_file.is_damage(error):
                        self._begin_anew(error)
            return otherwise

    def _disconnect(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _begin_anew(self, reason: Exception) -> None:
        """Moves the file aside, unless another process has done so already."""
        aside = self.path.with_name(f"{self.path.name}.damaged")
        try:
            with FileLock(f"{self.path}.lock", timeout=score_file.BUSY_TIMEOUT_S):
                if score_file.is_sound(self.path):
                    return
                # The log first: SQLite would play it into the new file.
                for suffix in ("-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)
                self.path.replace(aside)
        except OSError as error:
            self._give_up(error)
            return
        logger.warning(
            "the cache of scores %s cannot be read (%s): it is now called %s, and a new one is "
            "begun; first searches take longer again",
            self.path,
            reason,
            aside.name,
        )

    def _give_up(self, reason: Exception) -> None:
        self._usable = False
        logger.warning(
            "the cache of scores %s cannot be used (%s): every search is computed anew; check that "
            "the disk has room and the folder may be written, or set rerank.score_cache_mb to 0",
            self.path,
            reason,
        )


@dataclass(slots=True)
class CacheUse:
    """How many pairs had a score in the cache, and how many had not."""

    hits: int = 0
    misses: int = 0


_counted: contextvars.ContextVar[CacheUse | None] = contextvars.ContextVar("counted", default=None)


@contextlib.contextmanager
def counting() -> Iterator[CacheUse]:
    """Counts what cached rerankers do in this block, over all calls that this thread makes.

    What an inner block counts, the outer one has counted too when the inner one ends.
    """
    use, outer = CacheUse(), _counted.get()
    token = _counted.set(use)
    try:
        yield use
    finally:
        _counted.reset(token)
        if outer is not None:
            outer.hits += use.hits
            outer.misses += use.misses


class CachedReranker:
    """A reranker that scores only what the cache does not know; `counting` tells how much.

    Args:
        reranker: Scores the rest, in one call.
        cache: Where scores are looked for and kept.
        fingerprint: Of all that is the same in every pair: the model, its settings and limits.
        weights: Hash of the checkpoint alone.
    """

    def __init__(
        self,
        reranker: Reranker,
        cache: ScoreCache,
        *,
        fingerprint: str,
        weights: str | None = None,
    ) -> None:
        self.inner = reranker
        self.weights = weights
        self._cache = cache
        self._fingerprint = fingerprint

    @property
    def name(self) -> str:
        """The name of the reranker behind the cache."""
        return self.inner.name

    def coarse(self, share: float) -> CachedReranker | None:
        """The coarse view of the reranker, behind the same cache; None if it has none.

        Raises:
            InputError: `share` is not above 0 and below 1.
        """
        view = coarse_view(self.inner, share)
        if view is None:
            return None
        # Its scores are others: they are kept, and looked for, apart.
        own = fingerprint(self._fingerprint, {"coarse_share": share})
        return CachedReranker(view, self._cache, fingerprint=own)

    def around(self, view: Callable[[Reranker], Reranker]) -> CachedReranker:
        """The same cache before a view of the reranker that scores alike, such as a meter."""
        return CachedReranker(view(self.inner), self._cache, fingerprint=self._fingerprint)

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """One score a document, in the order given.

        What cannot be read is left to the reranker, which says why. A score is kept unless it
        failed, was made with fewer pixels for lack of memory, or a file of the pair changed
        meanwhile.

        Raises:
            MediaError: The query cannot be read.
            RerankError: The second pass failed.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="rerank-hasher") as hashers:
            digest = partial(content_digest, memo=self._cache)
            asked, *offered = hashers.map(digest, [query, *documents])
        keys = [self._key(asked, digest, instruction) for digest in offered]
        known = self._cache.get([key for key in keys if key is not None])
        results = [None if key is None else known.get(key) for key in keys]
        missing = [place for place, result in enumerate(results) if result is None]
        if (use := _counted.get()) is not None:
            use.hits += len(documents) - len(missing)
            use.misses += len(missing)
        observing.tell_cache(len(documents) - len(missing), len(missing))
        if missing:
            scores = self.inner.score(
                query, [documents[place] for place in missing], instruction=instruction
            )
            fresh: dict[bytes, PairScore] = {}
            same_query = asked is not None and asked.still_true()
            for place, score in zip(missing, scores, strict=True):
                results[place] = score
                key, document = keys[place], offered[place]
                # Bytes that came after the hash must not lend their score to those before.
                if same_query and key is not None and document and document.still_true():
                    fresh[key] = score
            self._cache.put(fresh)
        return [result for result in results if result is not None]

    def _key(
        self, query: ContentDigest | None, document: ContentDigest | None, instruction: str | None
    ) -> bytes | None:
        if query is None or document is None:
            return None
        return pair_key(query, document, instruction=instruction, fingerprint=self._fingerprint)


def _scores(db: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, PairScore]:
    marks = ",".join("?" * len(keys))
    rows = db.execute(
        f"SELECT key, score, log_odds, used_ns FROM scores WHERE key IN ({marks})", tuple(keys)
    ).fetchall()
    score_file.note_use(db, "scores", [(row[0], row[3]) for row in rows])
    # Damage that SQLite does not see may leave anything in a column.
    return {
        key: PairScore(score=score, log_odds=log_odds)
        for key, score, log_odds, _ in rows
        if isinstance(score, float) and isinstance(log_odds, float | None)
    }


def _file_hash(db: sqlite3.Connection, identity: FileIdentity) -> str | None:
    path = os.fsencode(identity.path)
    row = db.execute(
        "SELECT hash, used_ns FROM files "
        "WHERE path = ? AND size = ? AND mtime_ns = ? AND ctime_ns = ?",
        (path, identity.size, identity.mtime_ns, identity.ctime_ns),
    ).fetchone()
    if row is None:
        return None
    score_file.note_use(db, "files", [(path, row[1])])
    return str(row[0])


def _is_good(pair: PairScore) -> bool:
    return (
        pair.error is None
        and pair.reduced is None
        and pair.score is not None
        and math.isfinite(pair.score)
        and (pair.log_odds is None or math.isfinite(pair.log_odds))
    )
