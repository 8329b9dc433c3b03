"""Files that hold the same content, and pictures that look alike. Deletes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from secondglance.errors import InputError, MediaError
from secondglance.ingest import looks
from secondglance.pipelines.batches import batches
from secondglance.pipelines.build import Parts
from secondglance.pipelines.near import SAME_SHARE, near_groups
from secondglance.types import FileFailure

LOOKS_AT_ONCE = 500
READ_AT_ONCE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateFile:
    """One file of a group.

    Attributes:
        path: Absolute.
        size: Bytes.
        width: Pixels; None for what is no picture.
        height: Pixels.
        content: Hash; files with the same one are the same byte for byte.
        absent: Whether it is not there now.
        keep: Whether it is the one to keep: most pixels, then most bytes, then the shortest path.
    """

    path: str
    size: int
    width: int | None
    height: int | None
    content: str
    absent: bool
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicateGroup:
    """Files of which one would do, the one to keep first."""

    kind: Literal["exact", "near"]
    files: tuple[DuplicateFile, ...]

    @property
    def spare_bytes(self) -> int:
        """What all files but the one to keep take."""
        return sum(file.size for file in self.files if not file.keep)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicates:
    """Groups, largest saving first; and pictures that could not be looked at."""

    groups: tuple[DuplicateGroup, ...]
    threshold: float
    failures: tuple[FileFailure, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return {
            "threshold": self.threshold,
            "groups": [{**asdict(g), "spare_bytes": g.spare_bytes} for g in self.groups],
            "spare_bytes": sum(group.spare_bytes for group in self.groups),
            "errors": [asdict(failure) for failure in self.failures],
        }


def find_duplicates(
    parts: Parts,
    *,
    threshold: float = SAME_SHARE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Duplicates:
    """Exact copies of every kind, and pictures that look nearly the same.

    Pictures that an earlier release indexed are looked at first, once.

    Args:
        parts: Of the library.
        threshold: Share of the 64 bits of two looks that must agree, in 0.75 .. 1.
        on_progress: Called with (pictures looked at, pictures to look at).

    Raises:
        InputError: The threshold is out of range.
    """
    if not 0.75 <= threshold <= 1:
        raise InputError(
            f"threshold is {threshold:g}; it must be in 0.75 to 1",
            remedy="1 is alike in all 64 bits; below 0.75 pictures of different things match",
        )
    failures = _look_at_the_rest(parts, on_progress)
    near = near_groups(looks.all_looks(parts.catalog), threshold=threshold)
    together = {content for group in near for content in group}
    exact = [[content] for content in _copied(parts) if content not in together]
    sizes = _sizes(parts, [content for group in (*near, *exact) for content in group])
    groups = [_group(parts, group, sizes) for group in (*near, *exact)]
    groups.sort(key=lambda group: (-group.spare_bytes, group.files[0].path))
    return Duplicates(groups=tuple(groups), threshold=threshold, failures=tuple(failures))


def _copied(parts: Parts) -> list[str]:
    """Contents that several files hold."""
    with parts.catalog.transaction() as database:
        rows = database.execute(
            "SELECT hash FROM files WHERE hash IS NOT NULL GROUP BY hash HAVING count(*) > 1"
        ).fetchall()
    return [str(row[0]) for row in rows]


def _look_at_the_rest(parts: Parts, on_progress: Callable[[int, int], None]) -> list[FileFailure]:
    todo = looks.unlooked(parts.catalog)
    if not todo:
        return []
    ingest = parts.settings.ingest
    failures: list[FileFailure] = []
    pool = parts.decode_pool()
    with pool:
        done = 0
        for some in batches(todo, LOOKS_AT_ONCE):
            calls: list[tuple[str, str, Future[looks.Look]]] = [
                (content, path, pool.submit(looks.look_at, Path(path), ingest.max_pixels))
                for content, path in some
            ]
            found: list[tuple[str, looks.Look]] = []
            for content, path, call in calls:
                try:
                    found.append((content, pool.result(call)))
                except MediaError as error:
                    failures.append(FileFailure(path=path, reason=str(error)))
                done += 1
                on_progress(done, len(todo))
            looks.note(parts.catalog, found)
    return failures


def _sizes(parts: Parts, contents: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Width and height of pictures, from the payloads of their records."""
    first = {ids[0]: each for each in contents if (ids := parts.catalog.record_ids(each))}
    sizes = {}
    for some in batches(first, READ_AT_ONCE):
        for record in parts.store().get(some):
            if "width" in record.payload and "height" in record.payload:
                width, height = record.payload["width"], record.payload["height"]
                sizes[first[record.id]] = (int(width), int(height))
    return sizes


def _group(
    parts: Parts, contents: Sequence[str], sizes: dict[str, tuple[int, int]]
) -> DuplicateGroup:
    files = [
        DuplicateFile(
            path=file.path,
            size=file.size,
            width=sizes[content][0] if content in sizes else None,
            height=sizes[content][1] if content in sizes else None,
            content=content,
            absent=not Path(file.path).exists(),
        )
        for content in contents
        for file in parts.catalog.files_with(content)
    ]
    files.sort(key=_worth)
    best = DuplicateFile(**{**asdict(files[0]), "keep": True})
    return DuplicateGroup(kind="near" if len(contents) > 1 else "exact", files=(best, *files[1:]))


def _worth(file: DuplicateFile) -> tuple[bool, int, int, int, str]:
    pixels = (file.width or 0) * (file.height or 0)
    return (file.absent, -pixels, -file.size, len(file.path), file.path)
