"""Two real servers behind one remote reranker, one of them a process that is killed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest

from secondglance.rerank import Qwen3VLReranker, RemoteReranker
from secondglance.types import Content
from tests.libraries import Open
from tests.served import served

START_S = 120.0
QUERY = Content(texts=("a red ball",))
DOCUMENTS = [Content(texts=(f"a {color} ball",)) for color in ("red", "blue", "green", "grey")]


@contextlib.contextmanager
def process_of(library: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`secondglance serve` of a library, and its address."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "secondglance", "serve", "--library", str(library),
             "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=log,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            yield process, address(process, log)
        finally:
            process.kill()
            process.wait()


def address(process: subprocess.Popen[str], log: IO[str]) -> str:
    """Where a server listens, once it says that it is ready."""
    ends = time.monotonic() + START_S
    while time.monotonic() < ends and process.poll() is None:
        log.seek(0)
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read())
        with contextlib.suppress(httpx.HTTPError):
            if found and httpx.get(f"{found[0]}/readyz").status_code == 200:
                return found[0]
        time.sleep(0.1)
    log.seek(0)
    raise AssertionError(f"the server did not start: {log.read()}")


@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_a_server_process_that_is_killed_costs_no_answer(
    tmp_path: Path, open_library: Open, untrained_reranker: Path
) -> None:
    folder = open_library("one").folder
    open_library.close()
    other = open_library("two")
    local = Qwen3VLReranker(untrained_reranker, device="cpu")
    expected = [pair.score for pair in local.score(QUERY, DOCUMENTS)]
    with served(other) as stays, process_of(folder) as (process, goes):
        reranker = RemoteReranker([goes, stays], max_documents=1, timeout_s=60, breaker_failures=2)
        found: list[list[float | None]] = []

        def ask() -> None:
            for _ in range(10):
                found.append([pair.score for pair in reranker.score(QUERY, DOCUMENTS)])

        asking = threading.Thread(target=ask)
        asking.start()
        while len(found) < 3 and asking.is_alive():
            time.sleep(0.01)
        process.kill()
        asking.join()
        assert found == [pytest.approx(expected, abs=1e-4)] * 10
        reranker.close()
