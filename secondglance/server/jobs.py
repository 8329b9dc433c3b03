"""Index jobs: one at a time, in a thread of its own; others wait for their turn.

Searches go on meanwhile, and find new files as they are written.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from secondglance.errors import LibraryBusyError, SecondGlanceError
from secondglance.pipelines.index import IndexStoppedError, Progress
from secondglance.pipelines.removal import RemovalRefusedError
from secondglance.rerank.stopping import stoppable
from secondglance.server import problems
from secondglance.server.problems import ApiError
from secondglance.server.turns import JobTurns
from secondglance.types import IndexReport

if TYPE_CHECKING:
    from secondglance.library import Library

logger = logging.getLogger(__name__)

State: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]

MAX_WAITING = 20
MAX_ENDED = 100
"""Jobs that are remembered after their end."""
BUSY_EVERY_S = 1.0
"""Between two tries while another process indexes into the library."""
RETRY_AFTER_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An index job as it stands.

    Attributes:
        id: Of the job.
        names: As the caller named what to index.
        paths: The same as files and folders.
        retry_failed: Whether files are tried again that failed before.
        state: `waiting` for its turn or for another process, `running`, or how it ended.
        message: What it waits for; empty otherwise.
        created: Of the job, in UTC.
        started: None before.
        ended: None before.
        progress: None before the first.
        report: What was done: at the end, also where it was cancelled; None before.
        problem: Why it failed; None if it did not.
    """

    id: str
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    retry_failed: bool = False
    state: State = "waiting"
    message: str = ""
    created: datetime = field(default_factory=lambda: _now())
    started: datetime | None = None
    ended: datetime | None = None
    progress: Progress | None = None
    report: IndexReport | None = None
    problem: ApiError | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will change any more."""
        return self.ended is not None


class Jobs:
    """The index jobs of a library.

    Args:
        library: That is indexed into.
        turns: Shared with the jobs of other libraries; None where there are none.
    """

    def __init__(self, library: Library, *, turns: JobTurns | None = None) -> None:
        self._library = library
        self._turns = turns or JobTurns(1)
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._stops: dict[str, threading.Event] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def all(self) -> list[Job]:
        """Every job that is known, the latest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))

    def get(self, id: str) -> Job:
        """One job as it stands.

        Raises:
            ApiError: 404.
        """
        with self._lock:
            return self._known(id)

    def add(self, names: Sequence[str], paths: Sequence[Path], *, retry_failed: bool) -> Job:
        """Queues a job; one that waits and asks for the same is given instead of a second.

        Raises:
            ApiError: 429 if too many wait, 503 if the server ends.
        """
        with self._lock:
            if self._closed:
                raise ApiError(503, "not-ready", "the server ends")
            waiting = [job for job in self._jobs.values() if job.state == "waiting"]
            for job in waiting:
                if job.paths == tuple(paths) and job.retry_failed == retry_failed:
                    return job
            if len(waiting) >= MAX_WAITING:
                raise ApiError(
                    429,
                    "too-many-jobs",
                    f"{len(waiting)} index jobs wait",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            job = Job(
                id=secrets.token_hex(8),
                names=tuple(names),
                paths=tuple(paths),
                retry_failed=retry_failed,
            )
            self._jobs[job.id] = job
            self._stops[job.id] = threading.Event()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="index-jobs", daemon=True)
                self._thread.start()
        return job

    def cancel(self, id: str) -> Job:
        """Lets a job end soon; nothing that it indexed is lost. One that ended stays as it is.

        Raises:
            ApiError: 404.
        """
        with self._lock:
            job = self._known(id)
            if not job.has_ended:
                self._stops[id].set()
                if job.started is None:
                    job = self._end(job, state="cancelled")
        return job

    def close(self) -> None:
        """Cancels all jobs, and waits for the one that runs to store what it has."""
        with self._lock:
            self._closed = True
            for job in list(self._jobs.values()):
                if not job.has_ended:
                    self._stops[job.id].set()
                    if job.started is None:
                        self._end(job, state="cancelled")
            thread, running = self._thread, [j for j in self._jobs.values() if not j.has_ended]
        for job in running:
            logger.info("stopping the index job %s", job.id)
        if thread is not None:
            thread.join()
        for job in running:
            end = self.get(job.id)
            logger.info(
                "the index job %s was stopped: %d files were indexed and are kept; "
                "the next job goes on from there",
                job.id,
                end.report.indexed if end.report else 0,
            )

    def _work(self) -> None:
        """Does one job after the other, until none waits."""
        while True:
            with self._lock:
                job = next((job for job in self._jobs.values() if not job.has_ended), None)
                if job is None:
                    self._thread = None
                    return
                stop = self._stops[job.id]
                # Still waiting, for a process that indexes perhaps, but it has its turn.
                job = self._put(replace(job, started=_now(), state="running"))
            try:
                with stoppable(stop):
                    ended = self._run(job, stop)
            except Exception as error:
                ended = {"state": "failed", "problem": problems.internal(error)}
            with self._lock:
                self._end(self._jobs[job.id], **ended)

    def _run(self, job: Job, stop: threading.Event) -> dict[str, object]:
        """What becomes of a job: its last fields."""

        def told(progress: Progress) -> None:
            with self._lock:
                now = self._jobs[job.id]
                self._put(replace(now, state="running", message="", progress=progress))

        while not stop.is_set():
            if not self._turns.is_free():
                self._wait(job, "other libraries are being indexed")
            if not self._turns.take(stop):
                break
            try:
                report = self._library.index(
                    job.paths, retry_failed=job.retry_failed, on_progress=told
                )
                return {"state": "done", "report": report}
            except LibraryBusyError:
                self._wait(job, "another process is indexing into the library")
            except IndexStoppedError as error:
                return {"state": "cancelled", "report": error.report}
            except RemovalRefusedError as error:
                report, problem = error.report, problems.problem(error)
                return {"state": "failed", "report": report, "problem": problem}
            except SecondGlanceError as error:
                return {"state": "failed", "problem": problems.problem(error)}
            except OSError as error:
                problem = ApiError(
                    503,
                    "library-unusable",
                    f"the library or its folders cannot be used: {error.strerror or 'I/O error'}",
                    remedy="check that the disk has room; what was indexed is kept",
                )
                return {"state": "failed", "problem": problem}
            finally:
                self._turns.give_back()
            stop.wait(BUSY_EVERY_S)
        return {"state": "cancelled"}

    def _wait(self, job: Job, message: str) -> None:
        with self._lock:
            self._put(replace(self._jobs[job.id], state="waiting", message=message))

    def _known(self, id: str) -> Job:
        job = self._jobs.get(id)
        if job is None:
            raise problems.not_found(f"there is no job {id[:100]!r}")
        return job

    def _put(self, job: Job) -> Job:
        self._jobs[job.id] = job
        return job

    def _end(self, job: Job, **fields: object) -> Job:
        """Notes the end of a job, and forgets the oldest ones; the caller holds the lock."""
        self._stops.pop(job.id, None)
        job = self._put(replace(job, ended=_now(), message="", **fields))  # type: ignore[arg-type]
        ended = [id for id, known in self._jobs.items() if known.has_ended]
        for id in ended[:-MAX_ENDED]:
            del self._jobs[id]
        return job


def _now() -> datetime:
    return datetime.now(timezone.utc)
