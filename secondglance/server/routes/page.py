"""The page at `/`, and its files at `/static/`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from secondglance.server.problems import not_found

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parents[1] / "web"
TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""Said by hand: what Python's `mimetypes` says depends on the machine."""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy of the page: its own files, and nothing that stands in the HTML."""
PLACE = "static/@/"
"""In documents, for the address of this version's files."""
FOREVER = "public, max-age=31536000, immutable"
ASK = "no-cache"


@dataclass(frozen=True, slots=True)
class Pages:
    """The page's files in memory.

    Attributes:
        version: Hash of all of them. Addresses with it may be kept for ever.
        documents: HTML by its file's name.
        files: Of other kinds, by their path below the folder.
    """

    version: str
    documents: Mapping[str, bytes]
    files: Mapping[str, bytes]


@cache
def pages() -> Pages:
    """Reads the files, once."""
    found = {
        path.relative_to(FOLDER).as_posix(): path.read_bytes()
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in TYPES or path.suffix == ".html"
    }
    digest = hashlib.sha256()
    for name, data in found.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    version = digest.hexdigest()[:16]
    # Relative: the page of a library among several is not at the top.
    place = f"static/{version}/".encode()
    documents = {
        name: found.pop(name).replace(PLACE.encode(), place)
        for name in list(found)
        if name.endswith(".html")
    }
    return Pages(version=version, documents=documents, files=found)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return document(request, "index.html")


def document(request: Request, name: str) -> Response:
    """A page by its file's name."""
    found = pages()
    headers = {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    data = found.documents[name]
    return _answer(request, data, "text/html; charset=utf-8", found.version, ASK, headers)


@router.api_route("/static/{path:path}", methods=["GET", "HEAD"])
async def static(request: Request, path: str) -> Response:
    """A file of the page; with this version's hash in the address, for ever."""
    found = pages()
    name, kept = path, ASK
    if path.startswith(f"{found.version}/"):
        name, kept = path[len(found.version) + 1 :], FOREVER
    data = found.files.get(name)
    if data is None:
        raise not_found(f"the page has no file {name[:100]!r}")
    kind = TYPES[Path(name).suffix]
    headers = {"X-Content-Type-Options": "nosniff"}
    return _answer(request, data, kind, found.version, kept, headers)


def _answer(
    request: Request, data: bytes, kind: str, version: str, kept: str, headers: dict[str, str]
) -> Response:
    headers = headers | {"ETag": f'"{version}"', "Cache-Control": kept}
    if f'"{version}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
