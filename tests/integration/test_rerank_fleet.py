"""Several rerank servers: the load is spread, and one that is dead or slow costs only time."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secondglance.config import load_settings
from secondglance.errors import InputError, RerankError
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker, RemoteReranker
from secondglance.rerank.wire import Dialect, health_url
from secondglance.types import Content
from tests.libraries import Open
from tests.media import write_pictures
from tests.rerank_server import (
    Json,
    Reply,
    RerankServer,
    answering,
    by_length,
    closed_url,
    serving,
)

QUERY = Content(texts=("a red ball",))
WORDS = [Content(texts=("word " * n,)) for n in range(1, 9)]
EXPECTED = [1 / (1 + len(json.dumps(d.texts[0]))) for d in WORDS]


def after(seconds: float) -> Callable[[Json], Reply]:
    """Scores by length, so many seconds later."""

    def answer(body: Json) -> Reply:
        reply = by_length(body)
        reply.after_s = seconds
        return reply

    return answer


@contextlib.contextmanager
def fleet(count: int, answer: Callable[[Json], Reply] = by_length) -> Iterator[list[RerankServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serving(answer)) for _ in range(count)]


def remote(servers: list[RerankServer], **options: Any) -> RemoteReranker:
    return RemoteReranker([each.url for each in servers], **{"timeout_s": 10.0, **options})


def scores(reranker: RemoteReranker, documents: list[Content] = WORDS) -> list[float | None]:
    return [pair.score for pair in reranker.score(QUERY, documents)]


def seen(servers: list[RerankServer]) -> list[int]:
    return [len(server.seen) for server in servers]


def until(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Whether it comes true within the time."""
    ends = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


# Dead servers


def test_four_servers_one_killed_in_the_middle_and_all_scores_are_the_local_ones() -> None:
    starter = Qwen3VLReranker(starter_folder("reranker"), device="cpu")
    local = [pair.score for pair in starter.score(QUERY, WORDS)]
    with fleet(4, answering(starter)) as servers:
        reranker = remote(servers, max_documents=2, timeout_s=120)
        found: list[list[float | None]] = []
        faults: list[BaseException] = []

        def ask() -> None:
            try:
                for _ in range(4):
                    found.append(scores(reranker))
            except BaseException as error:
                faults.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert until(lambda: len(servers[1].seen) >= 2, 60)
        servers[1].kill()
        before = len(servers[1].seen)
        for thread in threads:
            thread.join()
        assert faults == []
        assert found == [pytest.approx(local, abs=1e-4)] * 12
        assert min(seen([servers[0], *servers[2:]])) >= 4
        assert len(servers[1].seen) <= before + 4  # connections that were open


@pytest.mark.parametrize(
    "fault",
    [
        Reply({}, status=500),
        Reply(b"<html>not an answer"),
        Reply(reset=True),
        Reply({}, status=503, headers={"Retry-After": "30"}),
        Reply({}, after_s=1.0),
    ],
    ids=["500", "garbage", "reset", "503", "hangs"],
)
def test_a_fault_of_one_is_no_fault_of_the_others(fault: Reply) -> None:
    with fleet(2) as servers:
        servers[0].answer = servers[1].answer = by_length
        servers[1].faults = [fault]  # it is asked first
        reranker = remote(servers, timeout_s=0.5, concurrency=1)
        began = time.monotonic()
        assert scores(reranker) == pytest.approx(EXPECTED)
        assert time.monotonic() - began < 2  # and nobody waits for the 30 s
        assert seen(servers) == [1, 1]


def test_what_is_wrong_with_the_request_goes_to_one_server_only() -> None:
    with fleet(3, lambda _: Reply({"detail": "no"}, status=422)) as servers:
        with pytest.raises(RerankError, match="answered 422"):
            scores(remote(servers))
        assert sum(seen(servers)) == 1


def test_all_dead_leaves_recall_order_and_a_warning(tmp_path: Path, open_library: Open) -> None:
    write_pictures(tmp_path / "photos", 4)
    urls = [closed_url() for _ in range(4)]
    library = open_library(rerank={"backend": "remote", "url": urls, "timeout_s": 5.0})
    library.index([tmp_path / "photos"])
    found = library.search("a red ball", k=4)
    assert [hit.recall_rank for hit in found.hits] == [1, 2, 3, 4]
    [warning] = found.warnings
    assert warning.startswith("the second pass failed, results are in recall order: the reranker ")
    assert "cannot be reached" in warning
    assert "(4 tries)" in warning


# Balance


def test_the_least_busy_is_asked() -> None:
    with fleet(3, after(0.02)) as servers:
        servers[0].answer = after(0.4)
        reranker = remote(servers, max_documents=1, concurrency=3, hedge_share=0.0)
        assert scores(reranker, WORDS * 3) == pytest.approx(EXPECTED * 3)
        assert seen(servers)[0] <= 4  # in turns it would be eight
        assert servers[0].most_at_once == 1


def test_equally_busy_ones_take_turns() -> None:
    with fleet(4) as servers:
        reranker = remote(servers, max_documents=1, concurrency=1)
        scores(reranker)
        assert seen(servers) == [2, 2, 2, 2]


# Hedging


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_hedging_hides_a_server_that_is_slow_now_and_then(share: float) -> None:
    """Each twentieth answer of one of two servers takes 40 times as long."""
    slow_s, count = 0.6, 160
    with fleet(2, after(0.015)) as servers:
        stalls = iter(range(10_000))

        def now_and_then(body: Json) -> Reply:
            return after(slow_s if next(stalls) % 20 == 19 else 0.015)(body)

        servers[0].answer = now_and_then
        reranker = remote(servers, hedge_share=share)
        took = []
        for _ in range(count):
            began = time.monotonic()
            assert scores(reranker, WORDS[:1]) == pytest.approx(EXPECTED[:1])
            took.append(time.monotonic() - began)
        hedging = reranker._servers.hedging
        late = sum(each >= slow_s for each in took)
        assert hedging.asked == count
        # A second question may be broken off before it is sent.
        assert count <= sum(seen(servers)) <= count + hedging.hedged
        if share:
            assert 1 <= hedging.hedged <= count * share + 1
            assert late <= 2
            assert np.quantile(took, 0.97) < slow_s / 2
        else:
            assert hedging.hedged == 0
            assert late == 4


def test_the_slower_answer_is_not_waited_for() -> None:
    with fleet(2, after(0.01)) as servers:
        reranker = remote(servers, hedge_share=1.0)
        for _ in range(60):
            scores(reranker, WORDS[:1])
        servers[0].answer = after(3.0)
        began = time.monotonic()
        for _ in range(4):
            assert scores(reranker, WORDS[:1]) == pytest.approx(EXPECTED[:1])
        assert time.monotonic() - began < 2
        assert [server.under_way for server in reranker._servers._servers] == [0, 0]
        servers[0].answer = by_length


def test_a_hedge_that_fails_leaves_the_first_its_time() -> None:
    with fleet(2, after(0.01)) as servers:
        reranker = remote(servers, hedge_share=1.0, retries=0)
        for _ in range(60):
            scores(reranker, WORDS[:1])
        servers[0].answer = after(0.5)
        servers[1].answer = lambda _: Reply({}, status=400)
        # Without a second try: whichever is asked first decides, and once that is the slow one.
        found = []
        for _ in range(2):
            with contextlib.suppress(RerankError):
                found.append(scores(reranker, WORDS[:1]))
        assert found
        assert all(score == pytest.approx(EXPECTED[:1]) for score in found)


# Health


@pytest.mark.parametrize(("dialect", "path"), [("secondglance", "/readyz"), ("vllm", "/health")])
def test_a_server_that_died_is_asked_for_its_health_before_it_is_trusted(
    dialect: Dialect, path: str
) -> None:
    with fleet(2) as servers:
        sick, well = servers
        sick.answer = lambda _: Reply({}, status=500)
        sick.health = Reply({}, status=503)
        reranker = remote(servers, dialect=dialect, breaker_failures=2, breaker_pause_s=0.05)

        def goes_on() -> bool:
            time.sleep(0.06)
            assert scores(reranker) == pytest.approx(EXPECTED)
            return True

        for _ in range(8):
            goes_on()
        assert len(sick.seen) == 2
        assert until(lambda: bool(sick.asked_for_health))
        assert set(sick.asked_for_health) == {path}
        assert well.asked_for_health == []
        sick.health = Reply({})
        # It says that it is well, and is not: one question, and it rests again.
        assert until(lambda: goes_on() and len(sick.seen) > 2)
        assert until(lambda: reranker._servers._servers[0].breaker.resting)
        sick.answer = by_length
        before = len(sick.seen)
        assert until(lambda: goes_on() and len(sick.seen) > before + 2)


def test_where_health_is_not_told_a_question_is_the_trial() -> None:
    with fleet(1) as [server]:
        server.health = Reply({}, status=404)
        reranker = remote([server], retries=0, breaker_failures=1, breaker_pause_s=0.05)
        server.faults = [Reply({}, status=500)]
        with pytest.raises(RerankError, match="answered 500"):
            scores(reranker)
        time.sleep(0.06)
        assert scores(reranker) == pytest.approx(EXPECTED)
        assert server.asked_for_health == ["/readyz"]


def test_one_that_is_not_ready_is_not_asked() -> None:
    with fleet(1) as [server]:
        server.health = Reply({}, status=503)
        reranker = remote([server], retries=0, breaker_failures=1, breaker_pause_s=0.05)
        server.faults = [Reply({}, status=500)]
        with pytest.raises(RerankError, match="answered 500"):
            scores(reranker)
        time.sleep(0.06)
        with pytest.raises(RerankError, match="says that it is not ready"):
            scores(reranker)
        assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("url", "dialect", "expected"),
    [
        ("http://a:1/v1/rerank", "secondglance", "http://a:1/readyz"),
        ("https://a/media/v1/rerank", "secondglance", "https://a/media/readyz"),
        ("http://a/v1/rerank", "vllm", "http://a/health"),
        ("http://a/rank", "vllm", None),
        ("https://api.jina.ai/v1/rerank", "jina", None),
        ("https://api.cohere.com/v2/rerank", "cohere", None),
    ],
)
def test_where_health_is_told(url: str, dialect: Dialect, expected: str | None) -> None:
    assert health_url(url, dialect) == expected


# Settings, and the end


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_an_impossible_share(share: float) -> None:
    with pytest.raises(InputError, match="hedge_share is"):
        RemoteReranker("http://host", hedge_share=share)


def test_the_share_is_a_setting() -> None:
    flags = {"rerank": {"backend": "remote", "url": ["http://a", "http://b"], "hedge_share": 0.25}}
    reranker = open_reranker(load_settings(flags=flags).rerank)
    assert isinstance(reranker, RemoteReranker)
    assert reranker._servers.hedging._share == 0.25


def test_closing_breaks_off_what_is_under_way() -> None:
    with fleet(1, after(3.0)) as [server]:
        reranker = remote([server])
        closer = threading.Timer(0.3, reranker.close)
        closer.start()
        began = time.monotonic()
        with pytest.raises(RerankError, match="closed"):
            scores(reranker)
        assert time.monotonic() - began < 2
        closer.join()
        thread = reranker._servers._loop._thread
        assert thread is not None
        assert not thread.is_alive()
        server.answer = by_length
