"""What all parts of a server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from secondglance.server.inputs import Inputs
from secondglance.server.jobs import Jobs
from secondglance.server.metrics import Metrics
from secondglance.server.options import ServerOptions
from secondglance.server.shapes import Shapes
from secondglance.server.work import WorkQueue

if TYPE_CHECKING:
    from fastapi import Request

    from secondglance.library import Library


class Serving:
    """The library that is served, and what serves it.

    Args:
        library: Open.
        options: As the operator decided.
        metrics: Counts what happens; None for counts that nobody sees.
    """

    def __init__(
        self, library: Library, options: ServerOptions, *, metrics: Metrics | None = None
    ) -> None:
        self.library = library
        self.options = options
        self.metrics = metrics or Metrics()
        self.queue = WorkQueue(
            concurrency=options.concurrency,
            waiting=options.queue,
            timeout_s=options.timeout_s,
            on_wait=self.metrics.waited,
        )
        self.inputs = Inputs(library, options)
        self.shapes = Shapes(library)
        self.jobs = Jobs(library)
        self.not_ready = ""
        """Why the server is not ready; empty if it is."""

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

    def close(self) -> None:
        """Ends all work, and index jobs with what they have. The library stays open."""
        self.jobs.close()
        self.queue.close()
        self.inputs.close()


def serving(request: Request) -> Serving:
    """That of the application which answers a request."""
    return cast(Serving, request.app.state.serving)
