"""What the HTTP interface takes and gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from secondglance.types import Kind

MAX_TEXT_CHARS = 100_000
MAX_PARTS = 64
"""Pictures, or clips, of one side of a pair."""
MAX_ID = 200

Text: TypeAlias = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Reference: TypeAlias = Annotated[
    str,
    Field(
        min_length=1,
        description="`upload:ID` of a file uploaded before, `id:RECORD` of a hit, a `data:` URL "
        "with base64, or an `https://` URL where the operator allows its host",
    ),
]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class _Out(BaseModel):
    model_config = ConfigDict(populate_by_name=True)


class Clip(_In):
    """A clip, or a stretch of one, or its frames."""

    url: Reference | None = None
    frames: Annotated[list[Reference], Field(max_length=256)] = []
    times_s: Annotated[list[Annotated[float, Field(ge=0)]], Field(max_length=256)] | None = None
    start_s: Annotated[float, Field(ge=0)] | None = None
    end_s: Annotated[float, Field(gt=0)] | None = None
    keyframe_s: Annotated[float, Field(ge=0)] | None = None


class QueryParts(_In):
    """What is looked for: words, a picture, a clip, or words with either."""

    text: Text = ""
    image: Reference | None = None
    video: Reference | None = None
    not_text: Annotated[Text, Field(alias="not", description="words to move away from")] = ""
    instruction: Text | None = Field(
        default=None, description="replaces the reranker's default instruction"
    )


class SearchRequest(_In):
    """A search of the library."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "two dogs on a beach", "k": 10},
                {
                    "query": {"text": "the same place in winter", "image": "upload:8c1f"},
                    "k": 20,
                    "recall": 100,
                    "kind": "image",
                    "filter": "taken >= 2024-01-01",
                    "budget_ms": 500,
                    "stream": True,
                },
            ]
        }
    )

    query: Text | QueryParts
    k: Annotated[int, Field(ge=1, le=1000)] | None = Field(default=None, description="results")
    recall: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="candidates for the second pass"
    )
    rerank: bool | None = Field(default=None, description="whether there is a second pass")
    filter: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        default=None, description="expression over metadata, such as `taken >= 2024-01-01`"
    )
    kind: Kind | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    budget_ms: Annotated[float, Field(ge=0, le=600_000)] | None = Field(
        default=None, description="for the second pass"
    )
    words: bool | None = Field(default=None, description="whether words are searched, too")
    group: bool = Field(default=True, description="one hit a video")
    stream: bool = Field(
        default=False,
        description="answer with server-sent events: `recall`, then `result`, or `problem`",
    )


class MomentOut(_Out):
    """A stretch of a video that matched."""

    id: str
    start_s: float
    end_s: float
    keyframe_s: float
    score: float
    rerank_score: float | None
    thumbnail_url: str


class HitOut(_Out):
    """One result; `path` is below the folder that was indexed."""

    rank: int
    id: str
    item: str = Field(description="of the file; of a video the same in both events of a stream")
    path: str
    kind: Kind
    score: float
    recall_score: float
    recall_rank: int
    lexical_score: float | None
    rerank_score: float | None
    start_s: float | None
    end_s: float | None
    keyframe_s: float | None
    error: str | None
    text: str
    moments: list[MomentOut]
    copies: list[str]
    near_duplicates: list[str]
    absent: bool
    metadata: dict[str, Any]
    media_url: str
    thumbnail_url: str


class SearchResponse(_Out):
    """Hits in final order, with the milliseconds of each stage; `queue` is the wait before."""

    id: str = Field(description="of the request, as in the log")
    query: dict[str, str]
    hits: list[HitOut]
    timings_ms: dict[str, float]
    rerank_cache_hits: int
    warnings: list[str]
    message: str


class Url(_In):
    """A reference in vLLM's shape."""

    url: Reference


class TextPart(_In):
    """Words in a list of content."""

    type: Literal["text"]
    text: Text


class ImagePart(_In):
    """A picture in a list of content."""

    type: Literal["image_url"]
    image_url: Url


class VideoPart(_In):
    """A clip in a list of content."""

    type: Literal["video_url"]
    video_url: Url


class Parts(_In):
    """A query or a document of any mix; it gets one score."""

    text: Text | Annotated[list[Text], Field(max_length=MAX_PARTS)] | None = None
    image: Reference | Annotated[list[Reference], Field(max_length=MAX_PARTS)] | None = None
    video: (
        Reference | Clip | Annotated[list[Reference | Clip], Field(max_length=MAX_PARTS)] | None
    ) = None
    content: (
        Annotated[list[TextPart | ImagePart | VideoPart], Field(max_length=MAX_PARTS)] | None
    ) = Field(default=None, description="vLLM's shape, instead of the other keys")


class RerankRequest(_In):
    """Candidates to be put in order; the shape of Jina, Cohere and vLLM."""

    model_config = ConfigDict(
        extra="ignore",  # clients of other servers send keys of their own
        json_schema_extra={
            "examples": [
                {
                    "query": "a red bus in the rain",
                    "documents": [
                        "Buses run until midnight.",
                        {"image": "upload:8c1f"},
                        {"text": "A bus, seen from a bridge", "image": "upload:77aa"},
                        {
                            "content": [
                                {"type": "text", "text": "red bus"},
                                {"type": "image_url", "image_url": {"url": "id:3f9a"}},
                            ]
                        },
                    ],
                    "top_n": 3,
                }
            ]
        },
    )

    model: Annotated[str, StringConstraints(max_length=MAX_ID)] | None = Field(
        default=None, description="the library's reranker if left out, or its name"
    )
    query: Text | Parts
    documents: Annotated[list[Text | Parts], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False
    instruction: Text | None = Field(
        default=None, description="replaces the reranker's default instruction"
    )


class RankedOut(_Out):
    """One candidate, by its place in the request from 0."""

    index: int
    relevance_score: float | None = Field(description="probability; null with an error")
    error: str | None = None
    document: str | dict[str, Any] | None = None


class Usage(_Out):
    """What was scored."""

    total_tokens: int = Field(
        description="0: tokens are not counted; here for clients that expect it"
    )
    pairs: int


class RerankResponse(_Out):
    """Candidates, best first; those without a score come last."""

    id: str
    model: str
    results: list[RankedOut]
    usage: Usage
    timings_ms: dict[str, float]
    warnings: list[str]


class ExplainRequest(_In):
    """A query and one candidate: a record of the library, or a document."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "a red bus", "id": "3f9a"},
                {"query": "a red bus", "document": "A red bus waits in the rain."},
            ]
        }
    )

    query: Text | QueryParts
    id: Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID)] | None = Field(
        default=None, description="of a hit, or of another moment of its video"
    )
    document: Text | Parts | None = Field(default=None, description="instead of `id`")
    query_words: bool = Field(
        default=False, description="whether the words of the query are left out, too"
    )


class WordOut(_Out):
    """A word, or a stretch of text, and what the log-odds lose without it."""

    part: int = Field(description="which of `texts` it stands in")
    start: int
    end: int
    text: str
    effect: float


class RegionsOut(_Out):
    """A picture, or a frame, as a grid of cells from the top left."""

    rows: int
    cols: int
    effects: list[list[float]] = Field(description="log-odds lost when a cell is hidden")
    width: int
    height: int


class ExplainResponse(_Out):
    """What a score depends on."""

    id: str = Field(description="of the record; empty for a document")
    kind: Kind
    model: str
    score: float
    log_odds: float
    words: list[WordOut]
    texts: list[str]
    query_words: list[WordOut]
    query: str
    regions: RegionsOut | None
    at_s: float | None = Field(description="time of the frame in its video")
    pairs: int
    timings_ms: dict[str, float]
    warnings: list[str]


class Problem(_Out):
    """Problem details, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str | None = None
    instance: str | None = None
