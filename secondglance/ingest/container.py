"""What a video says of itself, read from its container with PyAV."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secondglance.ingest.facts import Facts, posix_s, product

_OPEN_S = 10.0

# Latitude and longitude as degrees, degrees with minutes, or with minutes and seconds; height.
# Source: ISO 6709, annex H.
_ISO_6709 = re.compile(
    r"([+-])(\d{2}|\d{4}|\d{6})(\.\d+)?([+-])(\d{3}|\d{5}|\d{7})(\.\d+)?([+-]\d+(?:\.\d+)?)?(?:CRS.*)?/?",
    re.ASCII,
)
_APPLE = "com.apple.quicktime."
_DATES = (f"{_APPLE}creationdate", "date_recorded", "creation_time", "date")
_MAKES = (f"{_APPLE}make", "com.android.manufacturer", "make", "manufacturer")
_MODELS = (f"{_APPLE}model", "com.android.model", "model")
_PLACES = (f"{_APPLE}location.iso6709", "location", "location-eng")
_CAPTIONS = ("title", f"{_APPLE}title", "description", f"{_APPLE}description", "synopsis")
_KEYWORDS = ("keywords", f"{_APPLE}keywords")


def video_facts(path: Path) -> Facts:
    """Date, place, camera, words, and `fps`, `codec` and `format` of the first video stream.

    Size and length are not among them: those are of the frames that are really there.

    Raises:
        OSError: The file cannot be read, or is no media at all.
    """
    import av

    with av.open(str(path), metadata_errors="ignore", timeout=_OPEN_S) as container:
        said = {key.lower(): value for key, value in container.metadata.items()}
        facts = _tag_facts(said)
        facts.put("format", _format(container.format.name, path))
        stream = next(iter(container.streams.video), None)
        if stream is not None:
            facts.put("fps", _rounded(stream.average_rate))
            facts.put("codec", stream.codec_context.codec.canonical_name)
            own = {key.lower(): value for key, value in stream.metadata.items()}
            if "taken" not in facts.values:
                facts.put_taken(posix_s(own.get("creation_time")))
    return facts


def _tag_facts(said: Mapping[str, str]) -> Facts:
    facts = Facts()
    for name in _DATES:
        facts.put_taken(posix_s(said.get(name)))
        if "taken" in facts.values:
            break
    facts.put("camera", product(_first(said, _MAKES), _first(said, _MODELS)))
    facts.put_place(*_place(_first(said, _PLACES)))
    for name in _CAPTIONS:
        facts.add_caption(said.get(name))
    facts.add_tags(re.split("[,;]", _first(said, _KEYWORDS)))
    return facts


def _first(said: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((said[name] for name in names if said.get(name)), "")


def _place(text: str) -> tuple[float | None, float | None, float | None]:
    parts = _ISO_6709.fullmatch(text.strip())
    if parts is None:
        return None, None, None
    north, lat, lat_rest, east, lon, lon_rest, height = parts.groups()
    return (
        _degrees(north, lat, lat_rest or "", 2),
        _degrees(east, lon, lon_rest or "", 3),
        float(height) if height else None,
    )


def _degrees(sign: str, digits: str, rest: str, width: int) -> float:
    parts = [digits[:width], *re.findall("..", digits[width:])]
    parts[-1] += rest
    total = math.fsum(float(part) / 60**i for i, part in enumerate(parts))
    return -total if sign == "-" else total


def _format(names: str, path: Path) -> str:
    """FFmpeg names a family (`mov,mp4,m4a,...`); the extension says which member."""
    family = names.split(",")
    extension = path.suffix.lower().lstrip(".")
    if extension in family:
        return extension
    return "mp4" if "mp4" in family else family[0]


def _rounded(rate: Any) -> float | None:
    return None if rate is None else round(float(rate), 3)
