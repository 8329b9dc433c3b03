"""The page of `judge`: a local web server for one annotator.

It serves the pool and nothing else. Media are named by their number in the pool, never by a path.
Every request needs the random token of the address, and a Host header that names this server, so
that neither another user of the machine nor a web page in the same browser can read the library.
"""

from __future__ import annotations

import contextlib
import io
import mimetypes
import secrets
import socket
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from secondglance.errors import InputError, MediaError
from secondglance.evaluation.judgment_log import GRADES
from secondglance.ingest import images, video
from secondglance.media.pictures import open_picture
from secondglance.pipelines.contact_sheet import PLAYABLE
from secondglance.pipelines.host_names import HostNames, url_host
from secondglance.pipelines.judging import Judging, Progress, Task
from secondglance.types import clock, utf8_text

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

SIDE = 1600
"""Of a served picture, in pixels at most."""
KEPT_PICTURES = 32
BACKLOG = 64


def listen(host: str, port: int) -> socket.socket:
    """A socket for the page.

    Args:
        host: Name or address of this machine.
        port: 0 takes any that is free.

    Raises:
        InputError: The port is in use, or the host is not this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot listen on {host} port {port}: {reason}",
            remedy="choose another port, or leave --port out for any that is free",
        ) from error


def address(host: str, listening: socket.socket, token: str) -> str:
    """Where the page is."""
    return f"http://{url_host(host)}:{listening.getsockname()[1]}/?token={token}"


def make_token() -> str:
    """192 random bits, safe in an address."""
    return secrets.token_urlsafe(24)


def make_server(
    judging: Judging, *, host: str, listening: socket.socket, token: str, next_command: str
) -> uvicorn.Server:
    """The server; its `run(sockets=[listening])` ends on Ctrl-C, and then writes the qrels.

    Args:
        judging: What is judged.
        host: That it listens on.
        listening: From `listen`.
        token: That every request must name.
        next_command: Shown when all is judged.
    """
    import uvicorn

    port = int(listening.getsockname()[1])
    app = _Guard(_app(judging, token, next_command), token=token, host=host, port=port)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            # A film that still streams must not keep the program.
            timeout_graceful_shutdown=1,
        )
    )


class _Guard:
    """Refuses whatever does not know the token or comes by another name."""

    def __init__(self, app: FastAPI, *, token: str, host: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._names = HostNames(host, port=port)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            known = secrets.compare_digest(given.encode(), self._token)
            is_me = len(hosts) == 1 and self._names.knows(hosts[0].decode("latin-1"))
            if not (is_me and known):
                await _refuse(send)
                return
        await self._app(scope, receive, send)


async def _refuse(send: Any) -> None:
    body = b"forbidden: open the address that the terminal shows\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _app(judging: Judging, token: str, next_command: str) -> FastAPI:
    from fastapi import Body, FastAPI, Request, Response
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

    @contextlib.asynccontextmanager
    async def writes_at_end(_: FastAPI) -> AsyncIterator[None]:
        yield
        judging.write()

    app = FastAPI(lifespan=writes_at_end, docs_url=None, redoc_url=None, openapi_url=None)
    nonce = secrets.token_urlsafe(16)
    page = _page(nonce)
    picture = lru_cache(KEPT_PICTURES)(_picture)
    media = _Media(judging)

    @app.middleware("http")
    async def private(request: Request, call_next: Any) -> Any:
        answer = await call_next(request)
        answer.headers["Cache-Control"] = "private, no-store"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["X-Frame-Options"] = "DENY"
        answer.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        )
        return answer

    @app.exception_handler(InputError)
    async def refused(_: Request, error: InputError) -> JSONResponse:
        return JSONResponse({"problem": str(error)}, status_code=400)

    def state(progress: Progress, **more: Any) -> dict[str, Any]:
        if progress.next is None:
            judging.write()
        return {
            "total": progress.total,
            "queries": judging.tasks[-1].query_number + 1,
            "graded": progress.graded,
            "broken": progress.broken,
            "skipped": progress.skipped,
            "next": progress.next,
            "left_s": progress.left_s,
            "qrels": str(judging.qrels),
            "command": next_command,
            "warnings": list(judging.warnings),
            **more,
        }

    @app.get("/")
    def index() -> Any:
        return HTMLResponse(page)

    @app.get("/state")
    def get_state() -> dict[str, Any]:
        return state(judging.progress())

    @app.get("/tasks/{number}")
    def get_task(number: int) -> dict[str, Any]:
        mark = judging.mark_of(number)
        shown = _task(judging.tasks[number])
        return {**shown, "mark": mark and mark.mark, "grade": mark and mark.grade}

    @app.post("/tasks/{number}")
    def post_mark(
        number: int, mark: str = Body(max_length=16), grade: int | None = Body(default=None)
    ) -> dict[str, Any]:
        if mark not in ("grade", "broken", "skip"):
            raise InputError(f"{mark!r} is not one of grade, broken, skip")
        return state(judging.answer(number, mark, grade=grade))  # type: ignore[arg-type]

    @app.post("/undo")
    def post_undo() -> dict[str, Any]:
        number = judging.undo()
        return state(judging.progress(), show=number)

    @app.post("/skipped")
    def post_skipped() -> dict[str, Any]:
        return state(judging.skipped_again())

    @app.get("/pictures/{name}")
    def get_picture(name: str) -> Any:
        found = media.pictures.get(name)
        if found is None:
            return JSONResponse({"problem": "there is no such picture"}, status_code=404)
        try:
            return Response(picture(*found), media_type="image/jpeg")
        except (MediaError, OSError) as error:
            return JSONResponse({"problem": str(error)}, status_code=404)

    @app.get("/films/{name}")
    def get_film(name: str) -> Any:
        path = media.films.get(name)
        if path is None or not path.is_file():
            return JSONResponse({"problem": "there is no such film"}, status_code=404)
        # Answers requests for ranges of bytes, without which browsers cannot seek.
        kind = mimetypes.guess_type(path.name)[0] or ""
        return FileResponse(path, media_type=kind if kind.startswith("video/") else "video/mp4")

    return app


class _Media:
    """What may be served: names of the pool's own making, and the files they stand for."""

    def __init__(self, judging: Judging) -> None:
        self.pictures: dict[str, tuple[Path, float | None]] = {}
        self.films: dict[str, Path] = {}
        for task in judging.tasks:
            document, query = task.document, task.query.query
            if document.kind == "image":
                self.pictures[f"d{task.number}"] = (document.path, None)
            elif document.kind == "video":
                self.films[f"d{task.number}"] = document.path
                for place, stretch in enumerate(document.stretches):
                    self.pictures[f"d{task.number}-{place}"] = (document.path, stretch.keyframe_s)
            if query.image is not None:
                self.pictures[f"q{task.query_number}"] = (Path(query.image).expanduser(), None)
            if query.video is not None:
                path = Path(query.video).expanduser()
                self.pictures[f"q{task.query_number}-v"] = (path, 0.0)
                self.films[f"q{task.query_number}"] = path


def _picture(path: Path, at_s: float | None) -> bytes:
    """A picture, or a frame of a film, as a JPEG that any browser shows."""
    if at_s is None:
        with open_picture(path) as opened:
            shown = images.load_rgb(opened, draft_size=(SIDE, SIDE))
    else:
        shown = video.read_frame_at(path, at_s)
    shown.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _task(task: Task) -> dict[str, Any]:
    """What the page shows of a task."""
    query, document = task.query.query, task.document
    return {
        "number": task.number,
        "place": task.place,
        "of": task.of,
        "query": {
            "number": task.query_number,
            "text": utf8_text(query.text),
            "not": utf8_text(query.not_text),
            "language": task.query.language,
            "image": query.image is not None,
            "video": query.video is not None,
            "video_plays": query.video is not None and _plays(Path(query.video)),
        },
        "document": {
            "name": utf8_text(document.document),
            "kind": document.kind,
            "caption": utf8_text(document.caption),
            "passages": [utf8_text(passage) for passage in document.passages],
            "plays": document.kind == "video" and _plays(document.path),
            "stretches": [
                {
                    "start_s": stretch.start_s,
                    "end_s": stretch.end_s,
                    "shown": f"{clock(stretch.start_s)}-{clock(stretch.end_s)}",
                }
                for stretch in document.stretches
            ],
        },
    }


def _plays(path: Path) -> bool:
    return path.suffix.lower() in PLAYABLE


def _page(nonce: str) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True
    )
    return environment.get_template("judge.html").render(nonce=nonce, grades=GRADES.items())
