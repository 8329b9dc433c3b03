"""Texts: decoding bytes, cutting passages, and reading CSV and JSONL manifests."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondglance.errors import MediaError

MEDIA_COLUMNS = ("file", "path", "file_name", "filename", "filepath", "image", "video", "media")
TEXT_COLUMNS = ("captions", "caption", "text", "description", "title", "sentence")

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One row: words, and the media file they belong to, as written; empty if there is none.

    `problem` says why a row has neither.
    """

    number: int
    media: str = ""
    text: str = ""
    problem: str = ""


def read_text(path: Path, *, max_bytes: int) -> str:
    """A text file in UTF-8, UTF-16 with a mark, or whatever encoding it seems to be in.

    Raises:
        MediaError: It is empty, too large, or no text.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise MediaError(
            f"text of {size} bytes is over the limit of {max_bytes}",
            remedy="split it, or raise ingest.max_text_mb",
        )
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(raw[:1_000_000]).best()
    if best is None or b"\0" in raw[:4096]:
        raise MediaError("not a text: no known encoding", remedy="save it as UTF-8")
    return raw.decode(best.encoding, errors="replace")


def passages(text: str, *, max_chars: int) -> list[str]:
    """Cuts a text at paragraphs, then sentences, into passages of at most `max_chars`.

    Short neighbouring paragraphs share a passage; a sentence that is too long is cut.
    """
    pieces: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        if len(words) <= max_chars:
            pieces.append(words)
            continue
        for sentence in _SENTENCE_END.split(words):
            pieces += [sentence[i : i + max_chars] for i in range(0, len(sentence), max_chars)]
    merged: list[str] = []
    for piece in filter(None, (piece.strip() for piece in pieces)):
        if merged and len(merged[-1]) + 1 + len(piece) <= max_chars:
            merged[-1] += " " + piece
        else:
            merged.append(piece)
    return merged


def manifest_rows(path: Path, *, max_bytes: int) -> Iterator[ManifestRow]:
    """The rows of a CSV (with a header) or JSONL manifest, numbered from 1.

    Raises:
        MediaError: The file as a whole cannot be used.
    """
    text = read_text(path, max_bytes=max_bytes)
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(text)
    else:
        yield from _jsonl_rows(text)


def _csv_rows(text: str) -> Iterator[ManifestRow]:
    sample = text[:8192]
    try:
        dialect: Any = csv.Sniffer().sniff(sample, delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    reader = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect)
    columns = [name or "" for name in reader.fieldnames or ()]
    known = {*MEDIA_COLUMNS, *TEXT_COLUMNS}
    if not any(name.strip().lower() in known for name in columns):
        raise MediaError(
            f"no column to index; found: {', '.join(columns) or 'none'}",
            remedy=f"name one of {', '.join((*MEDIA_COLUMNS, *TEXT_COLUMNS))} in the first line",
        )
    try:
        for number, fields in enumerate(reader, start=1):
            yield _row(number, fields)
    except csv.Error as error:
        raise MediaError(f"not a CSV: {error}") from None


def _jsonl_rows(text: str) -> Iterator[ManifestRow]:
    number = 0
    for line in text.splitlines():
        if not line.strip():
            continue
        number += 1
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield ManifestRow(number=number, problem=f"not JSON: {error}")
            continue
        if isinstance(fields, Mapping):
            yield _row(number, fields)
        else:
            yield ManifestRow(number=number, problem="not a JSON object")


def _row(number: int, fields: Mapping[Any, Any]) -> ManifestRow:
    values = {str(key).strip().lower(): value for key, value in fields.items() if key is not None}
    media = next((str(values[name]) for name in MEDIA_COLUMNS if values.get(name)), "")
    words: list[str] = []
    for name in TEXT_COLUMNS:
        value = values.get(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.strip() and item.strip() not in words:
                words.append(item.strip())
    if not media and not words:
        return ManifestRow(number=number, problem="neither a media file nor words")
    return ManifestRow(number=number, media=media.strip(), text="\n".join(words))
