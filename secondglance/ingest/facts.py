"""What is known of a file besides its pixels, from sources that may say anything.

Every value passes `Facts.put` and its bounds. What makes no sense is left out: a photo without its
date is still a photo.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

from secondglance.types import clean_tag, join_tags

MAX_TAGS = 100
MAX_TAGS_CHARS = 4000
MAX_CAPTION_CHARS = 4000
MAX_WORDS_CHARS = 120

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "lat": (-90, 90),
        "lon": (-180, 180),
        "altitude_m": (-12_000, 100_000),
        "iso_speed": (1, 1e7),
        "f_number": (0.1, 1000),
        "focal_mm": (0.1, 100_000),
        "exposure_s": (1e-7, 1e6),
        "rating": (-1, 5),
        "fps": (1e-3, 1e5),
        "width": (1, 1e7),
        "height": (1, 1e7),
        "taken": (-4_544_208_000, 4_102_444_800),  # 1826, the first photograph, to 2100
    }
)
"""Lowest and highest value of each number that is believed."""

_PLACE = ("lat", "lon", "altitude_m")
# Clocks that were never set, and zero bytes read as numbers (QuickTime counts from 1904).
_NO_DATE = frozenset(datetime(year, 1, 1, tzinfo=timezone.utc).timestamp() for year in (1904, 1970))
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MOMENT = re.compile(
    r"(\d{4})[-:/.](\d{1,2})[-:/.](\d{1,2})"
    r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?"
    r"\s*(?:(Z|UTC)|([+-])(\d{2}):?(\d{2}))?)?",
    re.ASCII,
)
# What cameras and scanners write into every picture.
_NO_CAPTION = re.compile(
    r"(olympus|minolta|konica minolta|samsung|sony|kodak|ricoh|casio)?\s*"
    r"(digital camera|camera pictures|dsc|exif[_ ]jpeg[_ ]picture|default|untitled)\s*",
    re.IGNORECASE,
)

_COMPANY = (
    "corporation", "corp", "company", "co", "ltd", "inc", "gmbh", "imaging", "optical", "camera",
    "electronics",
)  # fmt: skip


@dataclass(slots=True)
class Facts:
    """What one source says.

    Attributes:
        values: By the names of filter fields, except tags and text.
        captions: Each may have several lines.
        tags: Keywords, and names of people.
    """

    values: dict[str, str | int | float] = field(default_factory=dict)
    captions: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)

    def put(self, name: str, value: Any) -> None:
        """Takes in a value if it makes sense; numbers by `RANGES`, all else as short words."""
        if name in RANGES:
            number = _number(value)
            low, high = RANGES[name]
            if number is not None and low <= number <= high:
                self.values[name] = int(number) if number.is_integer() else number
        elif text := one_line(value):
            self.values[name] = text

    def put_taken(self, moment: float | None) -> None:
        """Takes in a time in POSIX seconds if it makes sense."""
        if moment is not None and moment not in _NO_DATE:
            self.put("taken", moment)

    def put_place(self, lat: Any, lon: Any, altitude_m: Any = None) -> None:
        """Takes in a place in degrees, if both make sense.

        0, 0 is what a receiver without a fix says, and an empty form.
        """
        found = Facts()
        for name, value in zip(_PLACE, (lat, lon, altitude_m), strict=True):
            found.put(name, value)
        if {"lat", "lon"} <= found.values.keys() and (
            found.values["lat"] != 0 or found.values["lon"] != 0
        ):
            self.values.update(found.values)

    def add_caption(self, value: Any) -> None:
        """Takes in a caption, unless a camera wrote it."""
        caption = lines(value)
        if caption and not _NO_CAPTION.fullmatch(caption) and caption not in self.captions:
            self.captions.append(caption)

    def add_tags(self, values: Iterable[Any]) -> None:
        """Takes in keywords."""
        self.tags += [tag for value in values if (tag := clean_tag(one_line(value)))]

    def payload(self) -> dict[str, str | int | float]:
        """As records keep it: `values`, and `caption` and `tags` where there are any."""
        payload = dict(self.values)
        if self.captions:
            payload["caption"] = "\n".join(self.captions)[:MAX_CAPTION_CHARS]
        tags: list[str] = []
        for tag in self.tags[:MAX_TAGS]:
            if sum(map(len, tags)) + len(tag) <= MAX_TAGS_CHARS:
                tags.append(tag)
        if joined := join_tags(tags):
            payload["tags"] = joined
        return payload


def merged(sources: Iterable[Facts]) -> Facts:
    """All sources together; of what several say, the first is believed, captions are joined."""
    result = Facts()
    for source in sources:
        placed = "lat" in result.values
        for name, value in source.values.items():
            # A place is one thing: no latitude of one source with the longitude of another.
            if not (placed and name in _PLACE):
                result.values.setdefault(name, value)
        result.captions += [words for words in source.captions if words not in result.captions]
        result.tags += source.tags
    return result


def posix_s(value: Any) -> float | None:
    """A date in POSIX seconds, as EXIF, XMP, IPTC and QuickTime write dates; None if it is none.

    Without an offset the camera's clock is read as UTC, the same on every machine.
    """
    parts = _MOMENT.fullmatch(one_line(value))
    if parts is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = parts.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            tzinfo=timezone.utc,
        )  # fmt: skip
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        if offset >= timedelta(hours=24):
            return None
    except ValueError:
        return None
    seconds = (moment - _EPOCH).total_seconds() + float(f"0.{fraction or 0}")
    return seconds - offset.total_seconds() * (-1 if sign == "-" else 1)


def product(make: Any, model: Any) -> str:
    """Make and model, each once: `NIKON D850`, not `NIKON CORPORATION NIKON D850`."""
    words = [word for word in one_line(make).split() if word.strip(",.").lower() not in _COMPANY]
    model = one_line(model)
    if model and words and model.lower().startswith(words[0].lower()):
        words = []
    return " ".join([*words, model]).strip()


def one_line(value: Any) -> str:
    """Short words in one line, without control characters; "" for what is no text."""
    return " ".join(lines(value).split())[:MAX_WORDS_CHARS].strip()


def lines(value: Any) -> str:
    """A text without control characters and empty lines, bounded; "" for what is no text."""
    if isinstance(value, bytes):
        value = decoded(value)
    if not isinstance(value, str):
        return ""
    # Twice as much as is kept, so that a huge value costs nothing.
    text = "".join(
        "\n" if c in "\n\r" else " " if unicodedata.category(c) in ("Cc", "Cs") else c
        for c in value[: 2 * MAX_CAPTION_CHARS]
    )
    kept = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in kept if line)[:MAX_CAPTION_CHARS]


def decoded(raw: bytes) -> str:
    """Text of an encoding that nobody named: UTF-8, or else Latin-1."""
    raw = raw[: 8 * MAX_CAPTION_CHARS].split(b"\0", 1)[0]
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _number(value: Any) -> float | None:
    """A finite number; EXIF rationals may have a zero denominator."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None
