"""Whether imported vectors come from the model that is claimed: a sample is embedded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import EmbedderMismatchError, InputError, MediaError
from secondglance.ingest.embeddings import Embeddings
from secondglance.ingest.media_types import kind_by_extension
from secondglance.pipelines.build import Parts

if TYPE_CHECKING:
    from secondglance.types import Vector

SAMPLE = 16
MIN_COSINE = 0.95
"""Vectors of one model differ by number format and by how pictures were resized: cosines of 0.97
and more. Another model's are near 0, and those of other pictures mostly below 0.9."""

TRIES = 64
"""Rows that are looked at for each that is wanted, for files may be away."""


def check_model(
    parts: Parts,
    found: Embeddings,
    place: Callable[[Any, Any], Path | None],
    *,
    sample: int,
    min_cosine: float,
) -> tuple[int, float | None]:
    """Embeds some files again with the library's model and compares.

    Args:
        parts: Of the library.
        found: The embeddings.
        place: Of the values of path column and root column, the file; None if it cannot be told.
        sample: How many; 0 for none.
        min_cosine: What the median must reach.

    Returns:
        How many were compared, and the median of their cosines.

    Raises:
        EmbedderMismatchError: The length differs, or the median is too low.
        InputError: None of the files can be read.
    """
    embedder = parts.embedder()
    recall = parts.settings.recall
    model = "/".join(filter(None, (recall.model, recall.pretrained)))
    claimed = f", which was made with {found.about['embedder']}" if found.about else ""
    if found.dim != embedder.dim:
        raise EmbedderMismatchError(
            f"the vectors of {found.folder}{claimed} have {found.dim} values; {model} makes "
            f"{embedder.dim}",
            remedy="name the model that they come from with --embedder, for a library of its own",
        )
    if sample == 0:
        return 0, None
    cosines: list[float] = []
    for value, vector in _candidates(found, place, sample):
        if len(cosines) == sample:
            break
        try:
            again = (
                embedder.embed_image(value, max_pixels=parts.settings.ingest.max_pixels)
                if isinstance(value, Path)
                else embedder.embed_texts([value])[0]
            )
        except MediaError:
            continue
        cosines.append(_cosine(vector, again))
    if not cosines:
        raise InputError(
            f"none of the files that {found.folder} names can be read, so it cannot be checked "
            f"whether its vectors come from {model}",
            remedy="correct --root (and --strip), or skip the check with --sample 0",
        )
    median = float(np.median(cosines))
    if median < min_cosine:
        raise EmbedderMismatchError(
            f"the vectors of {found.folder}{claimed} do not come from {model}: {len(cosines)} "
            f"files that were embedded again have a median cosine of {median:.3f}, not "
            f"{min_cosine:g} or more",
            remedy="name the model that they come from with --embedder (for a new library), and "
            "check that rows and files belong together",
        )
    return len(cosines), median


def _candidates(
    found: Embeddings, place: Callable[[Any, Any], Path | None], sample: int
) -> list[tuple[Path | str, Vector]]:
    """Files (or captions) of random rows, with their vectors; more than are wanted."""
    total = found.rows
    positions = np.random.default_rng(0).choice(
        total, size=min(total, TRIES * sample), replace=False
    )
    picked: list[tuple[Path | str, Vector]] = []
    start = 0
    for part in found.parts:
        rows = [int(p) - start for p in positions if start <= p < start + part.rows]
        start += part.rows
        if rows:
            values = _values(found, part, rows, place)
            vectors = found.vectors_at(part, list(values))
            picked += [
                (values[row], vector)
                for row, vector in vectors.items()
                if vector is not None and vector.shape == (found.dim,) and usable(vector)
            ]
    order = np.random.default_rng(1).permutation(len(picked))
    return [picked[int(number)] for number in order]


def _values(
    found: Embeddings,
    part: Any,
    rows: Sequence[int],
    place: Callable[[Any, Any], Path | None],
) -> dict[int, Path | str]:
    if found.use == "text":
        if not found.caption_column:
            raise InputError(
                f"{found.folder} has no captions to check the vectors of captions with",
                remedy="name the column with --caption-column, or say --sample 0",
            )
        captions = found.column(part, found.caption_column)
        return {row: captions[row] for row in rows if captions[row]}
    paths = found.column(part, found.path_column)
    roots = found.column(part, "root") if found.about else [None] * len(paths)
    values: dict[int, Path | str] = {}
    for row in rows:
        path = place(paths[row], roots[row])
        if path is not None and kind_by_extension(path) == "image" and path.is_file():
            values[row] = path
    return values


def usable(vector: Vector) -> bool:
    """Whether a vector has a direction."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return bool(np.isfinite(length)) and length > 0


def _cosine(first: Vector, second: Vector) -> float:
    a, b = first.astype(np.float64), second.astype(np.float64)
    return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))
