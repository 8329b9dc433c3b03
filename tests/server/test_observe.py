"""The log and the metrics: what they tell, and what they never do."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from secondglance.errors import ModelError
from secondglance.library import Library
from secondglance.rerank import observing
from secondglance.rerank.scheduler import Scheduler
from secondglance.server import observe
from secondglance.server.options import ServerOptions
from secondglance.types import Content, PairScore
from tests.served import client

KEY = "correct-horse-battery"
SECRET = "/home/somebody/private folder/secret-film.mp4"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server logs, as JSON."""
    loggers = [logging.getLogger(name) for name in ("", "secondglance")]
    kept = [(each, each.handlers, each.level, each.propagate) for each in loggers]
    stream = io.StringIO()
    observe.set_up_log("json", stream=stream)
    yield stream
    for each, handlers, level, propagate in kept:
        each.handlers, each.propagate = handlers, propagate
        each.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def value(http: httpx.Client, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    return 0.0


def test_a_request_is_one_line(empty: Library, log: io.StringIO) -> None:
    with client(empty, ServerOptions(api_keys=(KEY,))) as http:
        asked = {"query": "where is my secret", "documents": []}
        headers = {"X-API-Key": KEY, "X-Request-ID": "client-7.a"}
        answer = http.post("/v1/rerank", json=asked, headers=headers)
    assert answer.headers["x-request-id"] == "client-7.a"
    assert answer.json()["instance"].endswith(":client-7.a")
    (line,) = lines(log)
    assert line["request_id"] == "client-7.a"
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/rerank", 422)
    assert line["level"] == "info"
    assert line["ms"] > 0
    assert line["bytes_in"] == len(answer.request.content)
    assert line["bytes_out"] == len(answer.content)
    assert re.fullmatch("[0-9a-f]{8}", line["key"])
    assert KEY not in log.getvalue()
    assert "secret" not in log.getvalue()


@pytest.mark.parametrize(
    "given", ["", "a b", 'x"} {"forged', "x" * 65, "\xff", "-x", "../../etc", "a;b", "a\tb"]
)
def test_an_id_that_could_forge_a_line_is_replaced(
    empty: Library, log: io.StringIO, given: str
) -> None:
    with client(empty) as http:
        answer = http.get("/healthz", headers={b"X-Request-ID": given.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
    assert lines(log)[-1]["request_id"] == answer.headers["x-request-id"]


def test_paths_that_nobody_serves_are_not_logged(empty: Library, log: io.StringIO) -> None:
    with client(empty) as http:
        http.get(f"/files{SECRET}?key={KEY}")
        http.request("BREW", "/healthz")
    first, second = lines(log)
    assert (first["route"], first["status"]) == ("unknown", 404)
    assert (second["method"], second["status"]) == ("other", 405)
    for hidden in ("secret", "somebody", KEY, "BREW"):
        assert hidden not in log.getvalue()


def test_warnings_of_the_library_carry_the_request(
    empty: Library, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def warn(*_: Any, **__: Any) -> list[PairScore]:
        logging.getLogger("secondglance.rerank.anything").warning("cannot open %s", SECRET)
        return [PairScore(score=0.5)]

    monkeypatch.setattr(empty, "rerank", warn)
    with client(empty) as http:
        asked = {"query": "x", "documents": ["y"]}
        answer = http.post("/v1/rerank", json=asked, headers={"X-Request-ID": "mine"})
    assert answer.status_code == 200
    warned, _ = lines(log)
    assert (warned["level"], warned["request_id"]) == ("warning", "mine")
    assert warned["event"].startswith("cannot open ")
    assert "/home/somebody" not in log.getvalue()


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/search"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_that_nobody_foresaw_shows_neither_stack_nor_message(
    empty: Library,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    path: str,
    stream: bool,
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"cannot read {SECRET} with {KEY}")

    monkeypatch.setattr(empty, "rerank", fail)
    monkeypatch.setattr(empty, "search", fail)
    asked: dict[str, Any] = {"query": "x", "documents": ["y"]}
    if path == "/v1/search":
        asked = {"query": "x", "stream": stream}
    with client(empty) as http:
        answer = http.post(path, json=asked)
        assert http.get("/healthz").status_code == 200
    if path == "/v1/search" and stream:
        assert "urn:secondglance:problem:internal" in answer.text
    else:
        assert (answer.status_code, answer.json()["detail"]) == (500, "an error inside the server")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == lines(log)[0]["request_id"]
    said = log.getvalue()
    errors = [line for line in lines(log) if line["level"] == "error"]
    assert len(errors) == 1
    assert re.search(r"RuntimeError at secondglance\.server\.routes\.\w+:\w+:\d+", said)
    printed = "".join(capfd.readouterr())
    for hidden in ("Traceback", "secret-film", "somebody", KEY, 'File "'):
        for place in (said, answer.text, printed):
            assert hidden not in place


def test_an_error_of_a_route_itself_does_not_reach_the_web_server(
    empty: Library,
    log: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(_: Any) -> Any:
        raise KeyError(SECRET)

    monkeypatch.setattr("secondglance.server.routes.health.serving", fail)
    with client(empty) as http:
        answer = http.get("/readyz")
    assert answer.status_code == 500
    assert answer.json()["type"].endswith(":internal")
    error, request = lines(log)
    assert "KeyError at secondglance.server.routes.health:readyz:" in error["event"]
    assert request["status"] == 500
    for place in (log.getvalue(), answer.text, "".join(capfd.readouterr())):
        assert "Traceback" not in place
        assert "secret-film" not in place


def test_others_stacks_and_folders_are_left_out_of_the_log(log: io.StringIO) -> None:
    try:
        try:
            raise OSError(SECRET)
        except OSError as error:
            raise ModelError("no model") from error
    except ModelError:
        logging.getLogger("uvicorn.error").exception("failed for %s", "/srv/media/film.mp4")
    (line,) = lines(log)
    assert line["event"] == "failed for film.mp4"
    assert line["error"] == "ModelError, from OSError"
    assert "Traceback" not in log.getvalue()


def test_lines_for_people_hold_the_same(empty: Library, log: io.StringIO) -> None:
    stream = io.StringIO()
    observe.set_up_log("console", stream=stream)
    with client(empty) as http:
        http.get("/healthz", headers={"X-Request-ID": "mine"})
    line = stream.getvalue()
    for part in ("request", "route=/healthz", "status=200", "request_id=mine"):
        assert part in line
    assert "\x1b" not in line


def test_requests_are_counted_by_route_and_status(empty: Library) -> None:
    with client(empty) as http:
        for _ in range(3):
            http.get("/healthz")
        for number in range(12):
            http.get(f"/none/{number}")
            http.request(f"VERB{number}", "/healthz")
        name = "secondglance_requests_total"
        assert value(http, name, method="GET", route="/healthz", status="200") == 3
        assert value(http, name, route="unknown", status="404") == 12
        assert value(http, name, method="other", route="/healthz", status="405") == 12
        assert value(http, "secondglance_request_seconds_count", route="/healthz") == 15
        assert value(http, "secondglance_requests_in_flight") == 1
        text = http.get("/metrics").text
        assert "VERB" not in text
        assert "/none" not in text
        assert sum(line.startswith(f"{name}{{") for line in text.splitlines()) <= 6


def test_two_servers_count_apart(empty: Library) -> None:
    with client(empty) as one, client(empty) as two:
        one.get("/healthz")
        assert value(one, "secondglance_requests_total", route="/healthz") == 1
        assert value(two, "secondglance_requests_total", route="/healthz") == 0


def test_stages_pairs_batches_and_the_cache_are_counted(library: Library) -> None:
    with client(library) as http:
        asked = {"query": "words for this test alone", "k": 5, "recall": 5}
        http.post("/v1/search", json=asked)
        http.post("/v1/search", json=asked | {"stream": True})
        for stage in ("queue", "load", "embed", "recall", "rerank", "total"):
            assert value(http, "secondglance_stage_seconds_count", stage=stage) == 2
        assert value(http, "secondglance_stage_seconds_sum", stage="rerank") > 0
        pairs = value(http, "secondglance_rerank_pairs_total")
        assert pairs >= 5
        assert value(http, "secondglance_rerank_batch_pairs_sum") == pairs
        assert value(http, "secondglance_rerank_busy_seconds_total") > 0
        assert value(http, "secondglance_score_cache_total", result="miss") == pairs
        assert value(http, "secondglance_score_cache_total", result="hit") == pairs
        assert value(http, "secondglance_model_loaded", model="rerank") == 1
        assert value(http, "process_resident_memory_bytes") > 1e6
        http.post("/v1/rerank", json={"query": "x", "documents": ["a", "b"]})
        assert value(http, "secondglance_rerank_pairs_total") == pairs + 2
        assert value(http, "secondglance_stage_seconds_count", stage="read") == 1
        library.unload()
        assert value(http, "secondglance_model_loaded", model="rerank") == 0
        assert value(http, "secondglance_model_loaded", model="recall") == 0


def test_uploads_are_counted(empty: Library) -> None:
    from secondglance.server.metrics import Metrics

    metrics = Metrics()
    for status in (201, 413):
        metrics.begin()
        metrics.end(
            method="POST", route="/v1/uploads", status=status, seconds=1.0, received_bytes=70
        )
    found = metrics.text().decode()
    assert "secondglance_uploads_total 1.0" in found
    assert "secondglance_upload_bytes_total 70.0" in found


def test_a_batch_is_told_to_whoever_watches_and_to_nobody_later() -> None:
    class Watch:
        def __init__(self) -> None:
            self.batches: list[int] = []

        def batch(self, pairs: int, seconds: float) -> None:
            assert seconds >= 0
            self.batches.append(pairs)

        def cache(self, hits: int, misses: int) -> None:
            raise AssertionError("there is no cache")

    def score(batch: Any) -> list[PairScore]:
        return [PairScore(score=0.5) for _ in batch]

    watch = Watch()
    with Scheduler([score], batch_tokens=100, wait_ms=0) as scheduler:
        with observing.observing(watch):
            scheduler.submit(["abc", "de", "f"]).result(20)
        scheduler.submit(["abc"]).result(20)
    assert watch.batches == [3]


def test_content_is_not_logged(library: Library, log: io.StringIO) -> None:
    with client(library) as http:
        http.post("/v1/search", json={"query": "a very private question"})
        http.post("/v1/rerank", json={"query": "private", "documents": ["private document"]})
    assert Content(texts=("private",)).texts[0] not in log.getvalue()
    assert len(lines(log)) == 2
