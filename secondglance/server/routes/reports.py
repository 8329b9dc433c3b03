"""Reports of evaluations, as they were written."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from secondglance.server import problems, reports
from secondglance.server.library_schemas import EvaluationOut
from secondglance.server.roots import Roots
from secondglance.server.schemas import Problem
from secondglance.server.serving import Serving, serving

router = APIRouter(prefix="/v1", tags=["reports"])

# A report holds names of files and words of queries, which are not the operator's own. Sandboxed
# it has an origin of its own: its scripts run and cannot use the interface or its cookie.
CONTENT_SECURITY_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; media-src data:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@router.get("/reports", response_model=list[EvaluationOut])
async def listed(request: Request) -> Any:
    """The reports of `secondglance evaluate` in the folders that the operator names."""
    folders = serving(request).options.reports
    return await asyncio.to_thread(
        lambda: [reports.describe(name, path) for name, path in reports.find(folders).items()]
    )


@router.get(
    "/reports/{name}",
    response_class=HTMLResponse,
    responses={404: {"model": Problem, "content": {problems.TYPE: {}}}},
)
async def report(request: Request, name: str) -> HTMLResponse:
    """The page of a report, which runs in a sandbox."""
    text = await asyncio.to_thread(_page, serving(request), name)
    return HTMLResponse(
        text.encode("utf-8", "replace"),
        headers={
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        },
    )


def _page(server: Serving, name: str) -> str:
    hidden = {str(path): shown for shown, path in Roots(server.library).by_name.items()}
    return reports.page(server.options.reports, name, hidden)
