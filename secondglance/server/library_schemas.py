"""What the HTTP interface takes and gives about the library, index jobs, models and reports."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from secondglance.server.jobs import State
from secondglance.server.schemas import Problem

MAX_PATHS = 100
MAX_PATH_CHARS = 4096

Named: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH_CHARS)]


class RootOut(BaseModel):
    """A folder of the library."""

    name: str
    files: int
    present: bool
    absence: Literal["missing", "empty"] | None = Field(
        description="why its files cannot be there now; its entries are kept"
    )


class FailureOut(BaseModel):
    """A file that could not be indexed, from the name of its folder down."""

    path: str
    reason: str


class LibraryOut(BaseModel):
    """What the library holds and how it is set up."""

    name: str = Field(default="", description="among several libraries of a server; else empty")
    title: str = Field(default="", description="for people; as name")
    preset: str
    store: str
    index: str | None
    vectors: int
    counts: dict[str, int]
    embedder: str | None
    reranker: str
    roots: list[RootOut]
    failures: list[FailureOut] = Field(description="the first ones")
    failure_count: int
    fit: dict[str, Any] | None


class IndexRequest(BaseModel):
    """What to index: folders as `GET /v1/library` names them, or what is in them."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{}, {"paths": ["Pictures/2024"]}, {"retry_failed": True}],
        },
    )

    paths: Annotated[list[Named], Field(max_length=MAX_PATHS)] = Field(
        default=[], description="`NAME` or `NAME/sub/folder`; none: all folders"
    )
    retry_failed: bool = Field(
        default=False, description="try unchanged files again that failed before"
    )


class ProgressOut(BaseModel):
    """How far a job is; `total` is 0 while files are still counted."""

    stage: Literal["scan", "load", "embed", "tidy", "describe"]
    done: int
    total: int
    failed: int
    segments: int


class ReportOut(BaseModel):
    """What a job did, in files but for `segments`."""

    files: int
    indexed: int
    unchanged: int
    moved: int
    removed: int
    absent: int
    failed: int
    segments: int
    described: int
    seconds: float
    scan_seconds: float
    errors: list[FailureOut] = Field(description="the first ones")
    error_count: int
    warnings: list[str]


class JobOut(BaseModel):
    """An index job."""

    id: str
    state: State
    paths: list[str]
    retry_failed: bool
    message: str = Field(description="what it waits for, if anything")
    created: datetime
    started: datetime | None
    ended: datetime | None
    progress: ProgressOut | None
    report: ReportOut | None = Field(
        description="at the end; of a cancelled job what it had done, which is kept"
    )
    problem: Problem | None


class ModelOut(BaseModel):
    """One of the two models."""

    name: str
    loaded: bool
    memory_mb: float = Field(description="of its weights on each device; 0 if it is not loaded")


class ModelsOut(BaseModel):
    """The models of both passes."""

    recall: ModelOut
    rerank: ModelOut


class EvaluationOut(BaseModel):
    """A report of `secondglance evaluate`; what its file does not say is null."""

    name: str
    title: str
    created: str | None
    queries: int | None
