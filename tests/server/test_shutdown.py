"""How a server ends: real processes, real signals."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from secondglance.library import Library

ROOT = Path(__file__).parents[2]
ASKED = {"query": "x", "documents": ["y"]}


class Process:
    """A server, and what it says on stderr."""

    def __init__(self, library: Library, *, seconds: float = 0.0, grace_s: float = 20.0) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("serving_slowly.py")),
                str(seconds),
                str(grace_s),
                "serve",
                "--library",
                str(library.folder),
                "--port",
                "0",
            ],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
            text=True,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        url = re.search(r"http://127\.0\.0\.1:\d+", self.wait_for("http://"))
        assert url is not None
        self.http = httpx.Client(base_url=url.group(), timeout=30)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                self.http.get("/healthz")
                break
            assert time.monotonic() < deadline

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for line in list(self.said):
                if text in line:
                    return line
            assert self.process.poll() is None, self.said
            time.sleep(0.02)
        raise AssertionError(f"it never said {text!r}: {self.said}")

    def end(self, timeout_s: float = 30) -> int:
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def serving(library: Library, **options: float) -> Iterator[Process]:
    found = Process(library, **options)
    try:
        yield found
    finally:
        found.http.close()
        if found.process.poll() is None:
            found.process.kill()
        found.end()


class Asking(threading.Thread):
    """One request that takes a while."""

    def __init__(self, http: httpx.Client) -> None:
        super().__init__(daemon=True)
        self._url = f"{http.base_url}/v1/rerank"
        self.status = 0
        self.kind = ""

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(self._url, json=ASKED, timeout=60)
            self.status = answer.status_code
            self.kind = str(answer.json().get("type", ""))


def test_an_idle_server_ends_at_once(empty: Library) -> None:
    with serving(empty) as server:
        began = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 130
        assert time.monotonic() - began < 10
        assert "Traceback" not in "".join(server.said)


def test_what_runs_is_answered_while_nothing_new_is_taken(empty: Library) -> None:
    with serving(empty, seconds=1.5) as server:
        assert server.http.get("/readyz").status_code == 200
        asking = Asking(server.http)
        asking.start()
        server.wait_for("begun")
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 1
        while (ready := httpx.get(f"{server.http.base_url}/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert ready.status_code == 503
        assert httpx.get(f"{server.http.base_url}/healthz").status_code == 200
        refused = httpx.post(f"{server.http.base_url}/v1/rerank", json=ASKED)
        assert refused.status_code == 503
        assert refused.json()["type"].endswith(":stopping")
        assert int(refused.headers["retry-after"]) >= 1
        assert asking.is_alive()
        asking.join(30)
        assert asking.status == 200
        assert server.end() == 0


def test_what_takes_too_long_is_stopped(empty: Library) -> None:
    with serving(empty, seconds=60, grace_s=0.5) as server:
        asking = Asking(server.http)
        asking.start()
        server.wait_for("begun")
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 0
        assert 0.4 < time.monotonic() - began < 15
        asking.join(10)
        assert asking.status in (0, 499, 503)
        assert "Traceback" not in "".join(server.said)


def test_a_second_signal_ends_it_at_once(empty: Library) -> None:
    with serving(empty, seconds=60, grace_s=60) as server:
        asking = Asking(server.http)
        asking.start()
        server.wait_for("begun")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3
