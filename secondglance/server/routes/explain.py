"""`POST /v1/explain`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from secondglance.errors import InputError
from secondglance.pipelines.explanation import Explanation
from secondglance.server.problems import not_found, without_paths
from secondglance.server.routes.search import NOT_FOUND, PROBLEMS
from secondglance.server.schemas import ExplainRequest, ExplainResponse
from secondglance.server.serving import Serving, serving
from secondglance.server.shapes import with_queue

router = APIRouter(prefix="/v1", tags=["search"])


@router.post("/explain", response_model=ExplainResponse, responses=PROBLEMS | NOT_FOUND)
async def explain(request: Request, asked: ExplainRequest) -> Any:
    """Says which words and regions a score of the second pass depends on.

    Parts of the candidate are left out one after the other, and the reranker scores what is left:
    an effect is what the log-odds lose without a part. The candidate is a record of the library,
    by its `id`, or a `document` as in `/v1/rerank`.
    """
    server = serving(request)
    began = time.perf_counter()
    waited_ms = 0.0

    def work() -> Explanation:
        nonlocal waited_ms
        waited_ms = (time.perf_counter() - began) * 1e3
        return _explain(server, asked)

    found = await server.queue.run(request, work)
    total_ms = (time.perf_counter() - began) * 1e3
    return ExplainResponse(
        **{key: value for key, value in found.to_dict().items() if key not in ("ms", "warnings")},
        at_s=found.regions.at_s if found.regions else None,
        timings_ms=with_queue(
            {"explain": round(found.ms, 3), "total": round(total_ms, 3)}, waited_ms
        ),
        warnings=[without_paths(warning) for warning in found.warnings],
    )


def _explain(server: Serving, asked: ExplainRequest) -> Explanation:
    with server.inputs.scope() as scope:
        query = scope.query(asked.query)
        if asked.id is not None:
            if server.library.located(asked.id) is None:
                raise not_found("the library has no such record")
            return server.library.explain(query, asked.id, query_words=asked.query_words)
        if asked.document is None:
            raise InputError("there is no candidate", remedy="give id or document")
        document = scope.content(asked.document)
        return server.library.explain(query, document, query_words=asked.query_words)
