"""Records: their ids, and what their payloads say."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from secondglance.ingest.metadata import KEYS
from secondglance.types import Kind, Payload, Segment

MEASURED = frozenset({"width", "height"})
"""Metadata that decoding knows better, for videos."""

MAX_TEXT_CHARS = 4000
"""Milvus keeps a payload in at most 65,535 bytes of JSON, where a character takes up to 12."""


def content_hash(path: Path, *, manifest: bool) -> str:
    """Hash of a file's bytes. A manifest reads its bytes in another way, so it has its own."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return ("m" if manifest else "") + digest.hexdigest()


def record_id(content: str, segment: Segment, fingerprint: str) -> str:
    """The same for the same content, segment and embedder, on every machine."""
    parts = (content, segment.kind, segment.position, segment.start_s, segment.end_s, fingerprint)
    return hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def file_payload(
    path: Path, root: Path, caption: str, *, kind: Kind, mtime_ns: int
) -> dict[str, str | int | float]:
    """The part of a payload that names the file; the path is below its root.

    `caption` is `caption_text` of a manifest's words and the file's own.
    """
    payload: dict[str, str | int | float] = {
        "path": path_below(str(path), str(root)),
        "root": str(root),
        "name": path.name,
        "modified": mtime_ns / 1e9,
    }
    if caption and kind != "text":
        payload["text"] = caption[:MAX_TEXT_CHARS]
    return payload


def path_below(path: str, root: str) -> str:
    """The way from a root down to a file, with slashes.

    As `Path.relative_to`, which takes a tenth of the time that a picture has.
    """
    prefix = root if root.endswith(os.sep) else root + os.sep
    if not path.startswith(prefix):
        raise ValueError(f"{path} is not below {root}")
    return path[len(prefix) :].replace(os.sep, "/")


def caption_text(manifest: str, own: Payload) -> str:
    """All words about a picture or video: a manifest's, then those of its metadata."""
    lines = [*manifest.split("\n"), *str(own.get("caption", "")).split("\n")]
    return "\n".join(dict.fromkeys(line for line in lines if line))


def described_payload(
    payload: Payload, metadata: Payload, *, caption: str
) -> dict[str, str | int | float]:
    """A payload after its file's metadata was read again; `caption` is the manifest's."""
    kept = {key: value for key, value in payload.items() if key not in KEYS or key in MEASURED}
    kept.pop("text", None)
    kept.update(metadata)
    if words := caption_text(caption, metadata):
        kept["text"] = words[:MAX_TEXT_CHARS]
    return kept


def segment_payload(
    content: str, segment: Segment, metadata: Payload, *, kind: Kind, size: int
) -> dict[str, str | int | float]:
    """The part of a payload that does not change when the file moves."""
    payload: dict[str, str | int | float] = {
        "kind": kind,
        "item": content,
        "size": size,
        "position": segment.position,
        **metadata,
    }
    if segment.text:
        payload["text"] = segment.text[:MAX_TEXT_CHARS]
    for name in ("start_s", "end_s", "keyframe_s"):
        value = getattr(segment, name)
        if value is not None:
            payload[name] = value
    return payload
