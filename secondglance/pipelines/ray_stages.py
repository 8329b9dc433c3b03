"""What the nodes of a Ray cluster run: hashing, decoding, embedding, as stages of Ray Data.

Every stage gives rows of one shape (`SCHEMA`), so files that fail travel beside files that do not,
and a stage passes on what is not its own. Nothing here knows of a library; whoever asks keeps book.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from secondglance.errors import EmbedderMismatchError, MediaError, ModelError, SecondGlanceError
from secondglance.ingest.decode import Decoded, decode_all, decode_frames, go_on
from secondglance.ingest.workers import DecodePool
from secondglance.pipelines import build
from secondglance.pipelines.decode_calls import FRAMES_PER_CALL
from secondglance.pipelines.ray_messages import Decoding, Embedding, Failure, File, Row
from secondglance.pipelines.records import content_hash

if TYPE_CHECKING:
    from secondglance.ingest.embedder import ClipEmbedder, Vectors

SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("what", pa.large_string()),
        ("position", pa.int32()),
        ("about", pa.large_binary()),
        ("data", pa.large_binary()),
    ]
)


def calls_table(calls: Sequence[Sequence[File]]) -> pa.Table:
    """What the first stage reads; each call is given to a decode worker as a whole."""
    return pa.table({"call": pa.array([pickle.dumps(call) for call in calls], pa.large_binary())})


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of what a stage gave."""
    return list(zip(*(table.column(name).to_pylist() for name in SCHEMA.names), strict=True))


def _table(rows: Sequence[Row]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def _calls(table: pa.Table) -> Iterator[Sequence[File]]:
    for call in table.column("call").to_pylist():
        yield pickle.loads(call)


def hash_files(table: pa.Table) -> pa.Table:
    """Stage: calls to rows `hash`."""
    rows: list[Row] = []
    for file in (file for call in _calls(table) for file in call):
        answer: str | Failure
        try:
            answer = content_hash(file.path, manifest=file.kind == "manifest")
        except OSError as error:
            answer = _failure(file, error.strerror or str(error))
        rows.append((file.key, "hash", 0, pickle.dumps(answer), b""))
    return _table(rows)


def _failure(file: File, reason: str) -> Failure:
    return Failure(reason, unseen_on="" if file.path.exists() else platform.node())


@functools.lru_cache(maxsize=1)
def _pool(timeout_s: float, max_memory_mb: int) -> DecodePool:
    # Ray keeps this process for further tasks. What decodes is a child of it, which may be killed.
    return DecodePool(workers=1, timeout_s=timeout_s, max_memory_mb=max_memory_mb)


def decode_files(table: pa.Table, decoding: Decoding) -> Iterator[pa.Table]:
    """Stage: calls to rows `pixels`, `text`, `opened`, `lost` and `failed`."""
    for call in _calls(table):
        for rows in _decoded(call, decoding):
            yield _table(rows)


def _decoded(files: Sequence[File], decoding: Decoding) -> Iterator[list[Row]]:
    pool = _pool(decoding.timeout_s, decoding.max_memory_mb)
    spec, limits = decoding.preprocessing, decoding.limits
    wanted = [(file.path, file.kind, file.sidecars) for file in files]
    answers: Sequence[Decoded | MediaError]
    try:
        answers = pool.result(pool.submit(decode_all, wanted, spec, limits))
    except MediaError as error:
        if len(files) > 1:
            # One of them took the worker, or all the time there was. Which one?
            for file in files:
                yield from _decoded([file], decoding)
            return
        answers = [error]
    rows: list[Row] = []
    for file, answer in zip(files, answers, strict=True):
        found = answer
        while isinstance(found, Decoded) and found.unfinished is not None:
            scan = found.unfinished
            try:
                found = pool.result(pool.submit(go_on, file.path, scan, limits, file.sidecars))
            except MediaError as error:
                found = error
        if isinstance(found, MediaError):
            about = pickle.dumps(_failure(file, str(found)))
            rows.append((file.key, "failed", 0, about, b""))
            continue
        rows += _opened(file, found)
        if found.kind == "video":
            for first in range(0, len(found.frames), FRAMES_PER_CALL):
                yield rows
                rows = _frames(file, found, first, decoding)
    yield rows


def _opened(file: File, decoded: Decoded) -> Iterator[Row]:
    about = pickle.dumps(dataclasses.replace(decoded, pixels=None))
    if decoded.kind == "video" or not decoded.segments:
        yield file.key, "opened", 0, about, b""
        return
    for position, segment in enumerate(decoded.segments):
        if decoded.pixels is not None:
            yield file.key, "pixels", position, about, decoded.pixels[position].tobytes()
        else:
            yield file.key, "text", position, about, segment.text.encode("utf-8", "surrogatepass")
        about = b""


def _frames(file: File, decoded: Decoded, first: int, decoding: Decoding) -> list[Row]:
    """A portion of a video's keyframes."""
    pool = _pool(decoding.timeout_s, decoding.max_memory_mb)
    wanted = decoded.frames[first : first + FRAMES_PER_CALL]
    reason = ""
    frames: Sequence[Any]
    try:
        frames = pool.result(
            pool.submit(decode_frames, file.path, wanted, decoding.preprocessing, decoding.limits)
        )
    except MediaError as error:
        frames, reason = [None] * len(wanted), str(error)
    return [
        (file.key, "lost", position, b"", reason.encode())
        if frame is None
        else (file.key, "pixels", position, b"", frame.tobytes())
        for position, frame in enumerate(frames, start=first)
    ]


class Embedder:
    """Stage: rows `pixels` and `text` to rows `vector`, on an actor that holds the model.

    A model that cannot be had, or is another than the library's, is a row `fatal`: an actor that
    raises would be started again and again.
    """

    def __init__(self, embedding: Embedding, threads: int) -> None:
        self._embedding = embedding
        self._fatal: SecondGlanceError | None = None
        self._model: ClipEmbedder
        try:
            self._model = _model(embedding, threads)
        except Exception as error:
            if not isinstance(error, SecondGlanceError):
                error = ModelError(f"the model cannot be loaded: {error}")
            self._fatal = type(error)(
                f"on node {platform.node()}: {error.problem}", remedy=error.remedy
            )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows to rows; order is kept."""
        if self._fatal is not None:
            return _table([("", "fatal", 0, pickle.dumps(self._fatal), b"")])
        rows = rows_of(table)
        spec = self._embedding.preprocessing
        pictures = [place for place, row in enumerate(rows) if row[1] == "pixels"]
        texts = [place for place, row in enumerate(rows) if row[1] == "text"]

        def embed_pictures(places: Sequence[int]) -> Vectors:
            shape = (spec.height, spec.width, 3)
            pixels = [np.frombuffer(rows[at][4], np.uint8).reshape(shape) for at in places]
            return self._model.embed_pixels(np.stack(pixels))

        def embed_texts(places: Sequence[int]) -> Vectors:
            return self._model.embed_texts(
                [rows[place][4].decode("utf-8", "surrogatepass") for place in places]
            )

        for places, embed in ((pictures, embed_pictures), (texts, embed_texts)):
            for first in range(0, len(places), self._model.batch_size):
                some = places[first : first + self._model.batch_size]
                for place, vector in zip(some, _as_fits(embed, some), strict=True):
                    key, _, position, about, _ = rows[place]
                    rows[place] = (
                        (key, "lost", position, about, NO_ROOM.encode())
                        if vector is None
                        else (key, "vector", position, about, vector.tobytes())
                    )
        return _table(rows)


NO_ROOM = "there is not enough memory to embed it"


def _model(embedding: Embedding, threads: int) -> ClipEmbedder:
    import torch

    # Ray allows as many threads as the actor has CPUs, by its own counting; see `ray_driver`.
    torch.set_num_threads(threads)
    model = build.open_embedder(embedding.recall)
    if model.fingerprint != embedding.fingerprint:
        raise EmbedderMismatchError(
            f"{embedding.recall.model} has other weights ({model.fingerprint}) than the library's "
            f"embedder ({embedding.fingerprint})",
            remedy="give every node the same checkpoint: a folder on shared storage, or a revision",
        )
    return model


def _as_fits(
    embed: Callable[[Sequence[int]], Vectors], places: Sequence[int]
) -> Sequence[np.ndarray[Any, Any] | None]:
    """Embeds in halves where memory runs out; None for what does not fit by itself."""
    try:
        return list(embed(places))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
            raise
    if len(places) == 1:
        return [None]
    half = len(places) // 2
    return [*_as_fits(embed, places[:half]), *_as_fits(embed, places[half:])]
