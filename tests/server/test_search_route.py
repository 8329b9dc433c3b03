"""Searching over HTTP: the same hits as in the library, at once or as a stream."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from secondglance.errors import RerankError
from secondglance.library import Library
from secondglance.rerank import stopping
from secondglance.server.options import ServerOptions
from secondglance.types import Content, PairScore
from tests.served import client


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n", 1)
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def test_a_search_finds_what_the_library_finds(http: httpx.Client, library: Library) -> None:
    answer = http.post("/v1/search", json={"query": "a red square", "k": 4})
    assert answer.status_code == 200
    found = answer.json()
    expected = library.search("a red square", k=4).hits
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([h.score for h in expected])
    assert set(found["timings_ms"]) == {"queue", "load", "embed", "recall", "rerank", "total"}
    assert answer.headers["x-request-id"] == found["id"]


def test_paths_are_below_the_root(http: httpx.Client, media: Path) -> None:
    answer = http.post("/v1/search", json={"query": "anything", "k": 10})
    paths = {hit["path"] for hit in answer.json()["hits"]}
    below = {path.relative_to(media).as_posix() for path in media.rglob("*") if path.is_file()}
    assert paths == below
    assert str(media.parent) not in answer.text


def test_a_stream_has_recall_first_with_the_same_ids(http: httpx.Client) -> None:
    asked = {"query": "a red square", "k": 8, "recall": 8, "stream": True}
    answer = http.post("/v1/search", json=asked)
    assert answer.headers["content-type"].startswith("text/event-stream")
    (first, recalled), (second, final) = events(answer.text)
    assert (first, second) == ("recall", "result")
    assert {hit["item"] for hit in recalled["hits"]} == {hit["item"] for hit in final["hits"]}
    pictures = [
        {hit["id"] for hit in found["hits"] if hit["kind"] == "image"}
        for found in (recalled, final)
    ]
    assert pictures[0] == pictures[1] != set()
    assert all(hit["rerank_score"] is None for hit in recalled["hits"])
    assert all(hit["rerank_score"] is not None for hit in final["hits"])
    assert [hit["recall_rank"] for hit in recalled["hits"]] == list(range(1, 9))


def test_a_stream_without_a_second_pass_has_one_event(http: httpx.Client) -> None:
    asked = {"query": "a red square", "rerank": False, "stream": True}
    assert [name for name, _ in events(http.post("/v1/search", json=asked).text)] == ["result"]


def test_a_failure_in_a_stream_is_an_event(http: httpx.Client) -> None:
    asked = {"query": "a red square", "filter": "size > ", "stream": True}
    ((name, problem),) = events(http.post("/v1/search", json=asked).text)
    assert (name, problem["status"]) == ("problem", 400)
    assert "filter" in problem["detail"]


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"query": ""}, 400, "query is empty"),
        ({"query": "x", "k": 0}, 422, "k"),
        ({"query": "x", "colour": "red"}, 422, "colour"),
        ({"query": "x", "filter": "nonsense = 1"}, 400, "nonsense"),
        ({"query": {"image": "/etc/passwd"}}, 422, "reference"),
        ({}, 422, "query"),
    ],
)
def test_bad_requests_are_problems(
    http: httpx.Client, asked: dict[str, Any], status: int, said: str
) -> None:
    answer = http.post("/v1/search", json=asked)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert said in problem["detail"]


class Slow:
    """A reranker that works until nobody waits."""

    name = "slow"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.stopped = threading.Event()
        self.go = threading.Event()

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.begun.set()
        for _ in range(600):
            if self.go.is_set():
                return [PairScore(score=0.5, log_odds=0.0) for _ in documents]
            try:
                stopping.check()
            except Exception:
                self.stopped.set()
                raise
            time.sleep(0.02)
        raise RerankError("nobody stopped it")


@pytest.fixture
def slow(library: Library, monkeypatch: pytest.MonkeyPatch) -> Slow:
    found = Slow()
    monkeypatch.setattr(library._parts, "reranker", lambda: found)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_work_ends_when_the_client_goes_away(library: Library, slow: Slow, stream: bool) -> None:
    with client(library) as http:
        asked = {"query": "a red square", "stream": stream}
        try:
            with http.stream("POST", "/v1/search", json=asked, timeout=1) as answer:
                next(answer.iter_text())
        except httpx.ReadTimeout:
            pass
        assert slow.begun.wait(10)
        assert slow.stopped.wait(10)


def test_a_full_queue_is_429_with_a_time_to_come_back(library: Library, slow: Slow) -> None:
    options = ServerOptions(concurrency=1, queue=1)
    statuses: list[int] = []
    with client(library, options) as http:

        def ask() -> None:
            statuses.append(http.post("/v1/search", json={"query": "x"}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        assert slow.begun.wait(20)
        threads[1].start()
        deadline = time.monotonic() + 20
        while "secondglance_work_waiting 1.0" not in http.get("/metrics").text:
            assert time.monotonic() < deadline
        answer = http.post("/v1/search", json={"query": "x"})
        assert answer.status_code == 429
        assert answer.json()["type"].endswith("too-many-requests")
        assert int(answer.headers["retry-after"]) >= 1
        slow.go.set()
        for thread in threads:
            thread.join(30)
    assert statuses == [200, 200]
