"""`POST /v1/search`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from secondglance.errors import SecondGlanceError
from secondglance.server import problems
from secondglance.server.schemas import SearchRequest, SearchResponse
from secondglance.server.serving import Serving, serving
from secondglance.types import SearchResult

router = APIRouter(prefix="/v1", tags=["search"])

PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"description": "A value is not allowed, or media cannot be read."},
    429: {"description": "Too many requests wait; Retry-After says when to come back."},
}
EVENT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "event": {"enum": ["recall", "result", "problem"]},
        "data": {"type": "string", "description": "JSON: a SearchResponse, or a Problem"},
    },
    "required": ["event", "data"],
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such thing."}}


@router.post(
    "/search",
    response_model=SearchResponse,
    responses={**PROBLEMS, 200: {"content": {"text/event-stream": {"schema": EVENT}}}},
)
async def search(request: Request, asked: SearchRequest) -> Any:
    """Searches the library by words, a picture, a clip, or words with either.

    With `stream` the answer is `text/event-stream`: an event `recall` with the hits of the first
    pass, then `result` with the final order. Both hold the same shape. A failure after the start
    is an event `problem`.
    """
    server = serving(request)
    if asked.stream:
        return await _stream(request, server, asked)
    began = time.perf_counter()
    waited_ms = 0.0

    def work() -> SearchResult:
        nonlocal waited_ms
        waited_ms = (time.perf_counter() - began) * 1e3
        return _search(server, asked, lambda _: None)

    result = await server.queue.run(request, work)
    return server.shapes.search(result, request_id=request.state.request_id, queue_ms=waited_ms)


def _search(
    server: Serving, asked: SearchRequest, on_recall: Callable[[SearchResult], None]
) -> SearchResult:
    with server.inputs.scope() as scope:
        found = server.library.search(
            scope.query(asked.query),
            k=asked.k,
            recall=asked.recall,
            rerank=asked.rerank,
            filter=asked.filter,
            kind=asked.kind,
            min_score=asked.min_score,
            budget_ms=asked.budget_ms,
            words=asked.words,
            group=asked.group,
            on_recall=on_recall,
        )
    server.metrics.stages(found.timings_ms)
    return found


async def _stream(request: Request, server: Serving, asked: SearchRequest) -> StreamingResponse:
    """Waits for a turn before it answers, so that a full queue is a 429 and no stream."""
    began = time.perf_counter()
    turn = server.queue.turn()
    stop = await turn.__aenter__()
    queue_ms = (time.perf_counter() - began) * 1e3
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()

    def tell(name: str, found: Any) -> None:
        loop.call_soon_threadsafe(events.put_nowait, (name, found))

    def work() -> None:
        try:
            tell("result", _search(server, asked, lambda found: tell("recall", found)))
        except Exception as error:
            tell("problem", error)

    async def told() -> AsyncIterator[str]:
        try:
            future = server.queue.start(work, stop)
            while True:
                name, found = await events.get()
                yield _event(server, name, found, request.state.request_id, queue_ms)
                if name != "recall":
                    break
            await future
        finally:
            # Also where the client went away: then the work is stopped.
            await turn.__aexit__(None, None, None)

    return StreamingResponse(
        told(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


def _event(server: Serving, name: str, found: Any, request_id: str, queue_ms: float) -> str:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    if isinstance(found, SearchResult):
        shown = server.shapes.search(found, request_id=request_id, queue_ms=queue_ms)
        data = shown.model_dump_json(by_alias=True)
    else:
        known = isinstance(found, SecondGlanceError)
        error = problems.problem(found) if known else problems.internal(found)
        if isinstance(found, problems.ApiError):
            error = found
        data = json.dumps(problems.body(error, request_id=request_id))
    return f"event: {name}\ndata: {data}\n\n"
