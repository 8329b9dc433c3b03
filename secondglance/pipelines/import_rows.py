"""Rows of embeddings on their way into a library: the files they name, and their records."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from secondglance.errors import InputError, MediaError
from secondglance.evaluation.trec import named
from secondglance.ingest.catalog import Announcement, FileRow, description
from secondglance.ingest.embeddings import Embeddings, Part
from secondglance.ingest.imported import note_captions
from secondglance.ingest.media_types import kind_by_extension
from secondglance.pipelines.build import Parts
from secondglance.pipelines.import_check import usable
from secondglance.pipelines.opening import absolute
from secondglance.pipelines.records import (
    content_hash,
    file_payload,
    record_id,
    segment_payload,
)
from secondglance.retrieve.columns import payload_of
from secondglance.types import FileFailure, Kind, MediaItem, Record, Segment

if TYPE_CHECKING:
    from secondglance.types import Vector

AT_ONCE = 512


@dataclass(slots=True, kw_only=True)
class Imported:
    """What an import did.

    Attributes:
        rows: That were read.
        imported: Records that were written.
        files: That are in the library now because of this run.
        unchanged: Rows whose files were in the library already.
        absent: Files that do not exist, among `files`.
        changed: Rows of an export whose files hold something else now; left out.
        failed: Rows that cannot be used; `errors` says why.
        checked: Files that were embedded again for comparison.
        median_cosine: Of these; None if there were none.
        errors: By place: `metadata_0.parquet:17`.
        warnings: For the user.
    """

    rows: int = 0
    imported: int = 0
    files: int = 0
    unchanged: int = 0
    absent: int = 0
    changed: int = 0
    failed: int = 0
    checked: int = 0
    median_cosine: float | None = None
    errors: list[FileFailure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return asdict(self)


class Places:
    """Where the files are that rows name.

    Args:
        root: The folder that holds them; None if each row says it.
        strip: What paths begin with that is not below `root`.
        own: Whether rows say their root.

    Raises:
        InputError: The folder is not known, or is a file.
    """

    def __init__(self, root: str | Path | None, *, strip: str | None, own: bool) -> None:
        if root is None and not own:
            raise InputError(
                "which folder the files are in is not known", remedy="name it with --root"
            )
        self.root = None if root is None else absolute(root)
        self._strip = strip
        if self.root is not None and self.root.exists() and not self.root.is_dir():
            raise InputError(f"{self.root} is a file, not a folder", remedy="name a folder")

    def file(self, path: Any, root: Any) -> Path | None:
        """The file; None if it cannot be told."""
        try:
            return self.named(path, root)[0]
        except MediaError:
            return None

    def named(self, path: Any, root: Any) -> tuple[Path, Path]:
        """The file and its root.

        Raises:
            MediaError: There is no path, or it leads out of the root.
        """
        if not isinstance(path, str) or not path.strip():
            raise MediaError(f"the path is {path!r}")
        base = self.root if self.root is not None else Path(str(root))
        if self._strip is not None:
            path = path.removeprefix(self._strip).lstrip("/")
        full = Path(os.path.normpath(base / path))
        if base not in full.parents or "\x00" in path:
            raise MediaError(f"{path} is outside {base}; see --root and --strip")
        return full, base


@dataclass(slots=True)
class _Pending:
    """A content of which rows are still to come."""

    item: MediaItem
    kind: Kind
    wanted: int
    seen: int = 0
    ids: list[str] = field(default_factory=list)
    copies: list[MediaItem] = field(default_factory=list)


class ImportJob:
    """Writes the rows of embeddings as records, and their files as done.

    Args:
        parts: Of the library.
        found: The embeddings.
        places: Where their files are.
        report: Filled in.
        on_progress: Called with (rows done, rows in all).
    """

    def __init__(
        self,
        parts: Parts,
        found: Embeddings,
        places: Places,
        report: Imported,
        *,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._parts = parts
        self._catalog = parts.catalog
        self._found = found
        self._places = places
        self._report = report
        self._on_progress = on_progress
        self._fingerprint = parts.embedder().fingerprint
        self._pending: dict[str, _Pending] = {}
        self._hashes: dict[Path, str] = {}
        self._records: list[Record] = []
        self._captions: list[tuple[str, str]] = []
        self._missing: list[str] = []
        self._other: list[str] = []
        self._wanted: Counter[str] = Counter()
        if found.about is not None:
            for part in found.parts:
                self._wanted.update(found.column(part, "item"))

    def run(self) -> None:
        """Imports everything; what cannot be used is named in the report."""
        self._parts.words()  # notes from now on which files change
        total = self._found.rows
        self._on_progress(0, total)
        for part in self._found.parts:
            for block in self._found.blocks(part, AT_ONCE):
                self._take(part, block.start, block.rows, block.vectors)
                self._write()
                self._report.rows += len(block.rows)
                self._on_progress(self._report.rows, total)
        self._drop_incomplete()
        self._warn()

    def _take(self, part: Part, start: int, rows: list[dict[str, Any]], vectors: Any) -> None:
        placed: list[tuple[int, Path, Path]] = []
        for number, row in enumerate(rows):
            try:
                path, root = self._places.named(row[self._found.path_column], row.get("root"))
                if self._found.about is None and kind_by_extension(path) != "image":
                    raise MediaError(f"{path.name} is no picture by its name")
                placed.append((number, path, root))
            except MediaError as error:
                self._fail(part, start + number, error.problem)
        known = self._catalog.files_among([path for _, path, _ in placed])
        hashes = [row.hash for row in known.values() if row.hash is not None]
        stored = self._catalog.content_kinds(hashes)
        for number, path, root in placed:
            row = rows[number]
            item = self._item(path, root, row)
            before = known.get(str(path))
            if before is not None and _is_done(before, item, stored):
                self._report.unchanged += 1
                continue
            try:
                vector = self._checked(vectors[number])
                self._add(item, row, vector)
            except (MediaError, OSError) as error:
                self._fail(part, start + number, f"{path}: {_reason(error)}")

    def _item(self, path: Path, root: Path, row: Mapping[str, Any]) -> MediaItem:
        caption = row.get(self._found.caption_column) if self._found.caption_column else None
        if self._found.about is not None and row.get("kind") != "text":
            caption = _foreign_words(payload_of(row))
        try:
            status = path.stat()
            size, mtime_ns = status.st_size, status.st_mtime_ns
        except OSError:
            size = mtime_ns = 0
        return MediaItem(
            path=path,
            root=root,
            kind=kind_by_extension(path),
            size=size,
            mtime_ns=mtime_ns,
            caption=str(caption or "").strip(),
        )

    def _checked(self, vector: Vector | None) -> Vector:
        if vector is None:
            raise MediaError("there is no vector")
        if vector.shape != (self._found.dim,):
            raise MediaError(f"the vector has {vector.size} values, not {self._found.dim}")
        if not usable(vector):
            problem = "zero" if not np.any(vector) else "not finite"
            raise MediaError(f"the vector is {problem}")
        wide = vector.astype(np.float64)
        return cast("Vector", (wide / np.linalg.norm(wide)).astype(np.float32))

    def _add(self, item: MediaItem, row: Mapping[str, Any], vector: Vector) -> None:
        absent = not item.mtime_ns
        own = self._found.about is not None
        content = str(row["item"]) if absent and own else self._content(item, absent=absent)
        if own and content != row["item"]:
            self._report.changed += 1
            self._other.append(str(item.path))
            return
        kind = cast("Kind", row["kind"]) if own else "image"
        pending = self._pending.get(content)
        if pending is None:
            if content in self._catalog.content_kinds([content]):
                self._link(item, content, kind, absent=absent)
                return
            pending = _Pending(item, kind, self._wanted[content] if own else 1)
            self._pending[content] = pending
            if absent:
                self._missing.append(str(item.path))
        elif pending.item.path != item.path:
            if item.path not in {copy.path for copy in pending.copies}:
                pending.copies.append(item)
            return
        segment = _segment(row) if own else Segment(kind="image")
        payload = (
            payload_of(row)
            if own
            else segment_payload(content, segment, {}, kind=kind, size=item.size)
        )
        named = file_payload(item.path, item.root, item.caption, kind=kind, mtime_ns=item.mtime_ns)
        if absent:
            named.pop("modified")
        if own:
            named.pop("text", None)  # what the payload says holds the file's own words, too
        id_ = record_id(content, segment, self._fingerprint)
        self._records.append(Record(id=id_, vector=vector, payload={**payload, **named}))
        pending.ids.append(id_)
        pending.seen += 1

    def _content(self, item: MediaItem, *, absent: bool) -> str:
        if absent:
            name = str(item.path).encode("utf-8", "surrogatepass")
            return "absent-" + hashlib.blake2b(name, digest_size=16).hexdigest()
        if item.path not in self._hashes:
            if len(self._hashes) > AT_ONCE:
                self._hashes.clear()
            self._hashes[item.path] = content_hash(item.path, manifest=item.kind == "manifest")
        return self._hashes[item.path]

    def _link(self, item: MediaItem, content: str, kind: str, *, absent: bool) -> None:
        """A file whose content is in the library: a copy."""
        self._catalog.finish([(item, content, kind)])
        self._report.files += 1
        if absent:
            self._missing.append(str(item.path))

    def _write(self) -> None:
        """In the order of the ingestion job: ids, vectors, files."""
        if not self._pending:
            return
        catalog = self._catalog
        touched = {record.id for record in self._records}
        catalog.announce(
            [
                Announcement(
                    content=content,
                    kind=each.kind,
                    ids=tuple(each.ids),
                    described_by=description(each.item.path, each.item.root, each.item.caption),
                )
                for content, each in self._pending.items()
                if touched.intersection(each.ids)
            ]
        )
        if self._records:
            store = self._parts.store()
            store.upsert(self._records)
            store.flush()
        done = {c: each for c, each in self._pending.items() if each.seen == each.wanted}
        items = [(i, c, e.kind) for c, e in done.items() for i in (e.item, *e.copies)]
        note_captions(catalog, [(str(i.path), i.caption) for i, _, _ in items if i.caption])
        catalog.finish(items)
        self._parts.words().sync(self._parts.store)
        self._report.imported += len(self._records)
        self._report.files += len(items)
        self._pending = {c: e for c, e in self._pending.items() if c not in done}
        self._records = []

    def _drop_incomplete(self) -> None:
        """Contents some of whose rows cannot be used: `index` embeds them whole."""
        if not self._pending:
            return
        ids = [id_ for each in self._pending.values() for id_ in each.ids]
        store = self._parts.store()
        store.delete(ids)
        store.flush()
        self._catalog.drop_contents(list(self._pending))
        self._report.imported -= len(ids)
        names = [str(each.item.path) for each in self._pending.values()]
        self._report.warnings.append(
            f"{len(names)} files were left out because some of their rows cannot be used: "
            f"{named(names)}; `secondglance index` embeds them"
        )

    def _fail(self, part: Part, row: int, reason: str) -> None:
        self._report.failed += 1
        self._report.errors.append(FileFailure(path=f"{part.label}:{row}", reason=reason))

    def _warn(self) -> None:
        report = self._report
        report.absent = len(self._missing)
        if self._missing:
            report.warnings.append(
                f"{report.absent} files do not exist: {named(self._missing)}; their vectors were "
                "kept, and they are found as absent"
            )
        if self._other:
            files = list(dict.fromkeys(self._other))
            report.warnings.append(
                f"{len(files)} files hold something else than when they were exported: "
                f"{named(files)}; they were left out, `secondglance index` embeds them"
            )


def _is_done(before: FileRow, item: MediaItem, stored: Mapping[str, str]) -> bool:
    return before.state == "done" and before.same_file_as(item) and before.hash in stored


def _segment(row: Mapping[str, Any]) -> Segment:
    kind = cast("Kind", row["kind"])
    return Segment(
        kind=kind,
        start_s=row.get("start_s"),
        end_s=row.get("end_s"),
        keyframe_s=row.get("keyframe_s"),
        position=int(row.get("position") or 0),
    )


def _foreign_words(payload: Mapping[str, str | int | float]) -> str:
    """What the payload says of a file beyond the file's own metadata: a manifest's words."""
    own = set(str(payload.get("caption", "")).split("\n"))
    return "\n".join(line for line in str(payload.get("text", "")).split("\n") if line not in own)


def _reason(error: Exception) -> str:
    if isinstance(error, MediaError):
        return error.problem
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"
