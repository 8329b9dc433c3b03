"""The library, and jobs that bring it up to date."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from secondglance.errors import InputError
from secondglance.server import problems
from secondglance.server.jobs import Job
from secondglance.server.library_schemas import (
    FailureOut,
    IndexRequest,
    JobOut,
    LibraryOut,
    ProgressOut,
    ReportOut,
    RootOut,
)
from secondglance.server.roots import Roots
from secondglance.server.schemas import Problem
from secondglance.server.serving import Serving, serving
from secondglance.types import FileFailure, IndexReport

router = APIRouter(prefix="/v1", tags=["library"])

MAX_FAILURES = 200
"""Files that an answer lists."""

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {problems.TYPE: {}}} for status in (404, 422)
}


@router.get("/library", response_model=LibraryOut)
async def library(request: Request) -> Any:
    """What the library holds, its models, its folders by name, and files that failed."""
    server = serving(request)
    return await asyncio.to_thread(_library, server)


def _library(server: Serving) -> LibraryOut:
    found = server.library.status()
    roots = _roots(server)
    known = {root["path"]: root for root in found["roots"]}
    shown = []
    for name, path in roots.by_name.items():
        root = known.get(str(path))
        if root is None:  # allowed, and not indexed yet
            there = path.is_dir()
            root = {"files": 0, "present": there, "absence": None if there else "missing"}
        shown.append(
            RootOut(
                name=name, files=root["files"], present=root["present"], absence=root["absence"]
            )
        )
    failures = [FileFailure(**failure) for failure in found["failures"]]
    return LibraryOut(
        name=server.name,
        title=server.title,
        preset=found["preset"],
        store=found["store"],
        index=found["index"],
        vectors=found["vectors"],
        counts=found["counts"],
        embedder=None if found["embedder"] is None else _model(found["embedder"]),
        reranker=_model(found["reranker"]),
        roots=sorted(shown, key=lambda root: root.name),
        failures=_failures(failures, roots),
        failure_count=len(failures),
        fit=_plain(found["fit"], roots),
    )


@router.post(
    "/index",
    response_model=JobOut,
    status_code=202,
    responses=PROBLEMS | {429: PROBLEMS[404], 400: PROBLEMS[404]},
)
async def index(request: Request, response: Response, asked: IndexRequest) -> Any:
    """Queues an index job for folders of the library, or those that the operator allows.

    Unchanged files are skipped, changed ones read again, deleted ones removed. Searches go on.
    The job is at the address in `Location`.
    """
    server = serving(request)
    job = await asyncio.to_thread(_queued, server, asked)
    response.headers["Location"] = f"{server.folder}/v1/jobs/{job.id}"
    return await asyncio.to_thread(_job, server, job)


def _queued(server: Serving, asked: IndexRequest) -> Job:
    roots = _roots(server)
    if asked.paths:
        named = {name: roots.path(name) for name in asked.paths}
    else:
        indexed = set(server.library.roots())
        named = {
            name: path
            for name, path in roots.by_name.items()
            if str(path) in indexed or path.is_dir()
        }
    if not named:
        raise InputError(
            "the library has no folder yet",
            remedy="index one with: secondglance index FOLDER, or serve with --index-root FOLDER",
        )
    return server.jobs.add(list(named), list(named.values()), retry_failed=asked.retry_failed)


@router.get("/jobs", response_model=list[JobOut])
async def jobs(request: Request) -> Any:
    """Index jobs since the server started, the latest first; the last hundred that ended."""
    server = serving(request)
    return await asyncio.to_thread(
        lambda: [_shown(job, roots) for roots in [_roots(server)] for job in server.jobs.all()]
    )


@router.get("/jobs/{id}", response_model=JobOut, responses=PROBLEMS)
async def job(request: Request, id: str) -> Any:
    """One index job as it stands."""
    server = serving(request)
    return await asyncio.to_thread(_job, server, server.jobs.get(id))


@router.delete("/jobs/{id}", response_model=JobOut, status_code=202, responses=PROBLEMS)
async def cancel(request: Request, id: str) -> Any:
    """Cancels an index job: it ends soon, and what it indexed is kept."""
    server = serving(request)
    return await asyncio.to_thread(_job, server, server.jobs.cancel(id))


def _roots(server: Serving) -> Roots:
    return Roots(server.library, server.options.index_roots)


def _job(server: Serving, job: Job) -> JobOut:
    return _shown(job, _roots(server))


def _shown(job: Job, roots: Roots) -> JobOut:
    progress = job.progress
    return JobOut(
        id=job.id,
        state=job.state,
        paths=list(job.names),
        retry_failed=job.retry_failed,
        message=job.message,
        created=job.created,
        started=job.started,
        ended=job.ended,
        progress=None
        if progress is None
        else ProgressOut(
            stage=progress.stage,
            done=progress.done,
            total=progress.total,
            failed=progress.failed,
            segments=progress.segments,
        ),
        report=None if job.report is None else _report(job.report, roots),
        problem=None if job.problem is None else Problem(**problems.body(job.problem)),
    )


def _report(report: IndexReport, roots: Roots) -> ReportOut:
    fields = report.to_dict() | {
        "errors": _failures(report.errors, roots),
        "error_count": len(report.errors),
        "warnings": [roots.in_text(warning) for warning in report.warnings],
    }
    return ReportOut(**fields)


def _failures(failures: list[FileFailure] | tuple[FileFailure, ...], roots: Roots) -> Any:
    return [
        FailureOut(path=roots.shown(failure.path), reason=roots.in_text(failure.reason))
        for failure in failures[:MAX_FAILURES]
    ]


def _model(name: str) -> str:
    """A model by its name: of a folder of this machine only the last part."""
    return problems.without_paths(name)


def _plain(value: Any, roots: Roots) -> Any:
    """JSON without paths of this machine."""
    if isinstance(value, str):
        return roots.in_text(value)
    if isinstance(value, dict):
        return {key: _plain(item, roots) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, roots) for item in value]
    return value
