"""Writes a library's vectors and metadata to Parquet files, for other programs or libraries."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from secondglance.errors import InputError, LibraryError
from secondglance.pipelines.batches import batches
from secondglance.pipelines.build import Parts
from secondglance.pipelines.copying import AT_ONCE
from secondglance.pipelines.opening import absolute
from secondglance.pipelines.stamp import identity_of
from secondglance.retrieve.columns import What, batch_of, schema_of
from secondglance.retrieve.store import Store
from secondglance.types import Record

if TYPE_CHECKING:
    import pyarrow.parquet as pq

FORMAT = 1
META_KEY = b"secondglance"
"""Key of the schema's metadata: JSON with what the vectors were made with."""

ROW_GROUP_BYTES = 32 * 2**20
MAX_GROUP_ROWS = 50_000
ROW_BYTES = 600
"""About what the metadata of a record takes before it is compressed."""


class ExportOptions(TypedDict, total=False):
    """What `Library.export` takes; see `export`."""

    what: What
    part_mb: int
    overwrite: bool
    on_progress: Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        out: The folder.
        what: Which columns.
        records: Rows.
        files: Names of the Parquet files.
        bytes: Their sizes together.
        embedder: What made the vectors.
        fingerprint: Of the embedder's weights and preprocessing.
        warnings: For the user.
    """

    out: str
    what: What
    records: int
    files: tuple[str, ...]
    bytes: int
    embedder: str
    fingerprint: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return asdict(self)


def export(
    parts: Parts,
    out: str | Path,
    *,
    what: What = "both",
    part_mb: int = 512,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Writes Parquet files into a new folder, which appears once all of them are complete.

    The columns are those of `retrieve.columns`. Memory holds one row group.

    Args:
        parts: Of the library; nobody should write to it meanwhile.
        out: The folder; made.
        what: Vectors with what names them, everything but vectors, or both.
        part_mb: A file that has grown to this size is followed by another.
        overwrite: Replace a folder that an earlier export made.
        on_progress: Called with (records done, records in all).

    Raises:
        InputError: The folder holds something, cannot be written, or an option is out of range.
        LibraryError: The library holds no vectors.
    """
    if what not in get_args(What):
        raise InputError(f"what is {what!r}; allowed: {', '.join(get_args(What))}")
    if part_mb < 1:
        raise InputError(f"part_mb is {part_mb}; it must be at least 1")
    fingerprint = parts.catalog.get_meta("fingerprint")
    if fingerprint is None:
        raise LibraryError(
            f"the library {parts.folder} holds no vectors yet", remedy="index something first"
        )
    folder = absolute(out)
    _check_free(folder, overwrite=overwrite)
    embedder = parts.catalog.get_meta("embedder") or parts.settings.recall.model
    store = parts.store()
    about = {
        "format": FORMAT,
        "embedder": embedder,
        "fingerprint": fingerprint,
        "dim": store.dim,
        "recall": identity_of(parts.settings.recall),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        prefix = f".{folder.name}.{os.getpid()}."
        temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=folder.parent))
        try:
            temporary.chmod(0o755)
            writer = _Writer(temporary, what, about, dim=store.dim, part_bytes=part_mb * 2**20)
            writer.write(_done(parts, store), total=store.count(), on_progress=on_progress)
            sizes = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
            manifest = {**about, "what": what, "records": writer.rows, "files": sizes}
            (temporary / "export.json").write_text(json.dumps(manifest, indent=2), "utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror or error}",
            remedy="choose a folder that may be written, on a disk with room",
        ) from error
    return Exported(
        out=str(folder),
        what=what,
        records=writer.rows,
        files=tuple(sizes),
        bytes=sum(sizes.values()),
        embedder=embedder,
        fingerprint=fingerprint,
        warnings=_skipped(writer.seen - writer.rows),
    )


class _Writer:
    def __init__(
        self, folder: Path, what: What, about: dict[str, Any], *, dim: int, part_bytes: int
    ) -> None:
        self.rows = self.seen = 0
        self._folder = folder
        self._what: What = what
        self._part_bytes = part_bytes
        self._schema = schema_of(
            what, dim=dim, metadata={META_KEY.decode(): json.dumps(about, sort_keys=True)}
        )
        row_bytes = ROW_BYTES + (0 if what == "metadata" else 4 * dim)
        wanted = min(ROW_GROUP_BYTES, part_bytes) // row_bytes
        self._group_rows = max(1, min(MAX_GROUP_ROWS, wanted))

    def write(
        self,
        portions: Iterator[tuple[int, list[Record]]],
        *,
        total: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        part = 0
        writer: pq.ParquetWriter | None = None
        waiting: list[Record] = []
        path = self._folder
        try:
            for asked, records in portions:
                self.seen += asked
                waiting += records
                while len(waiting) >= self._group_rows:
                    if writer is None:
                        path, writer = self._begin(part)
                        part += 1
                    self._group(writer, waiting[: self._group_rows])
                    waiting = waiting[self._group_rows :]
                    if path.stat().st_size >= self._part_bytes:
                        writer.close()
                        writer = None
                on_progress(self.seen, total)
            if waiting or part == 0:  # an empty library still has a schema
                if writer is None:
                    path, writer = self._begin(part)
                self._group(writer, waiting)
        finally:
            if writer is not None:
                writer.close()

    def _begin(self, part: int) -> tuple[Path, pq.ParquetWriter]:
        import pyarrow.parquet as pq

        path = self._folder / f"part-{part:05}.parquet"
        words = [name for name in self._schema.names if name not in ("id", "vector")]
        return path, pq.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=words, write_statistics=words
        )

    def _group(self, writer: pq.ParquetWriter, records: list[Record]) -> None:
        writer.write_batch(batch_of(records, self._what, self._schema), len(records) or None)
        self.rows += len(records)


def _done(parts: Parts, store: Store) -> Iterator[tuple[int, list[Record]]]:
    """(how many were asked for, those of contents that are complete and held by a file)."""
    for ids in batches(store.ids(), AT_ONCE):
        records = store.get(ids)
        items = sorted({str(record.payload.get("item", "")) for record in records})
        done = parts.catalog.content_kinds(items)
        held = {item for item in done if parts.catalog.files_with(item)}
        yield len(ids), [r for r in records if r.payload.get("item") in held]


def _skipped(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (
        f"{count} records of files that were not indexed to the end were left out; run "
        "`secondglance index`, then export again",
    )


def _check_free(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder", remedy="name another folder")
    names = {path.name for path in folder.iterdir()}
    ours = "export.json" in names and all(
        name == "export.json" or (name.startswith("part-") and name.endswith(".parquet"))
        for name in names
    )
    if names and not (overwrite and ours):
        raise InputError(
            f"{folder} holds {'an export' if ours else 'other files'} already",
            remedy="name another folder" + (", or say --overwrite" if ours else ""),
        )


def _remove_abandoned(folder: Path) -> None:
    """What a killed export left: folders named after a process that is gone."""
    prefix = f".{folder.name}."
    for path in folder.parent.iterdir():
        if not (path.name.startswith(prefix) and path.name.endswith(".partial")):
            continue
        process = path.name.removeprefix(prefix).partition(".")[0]
        if process.isdigit() and not _runs(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
