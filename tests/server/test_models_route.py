"""Models over HTTP: loaded and unloaded while the server works."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import httpx
import pytest

from secondglance.errors import RerankError
from secondglance.library import Library
from secondglance.server.options import ServerOptions
from secondglance.types import Content, PairScore
from tests.served import client


def test_models_are_loaded_and_unloaded(library: Library) -> None:
    library.unload()
    with client(library) as http:
        found = http.get("/v1/models").json()
        assert found == {
            "recall": {"name": "untrained-clip", "loaded": False, "memory_mb": 0.0},
            "rerank": {"name": "untrained-reranker", "loaded": False, "memory_mb": 0.0},
        }
        loaded = http.post("/v1/models/load").json()
        assert loaded == http.get("/v1/models").json()
        assert all(model["loaded"] and model["memory_mb"] > 0 for model in loaded.values())
        expected = library.loaded()
        assert loaded["recall"]["memory_mb"] == round(expected["recall"] / 2**20, 1)
        assert http.post("/v1/models/unload").json() == found
        assert library.loaded() == {}
        answer = http.post("/v1/search", json={"query": "a red square", "k": 2})
        assert [hit["rerank_score"] is None for hit in answer.json()["hits"]] == [False, False]
        assert all(model["loaded"] for model in http.get("/v1/models").json().values())


class Held:
    """A reranker at work until it is let go; closing it fails its work, as the engine does."""

    name = "held"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.closed = threading.Event()

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.begun.set()
        self.go.wait(60)
        if self.closed.is_set():
            raise RerankError("closed while it worked")
        return [PairScore(score=0.5, log_odds=0.0) for _ in documents]

    def close(self) -> None:
        self.closed.set()


def test_unloading_waits_for_work_in_flight(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.unload()
    held = Held()
    monkeypatch.setitem(library._parts.__dict__, "_reranker", held)
    answers: dict[str, httpx.Response] = {}
    with client(library, ServerOptions(concurrency=2)) as http:

        def ask(name: str, path: str) -> threading.Thread:
            def post() -> None:
                answers[name] = http.post(path, json={"query": "x", "k": 3, "recall": 3})

            thread = threading.Thread(target=post)
            thread.start()
            return thread

        threads = [ask("search", "/v1/search")]
        assert held.begun.wait(30)
        threads += [ask("unload", "/v1/models/unload"), ask("another", "/v1/models/unload")]
        time.sleep(0.5)
        assert not answers
        assert not held.closed.is_set()
        held.go.set()
        for thread in threads:
            thread.join(60)
        assert held.closed.is_set()
        found = answers["search"].json()
        assert [hit["rerank_score"] for hit in found["hits"]] == [0.5, 0.5, 0.5]
        assert found["warnings"] == []
        for name in ("unload", "another"):
            assert not answers[name].json()["rerank"]["loaded"]
        again = http.post("/v1/search", json={"query": "x", "k": 3, "recall": 3})
        assert all(hit["rerank_score"] is not None for hit in again.json()["hits"])


def test_unloading_gives_up_where_work_does_not_end(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setitem(library._parts.__dict__, "_reranker", held)
    with client(library, ServerOptions(concurrency=1, timeout_s=1.0)) as http:
        thread = threading.Thread(target=lambda: http.post("/v1/search", json={"query": "x"}))
        thread.start()
        assert held.begun.wait(30)
        answer = http.post("/v1/models/unload")
        assert (answer.status_code, held.closed.is_set()) == (503, False)
        assert answer.json()["type"].endswith("timeout")
        held.go.set()
        thread.join(30)
        assert http.post("/v1/search", json={"query": "x"}).status_code == 200
    library.unload()
