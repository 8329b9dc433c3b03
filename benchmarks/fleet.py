"""What happens to answers and their times when one of four rerank servers dies, or is slow.

Four servers on this machine answer after a delay that stands for scoring, each one question at a
time, as one GPU would; now and then the delay is ten times as long. The machine's cores could not
show how four models share the arithmetic, and need not: this measures balancing, standing in and
hedging, never scoring. In each run one server is killed after a third of the time (nobody listens
any more, and what is under way is hung up on) and comes back after two thirds. With and without
hedging in one run, in turns.

    python benchmarks/fleet.py [--seconds 30 --threads 3]
"""

from __future__ import annotations

import argparse
import json
import random
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from common import report

from secondglance.errors import RerankError
from secondglance.rerank import RemoteReranker
from secondglance.types import Content

SERVERS = 4
SCORING_S = 0.04
LOOK_EVERY_S = 0.1
"""As `secondglance serve` looks whether its client is still there."""
SLOW = 10.0
SLOW_SHARE = 0.02
DOCUMENTS = 10
PHASES = ("before", "one dead", "back")
QUERY = Content(texts=("a red ball",))
DOCUMENT_TEXTS = [Content(texts=("word " * n,)) for n in range(1, DOCUMENTS + 1)]


class Simulated:
    """A server that scores by length, after a delay.

    Args:
        seed: Of its delays.
        delay_s: Draws one.
    """

    def __init__(self, seed: int, delay_s: Callable[[random.Random], float]) -> None:
        self._random = random.Random(seed)
        self._delay_s = delay_s
        self._device = threading.Lock()
        self.questions = 0
        self.dead = False
        self._port = 0
        self._begin()

    def _begin(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                self._send({"status": "ready"})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.questions += 1
                with outer._device:
                    ends = time.perf_counter() + outer._delay_s(outer._random)
                    # A question that nobody waits for any more is dropped, as real servers do.
                    while (left := ends - time.perf_counter()) > 0 and not self._gone():
                        time.sleep(min(left, LOOK_EVERY_S))
                rows = [
                    {"index": place, "relevance_score": score(text)}
                    for place, text in enumerate(body["documents"])
                ]
                self._send({"results": rows})

            def _gone(self) -> bool:
                readable = select.select([self.connection], [], [], 0)[0]
                try:
                    return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)
                except ConnectionError:
                    return True

            def _send(self, value: Any) -> None:
                if outer.dead:
                    self.close_connection = True
                    return
                content = json.dumps(value).encode()
                try:
                    self.send_response(200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except ConnectionError:  # nobody waits for it any more
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A connection that was broken off is no news."""

        self._http = Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_port
        self.dead = False
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        """Of its rerank endpoint."""
        return f"http://127.0.0.1:{self._port}/v1/rerank"

    def kill(self) -> None:
        """Ends it; connections that are open are hung up at the next answer."""
        self.dead = True
        self._http.shutdown()
        self._http.server_close()

    def revive(self) -> None:
        """It listens again, at the same port."""
        self._begin()


def score(text: str) -> float:
    """What a server says of a document."""
    return 1 / (1 + len(text))


def stalling(draw: random.Random) -> float:
    """Seconds that scoring takes: even for most, and now and then ten times as many."""
    return SCORING_S * (SLOW if draw.random() < SLOW_SHARE else draw.uniform(0.9, 1.1))


@dataclass
class Run:
    """What came of the calls."""

    took: list[tuple[float, float]] = field(default_factory=list)
    """When each ended, and how long it took, in seconds."""
    failed: int = 0
    wrong: int = 0


def call_until(reranker: RemoteReranker, began: float, seconds: float, run: Run) -> None:
    """Asks one question after the other."""
    expected = [score(document.texts[0]) for document in DOCUMENT_TEXTS]
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        try:
            found = [pair.score for pair in reranker.score(QUERY, DOCUMENT_TEXTS)]
        except RerankError as error:
            run.failed += 1
            print(error, file=sys.stderr)
            continue
        run.wrong += not np.allclose(np.array(found, dtype=float), expected)
        now = time.perf_counter()
        run.took.append((now - began, now - start))


def measure(share: float, seconds: float, threads: int, seed: int) -> list[dict[str, Any]]:
    """Rows of the three phases."""
    servers = [Simulated(seed * SERVERS + number, stalling) for number in range(SERVERS)]
    reranker = RemoteReranker(
        [server.url for server in servers], hedge_share=share, breaker_pause_s=1.0, timeout_s=10
    )
    for _ in range(30 * SERVERS):  # hedging knows what answers take
        reranker.score(QUERY, DOCUMENT_TEXTS)
    hedging = reranker._servers.hedging
    asked, hedged = hedging.asked, hedging.hedged
    run, began = Run(), time.perf_counter()
    callers = [
        threading.Thread(target=call_until, args=(reranker, began, seconds, run))
        for _ in range(threads)
    ]
    for caller in callers:
        caller.start()
    time.sleep(seconds / 3)
    servers[1].kill()
    killed_at = servers[1].questions
    time.sleep(seconds / 3)
    servers[1].revive()
    for caller in callers:
        caller.join()
    after = servers[1].questions - killed_at
    hedges = (hedging.hedged - hedged) / max(hedging.asked - asked, 1)
    rows = []
    for number, phase in enumerate(PHASES):
        part = seconds / 3
        took = [s for at, s in run.took if number * part <= at < (number + 1) * part]
        p50, p95, p99 = np.percentile(took, [50, 95, 99]) * 1e3
        rows.append(
            {
                "hedging": share,
                "phase": phase,
                "calls": len(took),
                "calls/s": len(took) / part,
                "p50 ms": float(p50),
                "p95 ms": float(p95),
                "p99 ms": float(p99),
                "longest ms": max(took) * 1e3,
                "failed": run.failed,
                "wrong": run.wrong,
                "hedged share": hedges,
                "asked after coming back": after,
            }
        )
    reranker.close()
    for server in servers:
        server.kill()
    return rows


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.1)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(options.repeat):
        for share in (0.0, options.share):
            rows += measure(share, options.seconds, options.threads, seed)
    ratios = {}
    for phase in PHASES:
        with_, without = (
            [row for row in rows if row["phase"] == phase and bool(row["hedging"]) is hedged]
            for hedged in (True, False)
        )
        ratios[phase] = {
            name: round(
                float(np.mean([r[name] for r in with_]) / np.mean([r[name] for r in without])), 3
            )
            for name in ("calls/s", "p50 ms", "p95 ms", "p99 ms")
        }
    report(
        "fleet",
        rows,
        servers=SERVERS,
        threads=options.threads,
        simulated=f"{SCORING_S * 1e3:g} ms a question, one at a time; {SLOW_SHARE:.0%} take "
        f"{SLOW:g} times as long",
        with_hedging_over_without=ratios,
    )
    if any(row["failed"] or row["wrong"] for row in rows):
        sys.exit("some calls had no answer, or a wrong one")


if __name__ == "__main__":
    main()
