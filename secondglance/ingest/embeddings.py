"""Folders of embeddings that other programs made, read in portions.

Two layouts: clip-retrieval's (https://github.com/rom1504/clip-retrieval, `img_emb/img_emb_0.npy`
beside `metadata/metadata_0.parquet`), and Parquet files with a column of vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from secondglance.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.parquet as pq

    Raw = npt.NDArray[np.float32]

Use = Literal["image", "text"]
EXPORT_KEY = b"secondglance"
PATH_COLUMNS = ("image_path", "path", "file_path", "filepath", "filename", "file", "image")
VECTOR_COLUMNS = ("vector", "embedding", "image_embedding", "emb", "embeddings", "features")
CAPTION_COLUMNS = ("caption", "text", "title")
_NUMBER = re.compile(r"(\d+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Some rows of one part.

    Attributes:
        start: Number of the first row within its part.
        rows: What each row says besides its vector; a missing value is None.
        vectors: float32 of shape (dim,) each; None where a row has none.
    """

    start: int
    rows: list[dict[str, Any]]
    vectors: Sequence[Raw | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of metadata with its vectors.

    Attributes:
        label: For messages.
        rows: How many.
        metadata: The Parquet file of the metadata.
        vectors: The npy file of the vectors; None where they are a column.
    """

    label: str
    rows: int
    metadata: Path
    vectors: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """What a folder of embeddings holds.

    Attributes:
        folder: Where.
        parts: In order.
        dim: Values of a vector.
        path_column: The column that names the file.
        vector_column: The column of the vectors; empty for npy files.
        caption_column: The column of words about the file; empty if there is none.
        use: Whether the vectors are those of pictures or of their captions.
        about: What an export of this program says of itself; None for other folders.
        warnings: For the user.
    """

    folder: Path
    parts: tuple[Part, ...]
    dim: int
    path_column: str
    vector_column: str
    caption_column: str
    use: Use = "image"
    about: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = field(default=())

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)

    def column(self, part: Part, name: str) -> list[Any]:
        """One column of a part, whole."""
        import pyarrow.parquet as pq

        found: list[Any] = pq.read_table(part.metadata, columns=[name])[name].to_pylist()
        return found

    def vectors_at(self, part: Part, rows: Sequence[int]) -> dict[int, Raw | None]:
        """Some vectors of a part, by row."""
        if part.vectors is not None:
            held = _mapped(part.vectors)
            return {row: np.asarray(held[row], dtype=np.float32) for row in rows}
        file = _parquet(part.metadata)
        found: dict[int, Raw | None] = {}
        start = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            inside = [row for row in rows if start <= row < start + count]
            if inside:
                read = file.read_row_group(group, columns=[self.vector_column]).column(0)
                cells = _cells(read.combine_chunks())
                found |= {row: cells[row - start] for row in inside}
            start += count
        return found

    def blocks(self, part: Part, size: int) -> Iterator[Block]:
        """The rows of a part, in order."""
        held = None if part.vectors is None else _mapped(part.vectors)
        file = _parquet(part.metadata)
        names = [name for name in file.schema_arrow.names if name != self.vector_column]
        wanted = names if held is not None else [*names, self.vector_column]
        start = 0
        for batch in file.iter_batches(batch_size=size, columns=wanted):
            rows = batch.select(names).to_pylist()
            vectors: Sequence[Raw | None]
            if held is not None:
                vectors = list(np.asarray(held[start : start + len(rows)], dtype=np.float32))
            else:
                vectors = _cells(batch.column(batch.schema.get_field_index(self.vector_column)))
            yield Block(start=start, rows=rows, vectors=vectors)
            start += len(rows)


def read_layout(
    folder: Path,
    *,
    path_column: str | None = None,
    vector_column: str | None = None,
    caption_column: str | None = None,
    use: Use | None = None,
) -> Embeddings:
    """Finds out what a folder (or one Parquet file) of embeddings holds; reads no vectors.

    Args:
        folder: The folder.
        path_column: The column that names the files; None for a usual name.
        vector_column: Of plain Parquet; None for a usual name.
        caption_column: None for a usual name, if there is one.
        use: Of clip-retrieval's two kinds of vectors; None for those of pictures, if there are any.

    Raises:
        InputError: It holds no embeddings, a column is missing, or files do not belong together.
    """
    if not folder.exists():
        raise InputError(f"there is no file or folder {str(folder)!r}", remedy="check the path")
    names = (path_column, caption_column)
    if (folder / "img_emb").is_dir() or (folder / "text_emb").is_dir():
        if vector_column is not None:
            raise InputError(
                f"{folder} keeps its vectors in npy files, not in a column {vector_column!r}",
                remedy="leave out --vector-column",
            )
        return _clip_retrieval(folder, names, use)
    if use == "text":
        raise InputError(f"{folder} has no text_emb folder", remedy="leave out --use text")
    return _plain(folder, names, vector_column)


def _clip_retrieval(
    folder: Path, names: tuple[str | None, str | None], use: Use | None
) -> Embeddings:
    names_of: dict[Use, str] = {"image": "img_emb", "text": "text_emb"}
    there = [kind for kind, name in names_of.items() if any((folder / name).glob("*.npy"))]
    if not there or (use is not None and use not in there):
        raise InputError(
            f"{folder} has no .npy files of {names_of[use or 'image']}",
            remedy="name the folder that clip-retrieval's inference wrote",
        )
    chosen = use or there[0]
    stem = names_of[chosen]
    metadata = {_number(path): path for path in (folder / "metadata").glob("*.parquet")}
    parts = []
    dims: dict[int, Path] = {}
    for path in sorted((folder / stem).glob("*.npy"), key=_number):
        shape = _mapped(path).shape
        beside = metadata.get(_number(path))
        if beside is None:
            raise InputError(
                f"{path} has no metadata/metadata_{_number(path)}.parquet beside it",
                remedy="without it nobody knows which files the vectors are of",
            )
        rows = _parquet(beside).metadata.num_rows
        if rows != shape[0]:
            raise InputError(
                f"{path} has {shape[0]} vectors, {beside} has {rows} rows",
                remedy="they do not belong together; run clip-retrieval's inference again",
            )
        dims.setdefault(shape[1], path)
        parts.append(Part(label=path.name, rows=rows, metadata=beside, vectors=path))
    if len(dims) > 1:
        said = ", ".join(f"{path.name}: {dim}" for dim, path in dims.items())
        raise InputError(f"the vectors of {folder} differ in length ({said})")
    columns = _parquet(parts[0].metadata).schema_arrow.names
    warnings = []
    if use is None and len(there) == 2:
        warnings.append(
            "the vectors of captions (text_emb) were left out, those of the pictures were taken; "
            "captions are searched by words"
        )
    return Embeddings(
        folder=folder,
        parts=tuple(parts),
        dim=next(iter(dims)),
        path_column=_column(names[0], PATH_COLUMNS, columns, "--path-column", folder),
        vector_column="",
        caption_column=_optional(names[1], columns, folder),
        use=chosen,
        warnings=tuple(warnings),
    )


def _plain(
    folder: Path, names: tuple[str | None, str | None], vector_column: str | None
) -> Embeddings:
    import pyarrow as pa

    files = [folder] if folder.is_file() else sorted(folder.glob("**/*.parquet"))
    if not files:
        raise InputError(
            f"{folder} holds no embeddings",
            remedy="name a folder with img_emb and metadata, or with Parquet files",
        )
    schema = _parquet(files[0]).schema_arrow
    about = _about(schema, files[0])
    if about is not None and "vector" not in schema.names:
        raise InputError(
            f"{folder} is an export without vectors",
            remedy="export with --what both or --what vectors",
        )
    vectors = _column(vector_column, VECTOR_COLUMNS, schema.names, "--vector-column", folder)
    kind = schema.field(vectors).type
    if not (_is_list(kind) and pa.types.is_floating(kind.value_type)):
        raise InputError(
            f"the column {vectors!r} of {files[0]} holds {kind}, not lists of floats",
            remedy="name another one with --vector-column",
        )
    parts = []
    for path in files:
        file = _parquet(path)
        if vectors not in file.schema_arrow.names:
            raise InputError(f"{path} has no column {vectors!r}, as {files[0].name} does")
        label = path.name
        parts.append(Part(label=label, rows=file.metadata.num_rows, metadata=path, vectors=None))
    return Embeddings(
        folder=folder,
        parts=tuple(parts),
        dim=_first_length(parts, vectors, kind),
        path_column=_column(names[0], PATH_COLUMNS, schema.names, "--path-column", folder)
        if about is None
        else "path",
        vector_column=vectors,
        caption_column="" if about is not None else _optional(names[1], schema.names, folder),
        about=about,
    )


def _about(schema: pa.Schema, path: Path) -> dict[str, Any] | None:
    written = (schema.metadata or {}).get(EXPORT_KEY)
    if written is None:
        return None
    try:
        found: dict[str, Any] = json.loads(written)
    except ValueError as error:
        raise InputError(f"{path} is a damaged export: {error}") from error
    if found.get("format") != 1:
        raise InputError(
            f"{path} is an export of format {found.get('format')!r}; this program reads 1",
            remedy="update secondglance",
        )
    return found


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _first_length(parts: Sequence[Part], column: str, kind: pa.DataType) -> int:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for part in parts:
        for batch in _parquet(part.metadata).iter_batches(batch_size=64, columns=[column]):
            for vector in _cells(batch.column(0)):
                if vector is not None and len(vector):
                    return len(vector)
    raise InputError(f"the column {column!r} holds no vector")


def _cells(column: pa.Array) -> list[Raw | None]:
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    if not column.null_count:
        import pyarrow as pa

        if pa.types.is_fixed_size_list(column.type):
            return list(values.reshape(len(column), column.type.list_size))
        lengths = np.diff(column.offsets.to_numpy())
        return list(np.split(values, np.cumsum(lengths)[:-1]))
    return [
        None if cell is None else np.array([np.nan if v is None else v for v in cell], np.float32)
        for cell in column.to_pylist()
    ]


def _column(
    named: str | None, usual: Sequence[str], columns: Sequence[str], option: str, folder: Path
) -> str:
    found = [named] if named is not None else [name for name in usual if name in columns]
    if not found or found[0] not in columns:
        asked = f"no column {named!r}" if named else f"none of the columns {', '.join(usual)}"
        raise InputError(
            f"{folder} has {asked}; it has {', '.join(columns)}", remedy=f"name it with {option}"
        )
    return found[0]


def _optional(named: str | None, columns: Sequence[str], folder: Path) -> str:
    if named is not None:
        return _column(named, (), columns, "--caption-column", folder)
    return next((name for name in CAPTION_COLUMNS if name in columns), "")


def _number(path: Path) -> int:
    found = _NUMBER.search(path.stem)
    return int(found.group()) if found else 0


def _mapped(path: Path) -> npt.NDArray[Any]:
    try:
        held: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"cannot read the vectors {path}: {error}") from error
    if held.ndim != 2 or held.dtype.kind != "f":
        raise InputError(
            f"{path} holds {held.dtype} of shape {held.shape}, not floats of shape (rows, length)"
        )
    return held


def _parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from error
