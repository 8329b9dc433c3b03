"""What all parts of a server share."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from secondglance.server.inputs import Inputs
from secondglance.server.jobs import Jobs
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
    """

    def __init__(self, library: Library, options: ServerOptions) -> None:
        self.library = library
        self.options = options
        self.queue = WorkQueue(
            concurrency=options.concurrency, waiting=options.queue, timeout_s=options.timeout_s
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

    def close(self) -> None:
        """Ends all work, and index jobs with what they have. The library stays open."""
        self.jobs.close()
        self.queue.close()
        self.inputs.close()


def serving(request: Request) -> Serving:
    """That of the application which answers a request."""
    return cast(Serving, request.app.state.serving)
