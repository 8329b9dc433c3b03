"""Metadata of files that are indexed already: read again where sidecars changed, without embedding.

Libraries made before there was metadata get theirs the same way, on their next `index`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias

from secondglance.errors import MediaError
from secondglance.ingest import described
from secondglance.ingest.described import Stale
from secondglance.ingest.metadata import Description, describe_files
from secondglance.ingest.workers import DecodePool
from secondglance.pipelines.build import Parts
from secondglance.pipelines.records import described_payload
from secondglance.types import FileFailure

FILES_PER_CALL = 16
CONTENTS_AT_ONCE = 512
"""Contents whose payloads are rewritten with one write and one commit."""

_Read: TypeAlias = tuple[Stale, Description]


class DescribeJob:
    """Reads metadata again and rewrites payloads.

    Attributes:
        described: Contents whose metadata was read.
        failures: Sidecars that cannot be used.

    Args:
        parts: Of the library.
        sidecars: Of the files that the scan came across, by path.
        on_progress: Called with (contents done, contents in all).
    """

    def __init__(
        self,
        parts: Parts,
        *,
        sidecars: Mapping[str, tuple[Path, ...]],
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.described = 0
        self.failures: list[FileFailure] = []
        self._parts = parts
        self._sidecars = sidecars
        self._on_progress = on_progress

    def run(self) -> None:
        """Does the job; does nothing, and starts no worker, if all is as it was."""
        waiting = described.stale(self._parts.catalog)
        if not waiting:
            return
        pool = self._parts.decode_pool()
        batch: list[_Read] = []
        with pool:
            for done, read in enumerate(self._read(pool, waiting), start=1):
                if read is not None:
                    batch.append(read)
                if len(batch) == CONTENTS_AT_ONCE or done == len(waiting):
                    self._write(batch)
                    batch = []
                    self._on_progress(done, len(waiting))

    def _read(self, pool: DecodePool, waiting: Sequence[Stale]) -> Iterator[_Read | None]:
        """The description of each; None where it cannot be had today."""
        calls = [
            waiting[start : start + FILES_PER_CALL]
            for start in range(0, len(waiting), FILES_PER_CALL)
        ]
        ahead = 2 * pool.workers
        futures = [self._submit(pool, call) for call in calls[:ahead]]
        for number, call in enumerate(calls):
            if number + ahead < len(calls):
                futures.append(self._submit(pool, calls[number + ahead]))
            yield from self._answers(pool, call, futures[number])

    def _submit(self, pool: DecodePool, call: Sequence[Stale]) -> Future[list[Description | None]]:
        files = [(Path(s.path), s.kind, self._sidecars.get(s.path, ())) for s in call]
        return pool.submit(describe_files, files, max_pixels=self._parts.settings.ingest.max_pixels)

    def _answers(
        self, pool: DecodePool, call: Sequence[Stale], future: Future[list[Description | None]]
    ) -> Iterator[_Read | None]:
        try:
            answers = pool.result(future)
        except MediaError:
            if len(call) == 1:
                # It kills its reader: what is known of it stays, and it is not read again.
                yield call[0], Description(payload=None)
                return
            for each in call:
                yield from self._answers(pool, [each], self._submit(pool, [each]))
            return
        for each, answer in zip(call, answers, strict=True):
            yield None if answer is None else (each, answer)

    def _write(self, batch: Sequence[_Read]) -> None:
        """Payloads to the store, then what they were made from to the catalog."""
        catalog = self._parts.catalog
        answers = {
            id_: (description.payload, file.caption)
            for stale, description in batch
            if description.payload is not None and (file := catalog.file(stale.path)) is not None
            for id_ in catalog.record_ids(stale.content)
        }
        if answers:
            store = self._parts.store()
            renewed = []
            for record in store.get(list(answers)):
                metadata, caption = answers[record.id]
                payload = described_payload(record.payload, metadata, caption=caption)
                if payload != record.payload:
                    renewed.append(dataclasses.replace(record, payload=payload))
            if renewed:
                store.upsert(renewed)
                store.flush()
        described.note(catalog, [(stale.content, stale.stamp) for stale, _ in batch])
        self.described += len(batch)
        self.failures += [
            FileFailure(path=path, reason=reason)
            for _, description in batch
            for path, reason in description.problems
        ]
