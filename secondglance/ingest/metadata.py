"""What is known of a picture or a video: sidecars first, then what the file says itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from secondglance.errors import MediaError
from secondglance.ingest import container, exif, sidecars
from secondglance.ingest.facts import RANGES, Facts, merged
from secondglance.media.pictures import one_line, open_picture
from secondglance.types import Kind

VERSION = 1
"""Raised when more is read, so that libraries read the metadata of their files again."""

Problems: TypeAlias = tuple[tuple[str, str], ...]
"""Sidecars that cannot be used: (path, reason)."""

KEYS = frozenset({*RANGES, "camera", "lens", "codec", "format", "tags", "caption"})
"""Payload keys that come from metadata; a video's size comes from its frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Metadata of one file.

    Attributes:
        payload: By the names of filter fields, and `caption`; `tags` are joined. None where the
            file cannot be asked any more: what is known of it stays.
        problems: Of its sidecars.
    """

    payload: dict[str, str | int | float] | None
    problems: Problems = ()


def describe(own: Facts, beside: Sequence[Path]) -> tuple[dict[str, str | int | float], Problems]:
    """Puts together what a file says and what its sidecars say; these correct it."""
    sources: list[Facts] = []
    problems: list[tuple[str, str]] = []
    for path in beside:
        try:
            sources.append(sidecars.sidecar_facts(path))
        except OSError as error:
            problems.append((str(path), f"sidecar cannot be read: {error.strerror or error}"))
        except ValueError as error:
            problems.append((str(path), f"sidecar cannot be used: {one_line(error)}"))
    return merged([*sources, own]).payload(), tuple(problems)


def video_facts(path: Path) -> Facts:
    """What a video's container says; nothing if it cannot be asked."""
    try:
        return container.video_facts(path)
    except Exception:
        # Frames may be decodable all the same, and FFmpeg's errors are of many kinds.
        return Facts()


def describe_files(
    files: Sequence[tuple[Path, Kind, Sequence[Path]]], *, max_pixels: int
) -> list[Description | None]:
    """Metadata alone, no pixels, of files that are indexed already: (path, kind, sidecars).

    Returns:
        None for each file that is away.
    """
    found: list[Description | None] = []
    for path, kind, beside in files:
        try:
            path.stat()
            payload, problems = describe(_own(path, kind, max_pixels), beside)
            found.append(Description(payload=payload, problems=problems))
        except OSError:
            found.append(None)
        except MediaError:
            found.append(Description(payload=None))
    return found


def _own(path: Path, kind: Kind, max_pixels: int) -> Facts:
    if kind == "video":
        return video_facts(path)
    with open_picture(path, max_pixels=max_pixels) as image:
        return exif.picture_facts(image)
