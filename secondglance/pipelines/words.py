"""The word index of a library, kept in step with catalog and store.

What follows from a change of the catalog stands in a queue (`ingest.reworded`); `sync` works it
off. Run after each write of the ingestion job and before each search by words, it finds nothing to
do most of the time; after a kill it finds what was left.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from secondglance.config import Settings
from secondglance.errors import InputError
from secondglance.ingest.reworded import Reworded, RewordedQueue
from secondglance.pipelines.records import path_below
from secondglance.pipelines.stores import NAMES, collection_of, server_access
from secondglance.retrieve.lexical import FILE_NAME, STORE_MARKER, Document, WordIndex
from secondglance.types import Kind, Record

if TYPE_CHECKING:
    from secondglance.retrieve.milvus_words import MilvusWords
    from secondglance.retrieve.store import Store

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Contents that one transaction writes."""

TOLD_EVERY_S = 5.0
"""How often a long build is logged."""

SPOKEN = ("text", "tags")
"""Payload keys whose words are searched."""


class Words:
    """The index, and the queue of what it has yet to take in.

    A library made before there was an index, or one that lost it, is taken in whole by the first
    `sync`: names and captions from the catalog, passages from the store.

    Args:
        folder: Of the library.
        catalog: Its catalog file.
        index: Of this library, as `open_index` returns it; closed with this.

    Raises:
        StoreError: The index cannot be used, or is not there and the folder cannot be written.
        CatalogError: The catalog cannot be used.
    """

    def __init__(self, folder: Path, catalog: Path, index: WordIndex | MilvusWords) -> None:
        self.index = index
        self.in_store = not isinstance(index, WordIndex)
        self._queue: RewordedQueue | None = None
        if not os.access(folder, os.W_OK):
            return  # searched as it is
        try:
            self._queue = RewordedQueue(catalog)
        except BaseException:
            self.index.close()
            raise
        marker = folder / STORE_MARKER
        was_elsewhere = not self.in_store and marker.exists()
        if self._queue.is_new or was_elsewhere or not self.index.is_filled():
            self.index.clear()
            self._queue.note_all()
            self.index.mark_filled()
            if was_elsewhere:
                # The queue is this index's again; what the store has goes stale.
                marker.unlink(missing_ok=True)

    def sync(self, store: Callable[[], Store]) -> int:
        """Takes in what changed; returns how many contents that were.

        Args:
            store: Called for the store only if there is something to do.
        """
        queue = self._queue
        if queue is None or queue.is_empty():
            return 0
        told, done = time.monotonic(), 0
        while entries := self._take(queue, store()):
            done += len(entries)
            if time.monotonic() - told > TOLD_EVERY_S:
                told = time.monotonic()
                logger.info("words of %d files are in the index, %d to go", done, len(queue))
        return done

    def _take(self, queue: RewordedQueue, store: Store) -> list[Reworded]:
        # The index is locked before the queue is read: of two that do this at once, the later one
        # writes the later state.
        with self.index.writing():
            entries = queue.first(AT_ONCE)
            if entries:
                documents = list(_documents(entries, store))
                self.index.replace([entry.content for entry in entries], documents)
        queue.strike(entries)
        return entries

    def close(self) -> None:
        """Lets go of the files. May be called twice."""
        self.index.close()
        if self._queue is not None:
            self._queue.close()


def open_index(folder: Path, settings: Settings) -> WordIndex | MilvusWords:
    """The word index where `search.words_in` wants it.

    Args:
        folder: Of the library.
        settings: Of the library.

    Raises:
        InputError: The store is to rank by words, and is no Milvus.
        StoreError: The index cannot be opened, or the Milvus server does not rank by words.
    """
    where, store = settings.search.words_in, settings.store
    if where == "store" and store.backend != "milvus":
        raise InputError(
            f"search.words_in is store, and the {store.backend} store does not rank by words",
            remedy="set search.words_in = library",
        )
    if where == "library" or store.backend != "milvus":
        return WordIndex(folder / FILE_NAME)
    from secondglance.retrieve.milvus_connection import Connection
    from secondglance.retrieve.milvus_words import MilvusWords

    connection = Connection(
        store.uri or folder / NAMES[store.backend],
        retry_s=store.retry_s,
        **server_access(store),
    )
    if where == "auto" and not connection.has_full_text:
        connection.close()
        return WordIndex(folder / FILE_NAME)
    return MilvusWords(folder, connection, collection=collection_of(store))


def _documents(entries: Sequence[Reworded], store: Store) -> Iterator[Document]:
    held = [entry for entry in entries if entry.files and entry.records]
    # One record speaks for a picture or a video: all stretches have the same caption.
    speaking = [entry.records[0] for entry in held if entry.kind != "text"]
    records = {record.id: record for record in store.get(speaking)} if speaking else {}
    for entry in held:
        if entry.kind == "text":
            yield from _passages(entry, store.get(entry.records))
        else:
            record = records.get(entry.records[0])
            yield Document(
                content=entry.content,
                record=entry.records[0],
                kind=cast("Kind", entry.kind),
                text=_lines([c for _, _, c in entry.files], record.payload if record else {}),
                **_names(entry),
            )


def _passages(entry: Reworded, records: Sequence[Record]) -> Iterator[Document]:
    for record in records:
        # A file found by its name is one answer, not as many as it has passages.
        names = _names(entry) if record.payload.get("position") == 0 else {}
        yield Document(
            content=entry.content,
            record=record.id,
            kind="text",
            text=_lines([], record.payload),
            **names,
        )


def _lines(captions: Sequence[str], payload: Mapping[str, str | int | float]) -> str:
    """Every line once: a caption often stands in the payload, too."""
    spoken = [str(payload[key]) for key in SPOKEN if key in payload]
    return "\n".join(
        dict.fromkeys(line for text in (*captions, *spoken) for line in text.split("\n"))
    )


def _names(entry: Reworded) -> dict[str, str]:
    """Names of files and of their folders, from the indexed one down."""
    names = [Path(path).stem for path, _, _ in entry.files]
    folders = []
    for path, root, _ in entry.files:
        folders += [Path(root).name, *path_below(path, root).split("/")[:-1]]
    return {
        "name": "\n".join(dict.fromkeys(names)),
        "folder": "\n".join(dict.fromkeys(folders)),
    }
