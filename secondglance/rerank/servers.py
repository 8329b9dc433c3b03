"""The servers behind a remote reranker: which one to ask next, and who stands in for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secondglance.errors import RerankError
from secondglance.rerank.asking import Asker, FailedError
from secondglance.rerank.breaker import Breaker, Permit
from secondglance.rerank.hedging import Hedging
from secondglance.rerank.loops import ClosedError, LoopThread
from secondglance.types import PairScore

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(slots=True, eq=False)
class Server:
    """One URL, and how it has been doing.

    Attributes:
        url: Of its rerank endpoint.
        health_url: Where it says whether it can work; None if that is not known.
        breaker: Keeps it from being asked while it fails.
        under_way: Questions that it has not answered yet.
        problem: What went wrong last.
    """

    url: str
    health_url: str | None
    breaker: Breaker
    under_way: int = 0
    problem: str = ""


class Servers:
    """Asks the server with the fewest questions under way, and passes over those that keep failing.

    A server that failed often is left alone for a while. Then it is asked for its health, without
    anybody waiting for that as long as others are there; where it does not tell, one question is
    the trial.

    Args:
        urls: Checked, see `checked_url`, each with the URL of its health check or None.
        api_key: Sent as a bearer token; never shown.
        timeout_s: For one answer, from the first byte sent to the last received.
        connect_timeout_s: For a connection.
        failures: In a row, after which a server is left alone.
        pause_s: For how long.
        max_answer_bytes: Larger answers are refused.
        hedge_share: Share of questions that may be put to a second server while the first is slow.
    """

    def __init__(
        self,
        urls: Sequence[tuple[str, str | None]],
        *,
        api_key: SecretStr | None,
        timeout_s: float,
        connect_timeout_s: float,
        failures: int,
        pause_s: float,
        max_answer_bytes: int,
        hedge_share: float,
    ) -> None:
        self._servers = [
            Server(url, health_url, Breaker(failures=failures, pause_s=pause_s))
            for url, health_url in urls
        ]
        self._asker = Asker(
            api_key=api_key,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_answer_bytes=max_answer_bytes,
        )
        self.hedging = Hedging(share=hedge_share if len(urls) > 1 else 0.0)
        # Everything below runs there, in one thread.
        self._loop = LoopThread("rerank-servers")
        self._turn = 0
        self._checks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Breaks off what is under way, and lets go of the connections. May be called twice."""
        self._loop.close(self._asker.close())

    def awake_besides(self, urls: Collection[str]) -> int:
        """How many other servers may be asked now."""
        return sum(not server.breaker.resting for server in self._servers if server.url not in urls)

    def ask(
        self, body: bytes, count: int, *, deadline_s: float, avoid: set[str] | None = None
    ) -> list[PairScore]:
        """Puts one question, to a second server too if the first takes long.

        Args:
            body: Of the request, JSON.
            count: Documents in it.
            deadline_s: On the monotonic clock; later is too late.
            avoid: URLs that failed at this question: asked only if no other may be. Those that
                fail now are added.

        Raises:
            FailedError: It was not answered.
            RerankError: No server may be asked now.
        """
        avoid = set() if avoid is None else avoid
        try:
            return self._loop.run(self._ask(body, count, deadline_s, avoid))
        except ClosedError:
            raise FailedError(
                "the reranker is closed", remedy="open it again", again=False, sick=False
            ) from None

    async def _ask(
        self, body: bytes, count: int, deadline_s: float, avoid: set[str]
    ) -> list[PairScore]:
        self.hedging.ask()
        server, permit = await self._first(avoid, deadline_s)
        first = asyncio.create_task(self._one(server, permit, body, count, deadline_s))
        asked = {first: server}
        try:
            delay_s = self.hedging.delay_s(server, count)
            if delay_s is not None:
                await asyncio.wait({first}, timeout=delay_s)
                second = None if first.done() else self._second({*avoid, server.url})
                if second is not None:
                    asked[asyncio.create_task(self._one(*second, body, count, deadline_s))] = (
                        second[0]
                    )
            return await _first_answer(asked, avoid)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _one(
        self, server: Server, permit: Permit, body: bytes, count: int, deadline_s: float
    ) -> list[PairScore]:
        """Asks one server, and notes how it did."""
        healthy: bool | None = None
        began = time.monotonic()
        server.under_way += 1
        try:
            scores = await self._asker.ask(server.url, body, count, deadline_s=deadline_s)
            healthy = True
        except FailedError as error:
            healthy = not error.sick
            server.problem = error.problem
            raise
        except asyncio.CancelledError:
            self.hedging.note(server, count, time.monotonic() - began)  # it takes at least so long
            raise
        finally:
            server.under_way -= 1
            server.breaker.leave(permit, healthy=healthy)
        self.hedging.note(server, count, time.monotonic() - began)
        return scores

    def _in_order(self, avoid: Collection[str]) -> list[Server]:
        """The least busy first; of equally busy ones they take turns; those to avoid last."""
        self._turn += 1
        count = len(self._servers)
        turned = [self._servers[(self._turn + place) % count] for place in range(count)]
        return sorted(turned, key=lambda server: (server.url in avoid, server.under_way))

    async def _first(self, avoid: Collection[str], deadline_s: float) -> tuple[Server, Permit]:
        for _ in range(2):
            for server in self._in_order(avoid):
                if server.breaker.resting and server.health_url is not None:
                    self._begin_check(server)  # nobody waits for it while another can be asked
                elif (permit := server.breaker.enter()) is not None:
                    return server, permit
            if not self._checks:
                break
            await asyncio.wait(self._checks, timeout=max(deadline_s - time.monotonic(), 0.0))
        resting_now = "; ".join(
            f"{server.problem}, {server.breaker.failed} failures in a row"
            for server in self._servers
        )
        soonest = min(server.breaker.left_s for server in self._servers)
        raise RerankError(
            f"no reranker is asked for a while: {resting_now}",
            remedy=f"see whether it runs; it is tried again in {math.ceil(soonest)} s",
        )

    def _second(self, avoid: Collection[str]) -> tuple[Server, Permit] | None:
        """Another server for a question whose answer takes long; None if there is none."""
        for server in self._in_order(avoid):
            if server.url in avoid or server.breaker.resting:
                continue
            if not self.hedging.take():
                return None
            permit = server.breaker.enter()
            return None if permit is None else (server, permit)
        return None

    def _begin_check(self, server: Server) -> None:
        if (permit := server.breaker.enter()) is None:
            return
        check = asyncio.create_task(self._check(server, permit))
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _check(self, server: Server, permit: Permit) -> None:
        """Asks a server that rested whether it can work again."""
        healthy: bool | None = None
        try:
            assert server.health_url is not None
            healthy = await self._asker.ready(server.health_url)
            if healthy is None:  # then a question must be the trial, now and later
                server.health_url = None
            elif not healthy:
                server.problem = f"the reranker {server.url} says that it is not ready, or nothing"
        finally:
            server.breaker.leave(permit, healthy=healthy, wary=True)


async def _first_answer(
    asked: Mapping[asyncio.Task[list[PairScore]], Server], avoid: set[str]
) -> list[PairScore]:
    """The first answer of several servers; if all fail, what the last one did."""
    waiting = set(asked)
    while True:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        failed: BaseException | None = None
        for task in done:
            if (failed := task.exception()) is None:
                return task.result()
            avoid.add(asked[task].url)
        if not waiting:
            assert failed is not None
            raise failed
