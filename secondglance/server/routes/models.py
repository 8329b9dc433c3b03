"""The models of both passes: whether they are loaded, and loading and unloading them."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from secondglance.server import problems
from secondglance.server.library_schemas import ModelOut, ModelsOut
from secondglance.server.schemas import Problem
from secondglance.server.serving import Serving, serving

router = APIRouter(prefix="/v1", tags=["models"])

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {problems.TYPE: {}}} for status in (429, 503)
}


@router.get("/models", response_model=ModelsOut)
async def models(request: Request) -> Any:
    """The models and their memory; loads none."""
    return _models(serving(request))


@router.post("/models/load", response_model=ModelsOut, responses=PROBLEMS)
async def load(request: Request) -> Any:
    """Loads both models now, so that the next search does not wait for them."""
    server = serving(request)
    await server.queue.run(request, server.library.load)
    return _models(server)


@router.post("/models/unload", response_model=ModelsOut, responses={503: PROBLEMS[503]})
async def unload(request: Request) -> Any:
    """Frees the memory of both models, after the requests that use them; the next one loads them.

    Requests that come meanwhile wait. An index job that runs loads the first model again.
    """
    server = serving(request)
    async with server.queue.alone():
        await asyncio.to_thread(server.library.unload)
        return _models(server)


def _models(server: Serving) -> ModelsOut:
    settings, loaded = server.library.settings, server.library.loaded()
    recall = "/".join(filter(None, (settings.recall.model, settings.recall.pretrained)))
    return ModelsOut(
        recall=_model(recall, loaded.get("recall")),
        rerank=_model(settings.rerank.model, loaded.get("rerank")),
    )


def _model(name: str, held_bytes: int | None) -> ModelOut:
    return ModelOut(
        name=problems.without_paths(name),
        loaded=held_bytes is not None,
        memory_mb=round((held_bytes or 0) / 2**20, 1),
    )
