"""The process that speaks to a Ray cluster for an ingestion job.

Ray is kept out of the process that holds the library: it takes over signals and the terminal, and a
cluster that is lost takes its driver along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from secondglance.pipelines.ray_messages import (
    Cluster,
    Done,
    EmbedCommand,
    File,
    HashCommand,
    Ready,
    Refused,
    Rows,
)
from secondglance.pipelines.ray_stages import (
    Embedder,
    calls_table,
    decode_files,
    hash_files,
    rows_of,
)

ACTOR_CPUS, TASK_CPUS = 0.01, 0.9
"""What an embedding actor and a decoding task count as, of a node's CPUs.

As on one machine, there is a decoder for each CPU, of low priority, and one embedder that uses all
of them. Tasks that count as 0.9 leave each CPU room for ten actors: those that come over from nodes
that were lost must not take the place of the last decoder, or all would wait for ever."""

FILES_PER_TASK = 64
ROWS_PER_BATCH = {"cuda": 256, "cpu": 32}
STALLED_S = 60.0
"""After a node was lost: so long without any answer, and the pass is begun anew."""
PROBE_S = 60.0
END_S = 10.0
LOCAL_STORE_BYTES = 2_000_000_000


class _UnusableError(Exception):
    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.refused = Refused(problem, remedy)


def drive(pipe: Connection, cluster: Cluster, version: str) -> None:
    """Connects, then does what comes through the pipe until it is told None."""
    _keep_quiet(cluster.folder / "driver.log")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        driver = _Driver(pipe, cluster)
        driver.check_nodes(version)
        pipe.send(Ready(driver.cpus()))
        while (command := pipe.recv()) is not None:
            driver.do(command)
    except _UnusableError as unusable:
        pipe.send(unusable.refused)
    except (EOFError, BrokenPipeError):
        pass
    with contextlib.suppress(Exception):
        import ray

        ray.shutdown()


def _keep_quiet(log: Path) -> None:
    """Nothing of Ray is for the terminal, and Ctrl-C is for the parent, which then ends us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)  # Ray's own handler takes what it started along
    time.sleep(END_S)
    os._exit(1)


class _LastError(logging.Handler):
    """Remembers why Ray Data left out a block."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        lines = str(error).strip().splitlines() if error else []
        if lines:
            self.text = f"{type(error).__name__}: {lines[-1].strip()}"[:300]


class _Driver:
    def __init__(self, pipe: Connection, cluster: Cluster) -> None:
        import ray
        import ray.data

        self._pipe = pipe
        self._cluster = cluster
        self._sending = threading.Lock()
        self._ray: Any = ray
        self._connect()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.enable_operator_progress_bars = False
        context.print_on_execution_start = False
        # A block that is lost is asked for again, by whoever knows which files were in it.
        context.max_errored_blocks = -1
        self._last_error = _LastError()
        logging.getLogger("ray.data").addHandler(self._last_error)

    def _connect(self) -> None:
        address = self._cluster.address
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None:
            from secondglance.ingest.workers import default_workers

            quiet |= {
                "address": "local",
                "num_cpus": self._cluster.workers or default_workers(),
                "include_dashboard": False,
                "_temp_dir": str(self._cluster.folder),
                "_node_ip_address": "127.0.0.1",
                "object_store_memory": _store_bytes(),
            }
        try:
            self._ray.init(**{"address": address, **quiet})
        except Exception as error:
            reason = " ".join(str(error).split())[:400]
            if "ersion mismatch" in reason:
                raise _UnusableError(
                    f"the Ray cluster at {address} runs other versions: {reason}",
                    "install the same versions of Python, ray and secondglance on every node",
                ) from None
            if address is None:
                raise _UnusableError(
                    f"Ray cannot start on this machine: {reason}", "index with --engine local"
                ) from None
            raise _UnusableError(
                f"no Ray cluster can be joined at {address}: {reason}",
                "run this on a machine of the cluster; `ray status` there must work",
            ) from None

    def _nodes(self) -> dict[str, dict[str, Any]]:
        return {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}

    def cpus(self) -> int:
        """CPUs of all nodes, by their own counting."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)))

    def check_nodes(self, version: str) -> None:
        """Every node must have this version of the package."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def probe() -> str:  # a function within a function travels whole
            try:
                import secondglance
            except ImportError as error:
                return f"that cannot be imported ({error})"
            return secondglance.__version__

        names = {
            id_: str(node["NodeManagerHostname"])
            for id_, node in self._nodes().items()
            if node["Resources"].get("CPU", 0) > 0
        }
        if not names:
            raise _UnusableError(
                "the Ray cluster has no node with CPUs", "add nodes, or `ray start --num-cpus=N`"
            )
        remote = self._ray.remote(num_cpus=0, max_retries=1)(probe)
        asked = {
            remote.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(id_, soft=False)
            ).remote(): name
            for id_, name in names.items()
        }
        done, silent = self._ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_S)
        if silent:
            raise _UnusableError(
                f"node {asked[silent[0]]} of the Ray cluster ran nothing within {PROBE_S:g} s",
                "see `ray status`, and the node's logs",
            )
        for answer in done:
            try:
                found = self._ray.get(answer)
            except Exception as error:
                found = f"of no known version ({str(error).strip().splitlines()[-1]})"
            if found != version:
                raise _UnusableError(
                    f"node {asked[answer]} of the Ray cluster has secondglance {found}, "
                    f"this program is {version}",
                    "install the same version of secondglance on every node",
                )

    def do(self, command: HashCommand | EmbedCommand) -> None:
        """Runs one command and sends its rows, then `Done`."""
        before = set(self._nodes())
        self._last_error.text = ""
        with _Watch(self, before) as watch:
            try:
                dataset = self._dataset(command)
                for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                    watch.answered()
                    if rows := rows_of(table):
                        self.send(Rows(rows))
                    watch.answered()  # sending waits while the parent writes
            except Exception as error:
                self._last_error.text = f"{type(error).__name__}: {error}".strip()[:300]
        self.send(Done(self.lost(before), error=self._last_error.text))

    def send(self, message: Any) -> None:
        """To the parent; from any thread."""
        with self._sending:
            self._pipe.send(message)

    def lost(self, before: set[str]) -> bool:
        """Whether one of these nodes is gone."""
        return bool(before - set(self._nodes()))

    def _dataset(self, command: HashCommand | EmbedCommand) -> Any:
        from ray.data import ActorPoolStrategy, TaskPoolStrategy

        alone = isinstance(command, EmbedCommand) and command.alone
        blocks = list(_blocks(command.calls, self.cpus(), alone=alone))
        tasks: dict[str, Any] = {
            "batch_size": None,
            "batch_format": "pyarrow",
            "num_cpus": TASK_CPUS,
            # Not by Ray: a file that takes its worker along would be tried for ever.
            "max_retries": 0,
            "compute": TaskPoolStrategy(size=self._cluster.workers or None),
        }
        dataset = self._ray.data.from_arrow([calls_table(calls) for calls in blocks])
        if isinstance(command, HashCommand):
            return dataset.map_batches(hash_files, **tasks)
        nodes = [node["Resources"] for node in self._nodes().values()]
        gpus = int(sum(node.get("GPU", 0) for node in nodes)) if self._cluster.gpus else 0
        with_cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        batch = command.embedding.recall.batch_size or ROWS_PER_BATCH["cuda" if gpus else "cpu"]
        return dataset.map_batches(
            decode_files, fn_kwargs={"decoding": command.decoding}, **tasks
        ).map_batches(
            Embedder,
            fn_constructor_kwargs={
                "embedding": command.embedding,
                "threads": 1 if gpus else max(1, min(with_cpus, default=1)),
            },
            batch_size=1 if alone else batch,
            batch_format="pyarrow",
            num_cpus=ACTOR_CPUS,
            num_gpus=1 if gpus else 0,
            compute=ActorPoolStrategy(size=min(len(blocks), gpus or max(1, len(with_cpus)))),
            scheduling_strategy="SPREAD",
            max_restarts=-1,
            max_task_retries=1,
        )


class _Watch:
    """Says so if a node is lost and nothing comes any more.

    An actor may wait for a GPU that went with the node, with tasks that wait for the actor.
    """

    def __init__(self, driver: _Driver, before: set[str]) -> None:
        self._driver = driver
        self._before = before
        self._answered_at = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def answered(self) -> None:
        self._answered_at = time.monotonic()

    def _is_stalled(self) -> bool:
        return time.monotonic() - self._answered_at > STALLED_S

    def _look(self) -> None:
        while not self._over.wait(2.0):
            if self._is_stalled() and self._driver.lost(self._before):
                self._driver.send(Done(node_lost=True, stalled=True))
                return

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _blocks(
    calls: Sequence[Sequence[File]], cpus: int, *, alone: bool
) -> list[list[Sequence[File]]]:
    """Calls of one task each: some for every CPU, and what may be long by itself."""
    files = sum(map(len, calls))
    at_most = 1 if alone else min(FILES_PER_TASK, 1 + files // (4 * cpus))
    blocks: list[list[Sequence[File]]] = []
    count = at_most
    for call in calls:
        long = call[0].kind not in ("image", "text")
        if long or count >= at_most:
            blocks.append([])
            count = 0
        blocks[-1].append(call)
        count = at_most if long else count + len(call)
    return blocks


def _store_bytes() -> int:
    """Shared memory of a Ray of our own: bounded, and no more than there is."""
    try:
        room = os.statvfs("/dev/shm")
        free = room.f_bavail * room.f_frsize
    except (OSError, AttributeError):
        free = LOCAL_STORE_BYTES
    return max(80_000_000, min(LOCAL_STORE_BYTES, int(free * 0.6)))
