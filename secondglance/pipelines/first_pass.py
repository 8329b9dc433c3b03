"""The first pass by vector: the query's vector, and the candidates nearest to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import InputError, MediaError
from secondglance.ingest import images, looks, video
from secondglance.media.pictures import open_picture
from secondglance.pipelines.build import Parts
from secondglance.pipelines.near import alike_to_earlier
from secondglance.pipelines.second_pass import Candidate
from secondglance.retrieve.filters import Filter
from secondglance.retrieve.store import MAX_LIMIT
from secondglance.types import Match, Moment, Query

if TYPE_CHECKING:
    from PIL import Image

    from secondglance.ingest.embedder import ClipEmbedder
    from secondglance.types import Vector

QUERY_FRAMES = 8
"""Frames of a query clip that its vector is the mean of."""

MAX_MOMENTS = 5


def embed_query(parts: Parts, query: Query) -> Vector:
    """The query as one unit vector, shape (dim,).

    Words, picture and clip are averaged; `not_text` is then subtracted with the weight
    `search.not_weight`.

    Raises:
        MediaError: The picture or the clip cannot be read.
    """
    embedder = parts.embedder()
    max_pixels = parts.settings.ingest.max_pixels
    found: list[Vector] = []
    if query.text.strip():
        found.append(embedder.embed_texts([query.text])[0])
    if query.image is not None:
        path = Path(query.image).expanduser()
        with _named(path):
            found.append(embedder.embed_image(path, max_pixels=max_pixels))
    if query.video is not None:
        path = Path(query.video).expanduser()
        with _named(path):
            plan = video.plan_even(
                path, step_s=1e-3, max_segments=QUERY_FRAMES, max_pixels=max_pixels
            )
            frames = video.read_frames(path, plan.frames, max_pixels=max_pixels)
            found.append(_mean_of(embedder, [frame for frame in frames if frame is not None]))
    if query.clip is not None:
        glances = [_rgb(glance, max_pixels) for glance in query.clip.glances]
        found.append(_mean_of(embedder, glances))
    vector = _unit(np.mean(found, axis=0))
    if query.not_text.strip():
        away = embedder.embed_texts([query.not_text])[0]
        vector = _unit(vector - parts.settings.search.not_weight * away)
    return vector


def _mean_of(embedder: ClipEmbedder, frames: Sequence[Image.Image]) -> Vector:
    if not frames:
        raise MediaError("no frame of it can be decoded")
    return _unit(embedder.embed_pictures(frames).mean(axis=0))


def _rgb(glance: Path | Image.Image, max_pixels: int) -> Image.Image:
    if not isinstance(glance, Path):
        return images.load_rgb(glance)
    with _named(glance), open_picture(glance, max_pixels=max_pixels) as opened:
        return images.load_rgb(opened)


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    result: Vector = (vector / max(length, 1e-12)).astype(np.float32)
    return result


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Puts the file's name into errors about a query file."""
    if not path.is_file():
        raise InputError(f"there is no query file {str(path)!r}", remedy="check the path")
    try:
        yield
    except MediaError as error:
        raise MediaError(f"cannot use the query file {path}: {error.problem}") from None


def by_vector(
    parts: Parts,
    vector: Vector,
    wanted: int,
    condition: Filter | None,
    *,
    group: bool,
    group_duplicates: bool,
) -> list[Candidate]:
    """The best `wanted` candidates; asks for more records while videos fold many into one.

    Args:
        parts: Of the library.
        vector: Of the query, unit length, shape (dim,).
        wanted: Candidates.
        condition: What every candidate meets.
        group: One candidate a video; otherwise each stretch is one.
        group_duplicates: One candidate for pictures that look nearly the same.
    """
    store = parts.store()
    depth = wanted
    while True:
        matches = store.search(vector, limit=depth, filter=condition)
        candidates = grouped(parts, matches, group=group)
        if group_duplicates:
            candidates = without_near_duplicates(parts, candidates)
        if len(candidates) >= wanted or len(matches) < depth or depth >= MAX_LIMIT:
            return candidates[:wanted]
        depth = min(4 * depth, MAX_LIMIT)


def grouped(parts: Parts, matches: Sequence[Match], *, group: bool) -> list[Candidate]:
    """Candidates of matches, in their order; with `group` a video is one, with its moments."""
    together: dict[str, list[Match]] = {}
    for match in matches:
        one_hit = group and match.payload["kind"] == "video"
        together.setdefault(str(match.payload["item"]) if one_hit else match.id, []).append(match)
    candidates = []
    for members in together.values():
        best = members[0]
        described = str(Path(str(best.payload["root"])) / str(best.payload["path"]))
        files = [file.path for file in parts.catalog.files_with(str(best.payload["item"]))]
        if not files:
            continue  # stored by a run that was killed before it finished the file
        here = {path: Path(path).exists() for path in files}
        files.sort(key=lambda path: (not here[path], path != described))
        moments = tuple(_moment(match) for match in members[:MAX_MOMENTS])
        candidates.append(
            Candidate(
                match=best,
                paths=tuple(files),
                absent=not any(here.values()),
                moments=moments if best.payload["kind"] == "video" else (),
            )
        )
    return candidates


def without_near_duplicates(parts: Parts, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Of pictures that look alike the best stays, or the first that is there now."""
    items = [str(candidate.match.payload["item"]) for candidate in candidates]
    known = looks.looks_of(parts.catalog, items)
    groups: dict[int, list[Candidate]] = {}
    likeness = alike_to_earlier([known.get(item) for item in items])
    for position, (candidate, earlier) in enumerate(zip(candidates, likeness, strict=True)):
        groups.setdefault(position if earlier is None else earlier, []).append(candidate)
    kept = []
    for members in groups.values():
        shown = next((member for member in members if not member.absent), members[0])
        others = [*shown.near_duplicates]
        for member in members:
            if member is not shown:
                others += [*member.paths, *member.near_duplicates]
        kept.append(dataclasses.replace(shown, near_duplicates=tuple(others)))
    return kept


def _moment(match: Match) -> Moment:
    payload: Mapping[str, object] = match.payload
    start, end, frame = (float(str(payload.get(f, 0))) for f in ("start_s", "end_s", "keyframe_s"))
    return Moment(start_s=start, end_s=end, keyframe_s=frame, score=match.score, id=match.id)
