"""A real Milvus server for tests, from the package `milvus`, and a cable to it that can be cut."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

URI = os.environ.get("SECONDGLANCE_TEST_MILVUS_URI")
TOKEN = os.environ.get("SECONDGLANCE_TEST_MILVUS_TOKEN")

# The package waits for defaults of seconds between steps. Quicker still, and a server that has
# nothing to do takes half a processor from the other tests.
_QUICK: dict[str, str | int | bool] = {
    "proxy.timeTickInterval": 25,
    "queryCoord.checkInterval": 200,
    "queryCoord.distPullInterval": 100,
    "rocksmq.timtickerInterval": 10,  # spelt like this
    "rootCoord.dmlChannelNum": 4,  # each gets every tick
    "log.level": "warn",
    # A killed server's session stays registered for this long, and the next one waits for it.
    "common.session.ttl": 5,
}

_WRITE_CONFIG = """
import json, sys
folder, given, package = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
if package:
    sys.path.insert(0, package)
import milvus
config = milvus.MilvusServerConfig(data_dir=folder)
for key, value in given.items():
    config.set(key, value)
config.resolve()
print(config.get("proxy_port"))
"""

_UNPACK = """
import sys
folder, package = sys.argv[1:]
if package:
    sys.path.insert(0, package)
import milvus
milvus._initialize_data_files(folder)
"""


def package() -> str | None:
    """The folder to import the package from; "" where it is installed, None where it is not."""
    named = os.environ.get("SECONDGLANCE_MILVUS_PACKAGE")
    if named:
        return named if (Path(named) / "milvus" / "__init__.py").is_file() else None
    return "" if importlib.util.find_spec("milvus") is not None else None


ABSENT = (
    "no Milvus server: install the package milvus==2.3.5, name the folder that holds it in "
    "SECONDGLANCE_MILVUS_PACKAGE, or a server in SECONDGLANCE_TEST_MILVUS_URI"
)


def unpacked(base: Path) -> Path:
    """The server's programs, unpacked once for all servers and workers of a test run."""
    with FileLock(base / "milvus-programs.lock"):
        if not (base / "milvus-programs" / "bin").is_dir():
            making = base / "milvus-programs-making"
            command = [sys.executable, "-c", _UNPACK, str(making), package() or ""]
            subprocess.run(command, check=True)
            making.rename(base / "milvus-programs")
    return base / "milvus-programs" / "bin"


# Waits for the end of the test run, which closes its standard input however it ends. What ends the
# run (Ctrl-C, `timeout`) is often told to the whole group of processes.
_GUARD = 'trap "" TERM INT HUP; read _; kill -9 "$1"; rm -rf "$2"'


class Server:
    """A server in a folder of its own, which is started, killed and started again.

    Args:
        folder: Its data.
        programs: What `unpacked` returns.
        config: Keys of the package's template, or dotted ones of milvus.yaml.
    """

    def __init__(self, folder: Path, programs: Path, **config: str | int | bool) -> None:
        self._folder = folder
        self._programs = programs
        given: dict[str, str | int | bool] = {**_QUICK, **config}
        # What it finds free may be taken by another run's server a moment later.
        for name in _PORTS:
            given[name] = _free_port()
        self.port = int(str(given["proxy_port"]))
        done = subprocess.run(
            [sys.executable, "-c", _WRITE_CONFIG, str(folder), json.dumps(given), package() or ""],
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == self.port
        self.is_encrypted = bool(config.get("tls_mode"))
        self._metrics = _free_port()
        # Without a file of its own, the etcd inside takes two fixed ports.
        client, peer = (f"http://localhost:{port}" for port in (given["etcd_port"], _free_port()))
        (folder / "etcd.yaml").write_text(
            f"listen-client-urls: {client}\nadvertise-client-urls: {client}\n"
            f"listen-peer-urls: {peer}\ninitial-advertise-peer-urls: {peer}\n"
            f"initial-cluster: default={peer}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http{'s' if self.is_encrypted else ''}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def change(self, before: str, after: str) -> None:
        """Edits its milvus.yaml for the next start."""
        path = self._folder / "configs" / "milvus.yaml"
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, after))

    def start(self, *, wait: bool = True) -> None:
        libraries = f"{self._programs}:{os.environ.get('LD_LIBRARY_PATH', '')}"
        with (self._folder / "logs" / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "milvus"), "run", "standalone"],
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "DEPLOY_MODE": "STANDALONE",
                    "ETCD_CONFIG_PATH": str(self._folder / "etcd.yaml"),
                    "METRICS_PORT": str(self._metrics),
                    "MILVUS_RUN_DIR": str(self._folder / "run"),
                    "LD_LIBRARY_PATH": libraries,
                },
            )
        # A test run that is killed takes its servers along.
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.pid), str(self._folder)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + 90
        while wait and not self._healthy():
            assert self._process.poll() is None, "the server ended; see logs/server.log"
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)

    def kill(self) -> None:
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
            self._guard = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _healthy(self) -> bool:
        try:
            address = f"http://127.0.0.1:{self._metrics}/healthz"
            with urllib.request.urlopen(address, timeout=5) as answer:
                return b"OK" in answer.read()
        except (urllib.error.URLError, OSError):
            return False


_PORTS = (
    "etcd_port",
    "root_coord_port",
    "proxy_port",
    "proxy_internal_port",
    "query_coord_port",
    "query_node_port",
    "index_coord_port",
    "index_node_port",
    "data_coord_port",
    "data_node_port",
)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Collections:
    """New, empty collections: loading one takes a server seconds, so they are made ahead."""

    AHEAD = 4

    def __init__(self, uri: str, *, dim: int) -> None:
        self._uri = uri
        self._dim = dim
        self._pool = ThreadPoolExecutor(self.AHEAD)
        self._made: list[Future[str]] = []
        self._names: list[str] = []

    def take(self) -> str:
        while len(self._made) <= self.AHEAD:
            self._made.append(self._pool.submit(self._make))
        return self._made.pop(0).result()

    def _make(self) -> str:
        from secondglance.retrieve.milvus_store import MilvusStore

        name = f"test_{uuid4().hex}"
        self._names.append(name)
        MilvusStore(self._uri, dim=self._dim, collection=name, token=TOKEN, timeout_s=60).close()
        return name

    def give_back(self, name: str) -> None:
        """Drops one in the background: a server works for each that is loaded."""
        self._names.remove(name)
        self._pool.submit(drop, self._uri, name)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        if URI:  # a server of our own goes with all it has
            drop(self._uri, *self._names)


def drop(uri: str, *names: str) -> None:
    """Removes what tests made on a server."""
    from pymilvus import MilvusClient

    client = MilvusClient(uri, token=TOKEN or "")
    for name in names:
        client.drop_collection(name)
    client.close()


class Cable:
    """A TCP connection to a server, cut in the middle of a message after so many bytes."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        self.cut_after: int | None = None
        self.refuse_until = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if time.monotonic() < self.refuse_until:
                    near.close()
                    continue
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with (
            near,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as far,
        ):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(16_384)
                    if not data or (ready is near and self._is_cut(len(data))):
                        return
                    (far if ready is near else near).sendall(data)

    def _is_cut(self, count: int) -> bool:
        if self.cut_after is None:
            return False
        self.cut_after -= count
        if self.cut_after > 0:
            return False
        self.cut_after = None
        self.cuts += 1
        self.refuse_until = time.monotonic() + 1
        return True

    def close(self) -> None:
        self._listener.close()
