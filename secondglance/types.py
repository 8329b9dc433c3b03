"""The values that flow between the stages. All are immutable.

paths --scan--> MediaItem --decode--> Segment + pixels --embed--> Record --> Store
Query --embed--> vector --Store.search--> Match --rerank--> PairScore --fuse--> Hit
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    Vector: TypeAlias = npt.NDArray[np.float32]

Kind = Literal["image", "video", "text"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Payload: TypeAlias = Mapping[str, str | int | float]
"""What a store keeps beside a vector: flat, JSON-compatible. A missing key means "unknown";
there are no nulls. Filterable keys and their types are `retrieve.fields.FIELDS`; several words
stand in one string, see `join_tags`."""

MAX_TAG_CHARS = 100


def clean_tag(tag: str) -> str:
    """A tag as it is kept: in one line, without the bar that separates tags, bounded."""
    return " ".join(tag.replace("|", "/").split())[:MAX_TAG_CHARS].strip()


def join_tags(tags: Iterable[str]) -> str:
    """Tags in one payload string, `|beach|sea|`; each once, whatever its case; "" if none."""
    unique: dict[str, str] = {}
    for tag in map(clean_tag, tags):
        if tag:
            unique.setdefault(tag.casefold(), tag)
    return f"|{'|'.join(unique.values())}|" if unique else ""


def split_tags(joined: str) -> list[str]:
    """The tags that `join_tags` joined."""
    return [tag for tag in joined.split("|") if tag]


def utf8_text(text: str) -> str:
    """Text that UTF-8 can hold: names of files, and JSON, may have halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaItem:
    """One file that the scan found.

    Attributes:
        path: Absolute path.
        root: The folder (or the file's parent) that was given to `index`; absolute.
        kind: What the file is expected to hold; decoding decides.
        size: Bytes.
        mtime_ns: Modification time in nanoseconds since the epoch.
        caption: Words that a manifest pairs with the file; empty if none.
        sidecars: Files beside it that describe it, most trusted first.
        sidecar_stamp: Changes whenever they do; empty if there are none.
    """

    path: Path
    root: Path
    kind: Kind | Literal["manifest", "unknown"]
    size: int
    mtime_ns: int
    caption: str = ""
    sidecars: tuple[Path, ...] = ()
    sidecar_stamp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What is indexed: a whole image, a stretch of a video, or a passage of text.

    Attributes:
        kind: `image`, `video` or `text`.
        start_s: Start of the stretch in seconds from the beginning of the video.
        end_s: End of the stretch, exclusive.
        keyframe_s: Time of the frame that was embedded.
        text: The passage, for text.
        position: Ordinal within its file, from 0; the row, for manifests.
    """

    kind: Kind
    start_s: float | None = None
    end_s: float | None = None
    keyframe_s: float | None = None
    text: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of a store: a deterministic id, a unit float32 vector of shape (dim,), a payload."""

    id: str
    vector: Vector
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One answer of `Store.search`; `score` is the cosine, higher is better."""

    id: str
    score: float
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoClip:
    """A stretch of a video file, or frames with their times.

    Attributes:
        path: The file; None when `frames` are given.
        start_s: Start of the stretch; None for the beginning.
        end_s: End of the stretch, exclusive; None for the end.
        keyframe_s: Time of a frame of the stretch that must be among those that are read.
        frames: Paths or pictures, in order.
        times_s: True time of each frame, in seconds; None where unknown.
        sampled: Whether `frames` are those that would be read of a file, at `times_s`: they are
            then scored exactly as the file.
    """

    path: Path | None = None
    start_s: float | None = None
    end_s: float | None = None
    keyframe_s: float | None = None
    frames: Sequence[Path | Image.Image] = ()
    times_s: Sequence[float] | None = None
    sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One side of a rerank pair: any mix of videos, images and texts, in that order."""

    texts: Sequence[str] = ()
    images: Sequence[Path | Image.Image] = ()
    videos: Sequence[VideoClip] = ()

    def __bool__(self) -> bool:
        return bool(self.images or self.videos or any(self.texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """What the second pass says of one candidate.

    Attributes:
        score: Probability of relevance in 0..1; None if the candidate could not be scored.
        log_odds: logit_yes - logit_no; None if the candidate could not be scored.
        error: Why there is no score; None if there is one.
        reduced: Share of the usual pixels it was scored with, where more did not fit in memory;
            None where all were.
    """

    score: float | None
    log_odds: float | None = None
    error: str | None = None
    reduced: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryClip:
    """A clip to look for whose frames were read elsewhere, or a stretch of a file.

    Attributes:
        glances: Frames for the first pass, which takes the mean of their vectors.
        clip: What the second pass reads.
    """

    glances: Sequence[Path | Image.Image]
    clip: VideoClip


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a person looks for: words, a picture, a clip, or words with either.

    Attributes:
        text: Words in any language the models know.
        image: A picture file.
        video: A video file.
        not_text: Words to move away from.
        instruction: Replaces the reranker's default instruction.
        clip: A clip instead of `video`; see `QueryClip`.
    """

    text: str = ""
    image: Path | str | None = None
    video: Path | str | None = None
    not_text: str = ""
    instruction: str | None = None
    clip: QueryClip | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A stretch of a video that matched; times in seconds.

    Attributes:
        start_s: Start of the stretch.
        end_s: End of the stretch, exclusive.
        keyframe_s: Time of the frame that was embedded.
        score: Cosine of the first pass.
        rerank_score: Probability from the second pass; None where it did not look.
        id: Record id.
    """

    start_s: float
    end_s: float
    keyframe_s: float
    score: float
    rerank_score: float | None = None
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One result.

    Attributes:
        rank: Final rank, from 1.
        id: Record id of the best segment.
        item: Hash of the file's content; of a video it stays the same whichever moment is best.
        path: Absolute path of the file.
        kind: `image`, `video` or `text`.
        start_s: Start of the best moment of a video.
        end_s: End of the best moment of a video.
        keyframe_s: Time of the frame that matched.
        score: What the results are ordered by; higher is better. Where the library has a fit, the
            probability that the hit is relevant.
        recall_score: Cosine of the first pass.
        recall_rank: Rank in the first pass, from 1; by vector and words together.
        lexical_score: BM25 of the query's words in captions, texts and names; None where none
            of them stands there.
        rerank_score: Probability from the second pass; None where it did not score the hit.
        error: Why the second pass could not score the hit.
        text: The passage, or the caption from a manifest, a sidecar or the file itself.
        moments: Best stretches of a video, best first.
        copies: Other files with the same content.
        near_duplicates: Files with nearly the same picture, which have no hit of their own.
        absent: Whether no file of this content is there now, say on a drive that is away.
        metadata: What is known of the file, by the names of filter fields: `taken` and `modified`
            as ISO 8601, `tags` as a list, numbers and strings. Unknown keys are left out.
    """

    rank: int
    id: str
    path: str
    kind: Kind
    score: float
    recall_score: float
    recall_rank: int
    item: str = ""
    start_s: float | None = None
    end_s: float | None = None
    keyframe_s: float | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    error: str | None = None
    text: str = ""
    moments: tuple[Moment, ...] = ()
    copies: tuple[str, ...] = ()
    near_duplicates: tuple[str, ...] = ()
    absent: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Hits in final order, milliseconds per stage, and what the user should know.

    Attributes:
        query: As it was asked.
        hits: Best first.
        timings_ms: Milliseconds of each stage, and `total`.
        warnings: For the user, one line each.
        rerank_cache_hits: Scores of the second pass that were known from earlier searches.
        message: That nothing in the library matches, with the best probability, if a fit and a
            lowest score leave no hit; else empty.
    """

    query: Query
    hits: tuple[Hit, ...]
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    rerank_cache_hits: int = 0
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line and the HTTP interface."""
        query = {k: str(v) for k, v in asdict(self.query).items() if v}
        return {
            "query": query,
            "hits": [asdict(hit) for hit in self.hits],
            "timings_ms": dict(self.timings_ms),
            "rerank_cache_hits": self.rerank_cache_hits,
            "warnings": list(self.warnings),
            "message": self.message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFailure:
    """One file that could not be indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What an `index` run did. Counts are files, but for `segments`.

    `absent` files were indexed before and were not found now; they are kept, for the drive may be
    away, or because so many would have to be removed.
    `described` counts unchanged files whose metadata was read again: new sidecars, or a library
    made before there was metadata. They are among `unchanged`.
    """

    files: int = 0
    indexed: int = 0
    unchanged: int = 0
    moved: int = 0
    removed: int = 0
    absent: int = 0
    failed: int = 0
    segments: int = 0
    described: int = 0
    seconds: float = 0.0
    scan_seconds: float = 0.0
    errors: tuple[FileFailure, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return asdict(self)
