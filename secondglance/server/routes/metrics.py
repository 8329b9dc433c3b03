"""`GET /metrics`, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from secondglance.server.metrics import CONTENT_TYPE
from secondglance.server.serving import serving

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Counts and times of all stages, in Prometheus' text format."""
    return Response(serving(request).metrics.text(), headers={"Content-Type": CONTENT_TYPE})
