"""What does the server do when fifty people use it at once, and does its memory stay?

A library of generated scenes, the starter models, and a server process as `secondglance serve`
starts it. Each client sends one request after the other: searches by words, searches by a picture
that it brings, and rerank requests with ten texts and pictures. No two ask the same words, so that
the cache of scores does not answer for the models. The same mix, one request at a time, is measured
before and after in the same run, for the load of the machine may change.

    python benchmarks/serve.py [--clients 50 --seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from common import report

RSS_EVERY_S = 5.0
WARM_UP_S = 20.0
ALONE_S = 20.0
START_S = 300.0
DOCUMENTS = 10
RECALL = 10
MIX = ("search-text", "search-picture", "rerank", "search-text")
"""Kinds of requests, in turn."""


@dataclass
class Load:
    """What came of the requests of one phase."""

    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    took_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """Requests with an answer of use."""
        return sum(len(took) for took in self.took_ms.values())

    def rate(self) -> float:
        """Answers of use a second."""
        return self.answered / self.seconds


class Asks:
    """Requests of the mix, no two alike in words."""

    def __init__(self, texts: list[str], pictures: list[str]) -> None:
        self._texts = texts
        self._pictures = pictures
        self._number = itertools.count()

    def next(self, kind: str) -> tuple[str, dict[str, Any]]:
        """Path and body of another request."""
        number = next(self._number)
        words = f"{self._texts[number % len(self._texts)]} {number}"
        picture = self._pictures[number % len(self._pictures)]
        if kind == "search-text":
            return "/v1/search", {"query": words, "k": 10, "recall": RECALL}
        if kind == "search-picture":
            return "/v1/search", {
                "query": {"text": words, "image": picture},
                "k": 10,
                "recall": RECALL,
            }
        documents: list[Any] = []
        for place in range(DOCUMENTS):
            at = number + place
            text = f"{self._texts[at % len(self._texts)]} {number}.{place}"
            image = self._pictures[at % len(self._pictures)]
            documents.append(text if place % 2 else {"image": image})
        return "/v1/rerank", {"query": words, "documents": documents}


async def ask(http: httpx.AsyncClient, load: Load, kind: str, asks: Asks) -> None:
    """Sends one request until it is answered other than with 429."""
    path, body = asks.next(kind)
    while True:
        began = time.perf_counter()
        try:
            answer = await http.post(path, json=body)
        except httpx.HTTPError as error:
            load.statuses[type(error).__name__] += 1
            load.faults.append(repr(error))
            return
        load.statuses[str(answer.status_code)] += 1
        if answer.status_code == 429:
            await asyncio.sleep(float(answer.headers["retry-after"]))
            continue
        if answer.status_code == 200:
            load.took_ms[kind].append((time.perf_counter() - began) * 1e3)
        else:
            load.faults.append(answer.text[:300])
        return


async def drive(url: str, asks: Asks, *, clients: int, seconds: float) -> Load:
    """Clients that send one request after the other for some time."""
    load = Load()
    began = time.perf_counter()
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:

        async def client(number: int) -> None:
            for kind in itertools.islice(itertools.cycle(MIX), number % len(MIX), None):
                if time.perf_counter() - began >= seconds:
                    return
                await ask(http, load, kind, asks)

        await asyncio.gather(*(client(number) for number in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


async def watched(url: str, asks: Asks, pid: int, *, clients: int, seconds: float) -> Any:
    """As `drive`, with the memory of the server and its workers, in MB by second."""
    memory: list[tuple[float, float]] = []
    began = time.perf_counter()

    async def watch() -> None:
        while True:
            memory.append((time.perf_counter() - began, megabytes(pid)))
            await asyncio.sleep(RSS_EVERY_S)

    watching = asyncio.create_task(watch())
    load = await drive(url, asks, clients=clients, seconds=seconds)
    watching.cancel()
    return load, memory


def megabytes(pid: int) -> float:
    """Resident memory of a process and its children."""
    process = psutil.Process(pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def growth(memory: list[tuple[float, float]], *, until_s: float) -> dict[str, float]:
    """How memory moves after warm-up, as long as all clients ask."""
    after = np.array([point for point in memory if WARM_UP_S <= point[0] <= until_s])
    third = max(1, len(after) // 3)
    early, late = np.median(after[:third, 1]), np.median(after[-third:, 1])
    return {
        "mb_per_minute": round(float(np.polyfit(after[:, 0], after[:, 1], 1)[0]) * 60, 1),
        "first_third_mb": round(float(early)),
        "last_third_mb": round(float(late)),
    }


class Server:
    """`secondglance serve` as a process, until the block ends."""

    def __init__(self, library: Path, *options: str) -> None:
        command = [sys.executable, "-m", "secondglance", "serve", "--library", str(library)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - for the life of the server
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--preload", *options],
            stderr=self._log,
            env={**os.environ, "NO_COLOR": "1"},
        )
        self.url = ""

    def __enter__(self) -> Server:
        ends = time.monotonic() + START_S
        while time.monotonic() < ends and self.process.poll() is None:
            self.url = self.url or next(iter(re.findall(r"http://\S+", self.log())), "")
            try:
                if self.url and httpx.get(f"{self.url}readyz").status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        self.process.kill()
        raise SystemExit(f"the server did not start:\n{self.log()}")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def log(self) -> str:
        """What it said so far."""
        self._log.seek(0)
        return self._log.read()


def references(url: str, files: list[Path]) -> Iterator[str]:
    """Pictures as a client brings them: uploaded, or within the request where that is not there."""
    with httpx.Client(base_url=url, timeout=60) as http:
        for file in files:
            answer = http.post("/v1/uploads", content=file.read_bytes())
            if answer.status_code == 201:
                yield answer.json()["reference"]
            else:
                yield f"data:image/jpeg;base64,{base64.b64encode(file.read_bytes()).decode()}"


def row(phase: str, kind: str, took: list[float]) -> dict[str, Any]:
    """Percentiles of one kind of request."""
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    return {
        "phase": phase,
        "request": kind,
        "answers": len(took),
        "p50 ms": float(p50),
        "p95 ms": float(p95),
        "p99 ms": float(p99),
    }


def main() -> None:
    """Runs it."""
    from secondglance.scenes.collection import write_collection

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pictures", type=int, default=80)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        made = write_collection(
            scratch / "scenes", pictures=options.pictures, clips=6, texts=20, seed=1
        )
        library = scratch / "library"
        command = [sys.executable, "-m", "secondglance", "index", str(scratch / "scenes")]
        subprocess.run([*command, "--library", str(library), "--preset", "starter"], check=True)
        texts = [request.text for request in made.requests if request.text]
        files = sorted((scratch / "scenes").rglob("*.jpg"))[:30]
        with Server(library) as server:
            asks = Asks(texts, list(references(server.url, files)))
            pid = server.process.pid
            loads = [os.getloadavg()[0]]
            asyncio.run(drive(server.url, asks, clients=2, seconds=5))
            before = asyncio.run(drive(server.url, asks, clients=1, seconds=ALONE_S))
            together, memory = asyncio.run(
                watched(server.url, asks, pid, clients=options.clients, seconds=options.seconds)
            )
            after = asyncio.run(drive(server.url, asks, clients=1, seconds=ALONE_S))
            loads.append(os.getloadavg()[0])
            log = server.log()
    alone_s = before.seconds + after.seconds
    alone_rate = (before.answered + after.answered) / alone_s
    rows = []
    for kind in dict.fromkeys(MIX):
        rows.append(row("one at a time", kind, before.took_ms[kind] + after.took_ms[kind]))
        rows.append(row(f"{options.clients} clients", kind, together.took_ms[kind]))
    facts: dict[str, Any] = {
        "clients": options.clients,
        "seconds": round(together.seconds, 1),
        "statuses": dict(together.statuses),
        "requests_per_s": {
            "one_at_a_time": round(alone_rate, 2),
            "before_and_after": [round(before.rate(), 2), round(after.rate(), 2)],
            "together": round(together.rate(), 2),
            "ratio": round(together.rate() / alone_rate, 2),
        },
        "memory_mb": [[round(at), round(held)] for at, held in memory],
        "memory_after_warm_up": growth(memory, until_s=options.seconds),
        "load_average": [round(load, 1) for load in loads],
    }
    if together.faults:
        facts["faults"] = together.faults[:5]
        print(log[-3000:])
    if options.no_write:
        print(rows, facts)
    else:
        report("serve", rows, **facts)


if __name__ == "__main__":
    main()
