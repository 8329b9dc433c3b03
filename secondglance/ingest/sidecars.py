"""Files that stand beside a picture or a video and describe it.

`photo.jpg.xmp` and `photo.xmp`, `photo.jpg.json` and `photo.json`, `photo.jpg.txt` and `photo.txt`,
and the names that Google Takeout gives. The first form belongs to one file, the second to all of
that stem. Case does not matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secondglance.errors import MediaError
from secondglance.ingest import media_types, text, xmp
from secondglance.ingest.facts import Facts, one_line, posix_s

EXTENSIONS = (".xmp", ".json", ".txt")
"""Most trusted first: of what several say, the first is believed."""

MAX_TEXT_BYTES = 16 * 1024
"""A `.txt` that is larger is no caption, but a text of its own."""

MAX_JSON_BYTES = 8 << 20

_MEDIA = media_types.IMAGE_EXTENSIONS | media_types.VIDEO_EXTENSIONS
# Takeout appends this, cut wherever the name grows too long, and numbers what is there twice:
# `photo(1).jpg` belongs to `photo.jpg.supplemental-metadata(1).json`.
_TAKEOUT_TAIL = ".supplemental-metadata"
_TAKEOUT_NAME = re.compile(r"(?P<media>.+?)(?P<tail>\.s[a-z-]*)?(?P<number>\(\d+\))?")
_TAKEOUT_CUT = 46


def match(files: Sequence[Path]) -> dict[Path, tuple[Path, ...]]:
    """The sidecars of each file that has any, among files of any number of folders."""
    # Strings, because pathlib takes as long for each part of a name as all the rest of this.
    if not any(str(path)[-5:].lower().endswith(EXTENSIONS) for path in files):
        return {}
    named = [(path, *os.path.split(path)) for path in files]
    candidates = [entry for entry in named if entry[2].lower().endswith(EXTENSIONS)]
    folders = {folder: _Folder() for _, folder, _ in candidates}
    for path, folder, name in named:
        if folder in folders:
            stem, extension = _split(name)
            if extension in _MEDIA:
                folders[folder].add(path, stem, extension)
    found: dict[Path, set[tuple[int, int, Path]]] = {}
    for sidecar, folder, name in candidates:
        stem, extension = _split(name)
        media = folders[folder].described_by(stem, takeout=extension == ".json")
        if media and (extension != ".txt" or _is_caption(sidecar)):
            trust = EXTENSIONS.index(extension)
            for path in media:
                found.setdefault(path, set()).add((trust, -len(stem), sidecar))
    return {path: tuple(entry[2] for entry in sorted(each)) for path, each in found.items()}


def _split(name: str) -> tuple[str, str]:
    """Stem and extension in lower case."""
    stem, extension = os.path.splitext(name)  # noqa: PTH122 - see above
    return stem.lower(), extension.lower()


class _Folder:
    """Pictures and videos of one folder by name and by stem, both in lower case."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}

    def add(self, path: Path, stem: str, extension: str) -> None:
        self._by_name.setdefault(stem + extension, []).append(path)
        self._by_stem.setdefault(stem, []).append(path)

    def described_by(self, name: str, *, takeout: bool) -> list[Path]:
        """The files that a sidecar called `name`, less its extension, stands beside."""
        found = self._by_name.get(name) or self._by_stem.get(name) or []
        return self._takeout(name) if takeout and not found else found

    def _takeout(self, name: str) -> list[Path]:
        parts = _TAKEOUT_NAME.fullmatch(name)
        if parts and _TAKEOUT_TAIL.startswith(parts["tail"] or ""):
            stem, extension = _split(parts["media"])
            exact = f"{stem}{parts['number'] or ''}{extension}"
            if exact in self._by_name:
                return self._by_name[exact]
        if len(name) >= _TAKEOUT_CUT:
            longer = [key for key in self._by_name if key.startswith(name)]
            if len(longer) == 1:
                return self._by_name[longer[0]]
        return []


def _is_caption(path: Path) -> bool:
    try:
        return path.stat().st_size <= MAX_TEXT_BYTES
    except OSError:
        return False


def stamp(sidecars: Iterable[Path]) -> str:
    """Changes whenever a sidecar is written, appears or goes; "" without sidecars."""
    digest = hashlib.blake2b(digest_size=8)
    empty = True
    for path in sidecars:
        try:
            status = path.stat()
        except OSError:
            continue
        empty = False
        digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return "" if empty else digest.hexdigest()


def sidecar_facts(path: Path) -> Facts:
    """What a sidecar says.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged; the message is fit for the user.
    """
    extension = path.suffix.lower()
    if extension == ".txt":
        return _text_facts(path)
    limit = MAX_JSON_BYTES if extension == ".json" else xmp.MAX_BYTES
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"it has {size} bytes, over the limit of {limit}")
    return xmp.xmp_facts(path.read_bytes()) if extension == ".xmp" else _json_facts(path)


def _text_facts(path: Path) -> Facts:
    facts = Facts()
    try:
        facts.add_caption(text.read_text(path, max_bytes=MAX_TEXT_BYTES))
    except MediaError as error:
        raise ValueError(error.problem) from None
    return facts


def _json_facts(path: Path) -> Facts:
    try:
        said = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    facts = Facts()
    if not isinstance(said, Mapping):
        return facts
    values = {str(key).lower(): value for key, value in said.items()}
    for name in ("title", "caption", "captions", "description", "text"):
        for words in _listed(values.get(name)):
            if not _is_file_name(words):
                facts.add_caption(words)
    for name in ("tags", "keywords", "people"):
        words = values.get(name)
        facts.add_tags(re.split("[,;]", words) if isinstance(words, str) else _listed(words))
    for name in ("rating", "camera", "lens"):
        facts.put(name, _scalar(values.get(name)))
    for name in ("taken", "date_taken", "datetime", "date", "phototakentime"):
        facts.put_taken(_moment(values.get(name)))
        if "taken" in facts.values:
            break
    for place in (values, values.get("geodata"), values.get("geodataexif"), values.get("location")):
        if isinstance(place, Mapping) and "lat" not in facts.values:
            _put_place(facts, place)
    return facts


def _put_place(facts: Facts, place: Mapping[Any, Any]) -> None:
    def first(*names: str) -> Any:
        return next((_scalar(place[name]) for name in names if name in place), None)

    facts.put_place(
        first("lat", "latitude"),
        first("lon", "lng", "longitude"),
        # Takeout writes 0 where it knows none.
        first("altitude_m", "altitude") or None,
    )


def _listed(value: Any) -> list[Any]:
    """One or several texts; people are objects with a name."""
    items = value if isinstance(value, list) else [value]
    return [item.get("name") if isinstance(item, Mapping) else item for item in items]


def _scalar(value: Any) -> Any:
    return None if isinstance(value, bool) else value


def _moment(value: Any) -> float | None:
    """A date in words, or POSIX seconds; Takeout writes `{"timestamp": "1700000000"}`."""
    if isinstance(value, Mapping):
        value = value.get("timestamp")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if abs(value) < 1e12 else None
    words = one_line(value)
    return float(words) if re.fullmatch(r"-?\d{5,11}", words, re.ASCII) else posix_s(words)


def _is_file_name(words: Any) -> bool:
    """Whether a title is only the file's name, as Takeout writes."""
    return Path(one_line(words)).suffix.lower() in _MEDIA
