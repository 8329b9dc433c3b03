"""Rerank servers on a real socket: a true one with a reranker behind it, and one with faults."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from secondglance.rerank.base import Reranker
from secondglance.types import Content, PairScore, VideoClip

Json = dict[str, Any]


@dataclass
class Reply:
    """One answer. `body` is sent as it is, or as JSON; the rest are faults."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    after_s: float = 0.0
    reset: bool = False
    """Hang up in place of an answer."""
    half: bool = False
    """Hang up in the middle of it."""
    drip_s: float = 0.0
    """Between one byte and the next."""


@dataclass
class Seen:
    path: str
    headers: Mapping[str, str]
    body: Json
    size: int


class RerankServer:
    """Answers by `answer`; `faults` are used up first, one a request."""

    def __init__(self, answer: Callable[[Json], Reply]) -> None:
        self.answer = answer
        self.faults: list[Reply] = []
        self.seen: list[Seen] = []
        self.health = Reply({"status": "ready"})
        self.asked_for_health: list[str] = []
        self.dead = False
        self.at_once = 0
        self.most_at_once = 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                with outer._lock:
                    outer.asked_for_health.append(self.path)
                outer._reply(self, outer.health)

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                with outer._lock:
                    body = json.loads(raw)
                    outer.seen.append(Seen(self.path, dict(self.headers), body, len(raw)))
                    fault = outer.faults.pop(0) if outer.faults else None
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    outer._reply(self, fault or outer.answer(body))
                finally:
                    with outer._lock:
                        outer.at_once -= 1

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1/rerank"

    def __enter__(self) -> RerankServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Nobody listens any more, and what is under way is hung up on. May be called twice."""
        if self.dead:
            return
        self.dead = True
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _reply(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        time.sleep(reply.after_s)
        if reply.reset or self.dead:
            # Hanging up with unsent data waiting makes it a reset.
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        with contextlib.suppress(ConnectionError):
            handler.send_response(reply.status)
            handler.send_header("Content-Type", reply.content_type)
            handler.send_header("Content-Length", str(len(body)))
            for name, value in reply.headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            if reply.half:
                handler.wfile.write(body[: len(body) // 2])
            elif reply.drip_s:
                for byte in body:
                    handler.wfile.write(bytes([byte]))
                    time.sleep(reply.drip_s)
            else:
                handler.wfile.write(body)


def closed_url() -> str:
    """A URL where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1/rerank"


def results(scores: Sequence[float | None]) -> Json:
    """A well-formed answer, last document first."""
    found: list[Json] = [{"index": i, "relevance_score": s} for i, s in enumerate(scores)]
    return {"id": "rerank-1", "model": "m", "results": found[::-1], "usage": {"total_tokens": 1}}


def by_length(body: Json) -> Reply:
    """Scores documents by how long they are, so that each has its own score."""
    return Reply(results([1 / (1 + len(json.dumps(d))) for d in body["documents"]]))


def answering(reranker: Reranker) -> Callable[[Json], Reply]:
    """What secondglance's own server answers, with this reranker behind it."""

    def answer(body: Json) -> Reply:
        query = _content(body["query"])
        documents = [_content(document) for document in body["documents"]]
        scores = reranker.score(query, documents, instruction=body.get("instruction"))
        rows = [_row(*pair) for pair in enumerate(scores)]
        rows.sort(key=lambda row: -(row["relevance_score"] or 0.0))
        return Reply({**results([]), "results": rows[: body["top_n"]]})

    return answer


def _row(index: int, score: PairScore) -> Json:
    row: Json = {"index": index, "relevance_score": score.score}
    return row if score.error is None else {**row, "error": score.error}


def _content(side: str | Json) -> Content:
    if isinstance(side, str):
        return Content(texts=(side,))
    assert set(side) <= {"text", "image", "video"}, side
    return Content(
        texts=tuple(_list(side.get("text"))),
        images=tuple(map(_picture, _list(side.get("image")))),
        videos=tuple(map(_clip, _list(side.get("video")))),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _picture(url: str) -> Image.Image:
    head, _, encoded = url.partition(",")
    assert head.startswith("data:image/"), head
    assert head.endswith(";base64"), head
    picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
    picture.load()
    return picture


def _clip(clip: Json) -> VideoClip:
    return VideoClip(frames=tuple(map(_picture, clip["frames"])), times_s=clip.get("times_s"))


@contextlib.contextmanager
def serving(answer: Callable[[Json], Reply] = by_length) -> Iterator[RerankServer]:
    """A server for this block."""
    with RerankServer(answer) as server:
        yield server
