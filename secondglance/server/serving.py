"""What all parts of a server share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from secondglance.server.inputs import Inputs
from secondglance.server.jobs import Jobs
from secondglance.server.metrics import Metrics
from secondglance.server.options import ServerOptions
from secondglance.server.security import LIBRARIES
from secondglance.server.shapes import Shapes
from secondglance.server.work import WorkQueue

if TYPE_CHECKING:
    from fastapi import Request

    from secondglance.library import Library
    from secondglance.server.security import Access
    from secondglance.server.turns import JobTurns, Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a library stands among several of one server.

    Attributes:
        name: In addresses.
        title: For people.
        turns: Of requests, for all libraries.
        job_turns: Of index jobs, for all libraries.
        front: Who may enter the server.
    """

    name: str
    title: str
    turns: Turns
    job_turns: JobTurns
    front: Access

    @property
    def folder(self) -> str:
        """Before all addresses of its interface."""
        return f"{LIBRARIES}/{self.name}"


class Serving:
    """The library that is served, and what serves it.

    Args:
        library: Open.
        options: As the operator decided.
        metrics: Counts what happens; None for counts that nobody sees.
        place: Among several libraries; None for the only one.
    """

    def __init__(
        self,
        library: Library,
        options: ServerOptions,
        *,
        metrics: Metrics | None = None,
        place: Place | None = None,
    ) -> None:
        self.library = library
        self.name = place.name if place else ""
        self.title = place.title if place else ""
        self.folder = place.folder if place else ""
        """Before all addresses of the interface."""
        self.options = options
        self.metrics = metrics or Metrics()
        self.queue = WorkQueue(
            concurrency=options.concurrency,
            waiting=options.queue,
            timeout_s=options.timeout_s,
            on_wait=self.metrics.waited,
            turns=place.turns if place else None,
        )
        self.inputs = Inputs(library, options)
        self.shapes = Shapes(library, folder=self.folder)
        self.jobs = Jobs(library, turns=place.job_turns if place else None)
        self.not_ready = ""
        """Why the server is not ready; empty if it is."""
        self.is_stuck = False
        """Whether it will not become ready by waiting."""

    def model_names(self) -> tuple[str, ...]:
        """Names by which requests may ask for the reranker, the full one first."""
        name = self.library.settings.rerank.model
        return tuple(dict.fromkeys((name, name.rpartition("/")[2], "secondglance")))

    @property
    def stopping(self) -> bool:
        """Whether the server takes no more work."""
        return bool(self.queue.closed)

    def stop(self, why: str) -> None:
        """Takes no more work, and is not ready any more; what runs goes on."""
        self.not_ready = self.queue.closed = why

    def stop_work(self) -> None:
        """Ends what runs."""
        self.queue.stop_all()

    def remove_uploads(self) -> None:
        """Ends decoding, and removes what was uploaded."""
        self.inputs.close()

    def close(self) -> None:
        """Ends all work, and index jobs with what they have. The library stays open."""
        self.jobs.close()
        self.queue.close()
        self.inputs.close()


def serving(request: Request) -> Serving:
    """That of the application which answers a request."""
    return cast(Serving, request.app.state.serving)
