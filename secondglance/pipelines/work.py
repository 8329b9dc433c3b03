"""One content on its way through the ingestion job, and the records that come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from secondglance.ingest import looks
from secondglance.pipelines.records import (
    caption_text,
    file_payload,
    record_id,
    segment_payload,
)
from secondglance.types import Kind, MediaItem, Record, Segment

if TYPE_CHECKING:
    from secondglance.types import Vector


@dataclass(slots=True, eq=False)
class Work:
    """One content on its way: what is left to embed, and the files that wait for it."""

    items: list[MediaItem]
    content: str
    kind: Kind | None = None
    segments: tuple[Segment, ...] = ()
    metadata: dict[str, str | int | float] = field(default_factory=dict)
    planned: int = 0
    left: int = 0
    vectors: dict[int, Vector] = field(default_factory=dict)
    look: looks.Look | None = None
    stored: list[str] = field(default_factory=list)
    damaged: int = 0
    reason: str = ""

    @property
    def item(self) -> MediaItem:
        """The file that describes the content."""
        return self.items[0]


def record_of(work: Work, segment: Segment, vector: Vector, *, fingerprint: str) -> Record:
    """The row of the store for one segment; `fingerprint` is the embedder's."""
    assert work.kind is not None
    item = work.item
    payload = {
        **segment_payload(work.content, segment, work.metadata, kind=work.kind, size=item.size),
        **file_payload(
            item.path,
            item.root,
            caption_text(item.caption, work.metadata),
            kind=work.kind,
            mtime_ns=item.mtime_ns,
        ),
    }
    return Record(id=record_id(work.content, segment, fingerprint), vector=vector, payload=payload)
