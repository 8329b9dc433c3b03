"""Many clients at once: nothing but answers and 429, and batches that requests share."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from secondglance.library import Library
from secondglance.rerank.scheduler import Runner
from secondglance.server.options import ServerOptions
from secondglance.types import PairScore
from tests.served import client, served

CLIENTS = 20
SECONDS = 3.0
TOGETHER = 4


def body(number: int) -> tuple[str, dict[str, Any]]:
    """The mix: no two requests ask the same, so that none is answered from the cache."""
    if number % 3 == 0:
        documents = [f"a dog on a beach {number}", f"words about a harbour {number}"]
        return "/v1/rerank", {"query": f"a dog {number}", "documents": documents}
    stream = number % 3 == 1
    return "/v1/search", {"query": f"a dog {number}", "k": 3, "recall": 3, "stream": stream}


async def crowd(url: str) -> tuple[Counter[int], list[str | None]]:
    """What clients got that never wait, and what those with 429 were told of it."""
    statuses: Counter[int] = Counter()
    told: list[str | None] = []
    ends = time.monotonic() + SECONDS
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:

        async def one(number: int) -> None:
            while time.monotonic() < ends:
                path, asked = body(number)
                answer = await http.post(path, json=asked)
                statuses[answer.status_code] += 1
                if answer.status_code == 429:
                    told.append(answer.headers.get("retry-after"))
                    await asyncio.sleep(0.05)
                elif asked.get("stream"):
                    assert "event: result" in answer.text
                number += CLIENTS

        await asyncio.gather(*(one(number) for number in range(CLIENTS)))
    return statuses, told


def test_a_crowd_gets_answers_or_429(library: Library) -> None:
    library.load()
    with served(library, ServerOptions(concurrency=2, queue=4)) as url:
        statuses, told = asyncio.run(crowd(url))
        assert set(statuses) == {200, 429}
        assert all(seconds is not None and 1 <= int(seconds) <= 60 for seconds in told)
        # And it is as it was before.
        assert httpx.post(f"{url}/v1/search", json={"query": "a dog"}, timeout=60).is_success


@pytest.mark.parametrize("path", ["/v1/search", "/v1/rerank"])
def test_requests_at_once_share_batches(
    library: Library, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    library.load()
    # Behind the cache of scores.
    scheduler = library._parts.reranker().inner._engine._scheduler  # type: ignore[attr-defined]
    (runner,) = scheduler._runners
    sizes: list[int] = []

    def all_wait(batch: Sequence[Any]) -> bool:
        """All requests that are not in the first batch, which may hold several itself."""
        lanes = scheduler._queue._lanes.values()
        return sum(len(lane.jobs) for lane in lanes) >= TOGETHER - len(batch)

    def watching(batch: Sequence[Any]) -> list[PairScore]:
        ends = time.monotonic() + 30
        while not sizes and not all_wait(batch) and time.monotonic() < ends:
            time.sleep(0.01)  # the first batch takes until the others have come
        sizes.append(len(batch))
        found: list[PairScore] = runner(batch)
        return found

    runners: tuple[Runner, ...] = (watching,)
    monkeypatch.setattr(scheduler, "_runners", runners)
    # Pairs of one request that begin alike for long keep to batches of their own, which compute
    # the beginning only once; see `rerank.engine`. A token is a byte here, so two would be enough.
    pairs = 1
    answers: list[httpx.Response] = []
    with client(library, ServerOptions(concurrency=TOGETHER)) as http:

        def ask(number: int) -> None:
            asked: dict[str, Any] = {"query": f"shared by {path} {number}"}
            if path == "/v1/search":
                asked |= {"k": pairs, "recall": pairs, "kind": "image"}
            else:
                asked["documents"] = [f"document {number}.{place}" for place in range(pairs)]
            answers.append(http.post(path, json=asked))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(TOGETHER)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [answer.status_code for answer in answers] == [200] * TOGETHER
    assert sum(sizes) == TOGETHER * pairs
    assert max(sizes) > pairs  # more than one request has
    assert len(sizes) < TOGETHER
