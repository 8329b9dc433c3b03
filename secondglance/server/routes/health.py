"""Whether the server lives, and whether it is ready."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from secondglance.server.problems import ApiError
from secondglance.server.serving import serving

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Answers as long as the server runs."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, Any]:
    """Whether requests would be answered; 503 while models load at the start, and at the end."""
    server = serving(request)
    if server.not_ready:
        raise ApiError(503, "not-ready", server.not_ready, headers={"Retry-After": "2"})
    return {"status": "ready"}
