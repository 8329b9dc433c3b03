"""What results show of a file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from secondglance.retrieve.fields import FIELDS
from secondglance.types import Payload, clock, split_tags

_ELSEWHERE = {"kind", "path", "root", "name", "text", "item", "start_s", "end_s"}
SHOWN = tuple(name for name in FIELDS if name not in _ELSEWHERE)
"""Fields of `Hit.metadata`; the rest are attributes of the hit, or of no use to a reader."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def hit_metadata(payload: Payload) -> dict[str, Any]:
    """The known fields of a payload: times as ISO 8601 in UTC, tags as a list."""
    return {name: _shown(name, payload[name]) for name in SHOWN if name in payload}


def _shown(name: str, value: str | int | float) -> Any:
    if FIELDS[name] == "tags":
        return split_tags(str(value))
    if FIELDS[name] == "time":
        return iso(float(value))
    return value


def iso(posix_s: float) -> str:
    """A time as `2024-05-06T05:08:09Z`, with milliseconds where it has any."""
    moment = _EPOCH + timedelta(milliseconds=round(posix_s * 1000))
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def facts(metadata: Mapping[str, Any], *, camera: bool = False) -> str:
    """Date, length and size in a few words: `2024-05-06, 0:12, 1920x1080`."""
    parts = [str(metadata["taken"])[:10]] if "taken" in metadata else []
    if "duration_s" in metadata:
        parts.append(clock(metadata["duration_s"]))
    if {"width", "height"} <= metadata.keys():
        parts.append(f"{metadata['width']}x{metadata['height']}")
    if camera and "camera" in metadata:
        parts.append(str(metadata["camera"]))
    return ", ".join(parts)


def cell(value: Any) -> Any:
    """A value in one cell of a table."""
    return "; ".join(value) if isinstance(value, list) else "" if value is None else value
