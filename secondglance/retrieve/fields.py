"""The payload keys that a filter may name."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from secondglance.errors import InputError

FieldType = Literal["string", "number", "time", "tags"]
Value: TypeAlias = str | float


@dataclass(frozen=True, slots=True)
class Field:
    """Type of a field, and what it says."""

    type: FieldType
    about: str


ABOUT: Mapping[str, Field] = MappingProxyType(
    {
        "kind": Field("string", "`image`, `video` or `text`"),
        "path": Field("string", "path below the indexed folder, with `/`"),
        "root": Field("string", "the indexed folder, absolute"),
        "name": Field("string", "file name"),
        "text": Field("string", "caption of a picture or video; the passage of a text"),
        "item": Field("string", "hash of the file's content"),
        "taken": Field("time", "when it was taken or recorded"),
        "modified": Field("time", "when the file was last written"),
        "size": Field("number", "bytes"),
        "width": Field("number", "pixels, upright"),
        "height": Field("number", "pixels, upright"),
        "duration_s": Field("number", "length of the video, in seconds"),
        "start_s": Field("number", "where the stretch of the video begins, in seconds"),
        "end_s": Field("number", "where it ends"),
        "tags": Field("tags", 'keywords and names of people; `tags has "beach"`, in any case'),
        "rating": Field("number", "stars, 1 to 5; 0 unrated, -1 rejected"),
        "camera": Field("string", "make and model, such as `Canon EOS R5`"),
        "lens": Field("string", "make and model of the lens"),
        "lat": Field("number", "latitude in degrees, north positive"),
        "lon": Field("number", "longitude in degrees, east positive"),
        "altitude_m": Field("number", "metres above the sea"),
        "iso_speed": Field("number", "sensitivity: 100, 400, ..."),
        "f_number": Field("number", "aperture: 2.8 for f/2.8"),
        "focal_mm": Field("number", "focal length in millimetres"),
        "exposure_s": Field("number", "exposure in seconds: 0.004 for 1/250"),
        "fps": Field("number", "frames per second of the video, on average"),
        "codec": Field("string", "of the video: `h264`, `hevc`, `av1`, ..."),
        "format": Field("string", "of the file: `jpeg`, `png`, `heif`, `mp4`, `matroska`, ..."),
    }
)
"""Every field, in the order of the documentation; later ones are added at the end."""

FIELDS: Mapping[str, FieldType] = MappingProxyType(
    {name: field.type for name, field in ABOUT.items()}
)
"""Type of each field. Times are POSIX seconds in payloads, tags are `types.join_tags`."""

_MEANT = {
    "caption": "text",
    "date": "taken",
    "gps": "lat",
    "latitude": "lat",
    "longitude": "lon",
    "filename": "name",
    "folder": "path",
    "tag": "tags",
    "keywords": "tags",
    "people": "tags",
    "stars": "rating",
    "iso": "iso_speed",  # a word of Milvus itself
    "aperture": "f_number",
    "extension": "format",
    "type": "kind",
}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff\ufffe]")


def field_type(field: str) -> FieldType:
    """The type of a field.

    Raises:
        InputError: There is no such field.
    """
    if field not in FIELDS:
        lower = field.lower()
        near = difflib.get_close_matches(lower, FIELDS, n=1)
        meant = _MEANT.get(lower) or (near[0] if near else "")
        raise InputError(
            f"unknown field {field!r}" + (f"; did you mean {meant!r}?" if meant else ""),
            remedy=f"use one of: {', '.join(FIELDS)}",
        )
    return FIELDS[field]


def comparable(value: str | int | float) -> Value:
    """A value as every store compares it: float64 for numbers, storable text.

    File names may hold bytes that are no UTF-8 (lone surrogates in Python) and passages may hold
    NUL; SQLite and Milvus refuse or cut both, so they stand as U+FFFD in comparisons. So does
    U+FFFE, no character, by which a Milvus column says that there is no value.
    """
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    return float(value)


def column_value(field: str, value: str | int | float) -> Value:
    """A payload value as the column of its field holds it: tags without regard to case."""
    found = comparable(value)
    return folded(found) if FIELDS.get(field) == "tags" and isinstance(found, str) else found


def folded(tag: str) -> str:
    """A tag as it is compared: case folded, composed (macOS decomposes accents)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", tag).casefold())
