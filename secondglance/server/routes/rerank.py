"""`POST /v1/rerank`, in the shape of Jina, Cohere and vLLM."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request

from secondglance.errors import InputError, MediaError
from secondglance.server.problems import ApiError, without_paths
from secondglance.server.routes.search import NOT_FOUND, PROBLEMS
from secondglance.server.schemas import Parts, RankedOut, RerankRequest, RerankResponse, Usage
from secondglance.server.serving import Serving, serving
from secondglance.server.shapes import with_queue
from secondglance.types import Content, PairScore

router = APIRouter(prefix="/v1", tags=["rerank"])


@router.post(
    "/rerank",
    response_model=RerankResponse,
    response_model_exclude_none=False,
    responses={**PROBLEMS, **NOT_FOUND},
)
async def rerank(request: Request, asked: RerankRequest) -> Any:
    """Scores candidates against a query and puts them in order, best first.

    A query and each document is a string, or an object of words, pictures and clips in any mix,
    which gets one score. A document that cannot be read has an `error` and no score, and the
    others are scored.
    """
    server = serving(request)
    most = server.options.max_documents
    if len(asked.documents) > most:
        raise ApiError(
            413,
            "too-many-documents",
            f"{len(asked.documents)} documents are more than {most}",
            remedy="send them in several requests",
        )
    if asked.model is not None and asked.model not in server.model_names():
        names = ", ".join(server.model_names())
        raise ApiError(404, "unknown-model", f"there is no model {asked.model!r}: {names}")
    began = time.perf_counter()
    timings: dict[str, float] = {}

    def work() -> list[PairScore]:
        started = time.perf_counter()
        timings["queue"] = (started - began) * 1e3
        with server.inputs.scope() as scope:
            try:
                query = scope.content(asked.query)
            except MediaError as error:
                raise MediaError(f"the query: {error.problem}", remedy=error.remedy) from None
            if not query:
                raise InputError("the query is empty", remedy="give words, a picture or a clip")
            scores: list[PairScore | None] = []
            read: list[Content] = []
            for document in asked.documents:
                try:
                    read.append(scope.content(document))
                    scores.append(None)
                except MediaError as error:
                    scores.append(PairScore(score=None, error=str(error)))
            timings["read"] = (time.perf_counter() - started) * 1e3
            found = iter(_scored(server, query, read, asked.instruction, timings))
        return [next(found) if score is None else score for score in scores]

    scores = await server.queue.run(request, work)
    timings["total"] = (time.perf_counter() - began) * 1e3
    server.metrics.stages(timings)
    order = sorted(
        range(len(scores)), key=lambda i: (scores[i].score is None, -(scores[i].score or 0.0), i)
    )
    rounded = {name: round(ms, 3) for name, ms in timings.items()}
    return RerankResponse(
        id=request.state.request_id,
        model=server.model_names()[0],
        results=[_ranked(asked, scores, index) for index in order[: asked.top_n]],
        usage=Usage(total_tokens=0, pairs=sum(score.score is not None for score in scores)),
        timings_ms=with_queue(rounded, rounded["queue"]),
        warnings=_warnings(scores),
    )


def _scored(
    server: Serving,
    query: Content,
    documents: list[Content],
    instruction: str | None,
    timings: dict[str, float],
) -> list[PairScore]:
    started = time.perf_counter()
    scores = server.library.rerank(query, documents, instruction=instruction)
    timings["rerank"] = (time.perf_counter() - started) * 1e3
    return scores


def _ranked(asked: RerankRequest, scores: list[PairScore], index: int) -> RankedOut:
    score = scores[index]
    document = asked.documents[index]
    shown: str | dict[str, Any] | None = None
    if asked.return_documents:
        shown = {"text": document} if isinstance(document, str) else _sent(document)
    return RankedOut(
        index=index,
        relevance_score=score.score,
        error=None if score.error is None else without_paths(score.error),
        document=shown,
    )


def _sent(document: Parts) -> dict[str, Any]:
    return document.model_dump(exclude_none=True, exclude_defaults=True, by_alias=True)


def _warnings(scores: list[PairScore]) -> list[str]:
    failed = sum(score.score is None for score in scores)
    reduced = sum(score.reduced is not None for score in scores)
    found = [f"{failed} of {len(scores)} documents could not be scored"] if failed else []
    return found + ([f"{reduced} were scored with fewer pixels"] if reduced else [])
