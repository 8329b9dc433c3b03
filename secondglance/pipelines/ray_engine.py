"""The Ray engine of the ingestion job: a cluster decodes and embeds, this process keeps book.

What a cluster leaves unanswered is asked again: as before where a node was lost, else each file by
itself, and what is not answered then is a failure of the file. Answers that come twice count once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance import __version__
from secondglance.errors import ClusterError, InputError, MissingExtraError
from secondglance.pipelines.build import Parts
from secondglance.pipelines.decode_calls import FILES_PER_CALL
from secondglance.pipelines.embed import portions
from secondglance.pipelines.ray_messages import (
    Cluster,
    Decoding,
    Done,
    EmbedCommand,
    Embedding,
    Failure,
    File,
    HashCommand,
    Ready,
    Refused,
    Row,
    Rows,
)
from secondglance.pipelines.storing import Storing
from secondglance.pipelines.work import Work
from secondglance.rerank import stopping
from secondglance.types import MediaItem, Segment

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from secondglance.types import Vector

ROUND_FILES, ROUND_BYTES = 200_000, 2 * 10**11
"""Of files that are hashed before any of them is embedded; each round loads the models anew."""

ANSWERS_S = 5.0
"""How long an address may take to accept a connection."""
START_S = 180.0
"""How long Ray may take to start, and its nodes to say that they are there."""
END_S = 10.0

LOST = "the Ray cluster was lost, or the process that speaks to it was killed"
BRING_UP = "bring the cluster up again"
WORKER_LOST = "the worker that had it was killed twice, as when a node has too little memory"


def check_ray(address: str | None) -> None:
    """Whether Ray is installed, and an address is one.

    Raises:
        MissingExtraError: It is not.
        InputError: It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError(
            "the engine ray needs the package ray, which is not installed",
            remedy="pip install 'secondglance[ray]'",
        )
    if address is None or address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InputError(
            f"{address!r} is no address of a Ray cluster",
            remedy="auto, or host:port as `ray start --head` prints it, on a machine of the "
            "cluster; Ray Client (ray://) cannot run Ray Data",
        )


@dataclass(slots=True)
class _Pending:
    """A content that the cluster works on; vectors may come before what the file is."""

    work: Work
    is_open: bool = False
    got: set[int] = field(default_factory=set)
    waiting: list[tuple[int, Vector | str]] = field(default_factory=list)


class RayEngine:
    """Embeds files on a Ray cluster.

    Args:
        parts: Of the library.
        items: New and changed files.
        storing: Takes in what comes of them.
        address: Of the cluster; None: RAY_ADDRESS, or Ray is started on this machine.
    """

    def __init__(
        self, parts: Parts, items: Sequence[MediaItem], storing: Storing, *, address: str | None
    ) -> None:
        self._parts = parts
        self._items = items
        self._storing = storing
        self._address = address or os.environ.get("RAY_ADDRESS") or None
        self._pipe: Connection
        self._process: BaseProcess | None = None
        self._folder: Path | None = None
        self._cpus = 1
        self._is_busy = False
        self._pending: dict[str, _Pending] = {}

    def run(self) -> None:
        """Does the job. On Ctrl-C, stores what is embedded, then lets the interrupt go on."""
        check_ray(self._address)
        try:
            try:
                self._start()
                for items in _rounds(self._items):
                    if works := self._new_works(items):
                        self._embed(works)
            finally:
                self._storing.write()
        except ClusterError as error:
            done = self._storing.indexed + self._storing.moved + len(self._storing.failed_paths)
            if not done:
                raise
            raise ClusterError(
                f"{error.problem}; {done} of {len(self._items)} files are done and stored",
                remedy=f"{error.remedy or ''}; then run the same command again to go on".lstrip(
                    "; "
                ),
            ) from None
        finally:
            self._end()

    def _start(self) -> None:
        from secondglance.ingest.workers import start_process
        from secondglance.pipelines.ray_driver import drive

        if self._address not in (None, "auto"):
            _check_answers(str(self._address))
        # A short path: sockets lie below it, whose names may have 107 bytes.
        base = "/tmp" if Path("/tmp").is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="sg-ray-", dir=base))
        cluster = Cluster(
            address=self._address,
            workers=self._parts.settings.ingest.workers,
            folder=self._folder,
            gpus=self._parts.settings.recall.device in ("auto", "cuda"),
        )
        self._pipe, theirs = Pipe()
        self._process = start_process(drive, theirs, cluster, __version__)
        theirs.close()
        answer = self._receive(timeout_s=START_S)
        if isinstance(answer, Refused):
            raise ClusterError(answer.problem, remedy=answer.remedy)
        assert isinstance(answer, Ready)
        self._cpus = answer.cpus

    def _end(self) -> None:
        """Ends the process that speaks to Ray; Ray ends what it had begun for it."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(OSError):
                self._pipe.send(None)
            self._pipe.close()
            # One that is busy does not listen; what it does is of no use any more.
            process.join(0 if self._is_busy else END_S)
            for stop in (process.terminate, process.kill):
                if process.is_alive():
                    stop()
                    process.join(END_S)
        if self._folder is not None:
            _remove(self._folder)

    def _receive(self, *, timeout_s: float | None = None) -> Any:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            while not self._pipe.poll(stopping.LOOK_EVERY_S):
                stopping.check()
                if until is not None and time.monotonic() > until:
                    raise ClusterError(
                        f"Ray did not start within {timeout_s:g} s",
                        remedy="see `ray status` on the cluster",
                    )
            return self._pipe.recv()
        except (EOFError, OSError):
            raise ClusterError(LOST, remedy=BRING_UP) from None

    def _ask(self, command: Any, take: Callable[[Sequence[Row]], None]) -> Done:
        """Gives the cluster something to do, and what comes of it to `take`."""
        self._is_busy = True
        try:
            self._pipe.send(command)
        except OSError:
            raise ClusterError(LOST, remedy=BRING_UP) from None
        while isinstance(message := self._receive(), Rows):
            for row in message.rows:
                if row[1] == "fatal":
                    raise pickle.loads(row[3])
            take(message.rows)
            self._storing.report()
            self._storing.write_if_due()
        done: Done = message
        if done.stalled:
            self._end()
            self._start()
        self._is_busy = False
        return done

    def _ask_until_answered(
        self,
        command: Callable[[bool], Any],
        take: Callable[[Sequence[Row]], None],
        left: Callable[[], int],
    ) -> None:
        """Asks again for what was lost.

        Args:
            command: For what is left; whether each file goes by itself.
            take: Takes in answers.
            left: Files that wait for an answer.
        """
        alone = False
        while before := left():
            done = self._ask(command(alone), take)
            if not left():
                return
            if done.node_lost:
                continue
            if done.error and left() == before and not alone and before > 1:
                raise ClusterError(
                    f"the Ray cluster did nothing of what it was asked: {done.error}",
                    remedy="see `ray status`, and the logs of the cluster",
                )
            if alone:
                return
            alone = True

    def _new_works(self, items: Sequence[MediaItem]) -> list[Work]:
        """Hashes files; copies and moves are linked, the others are returned."""
        answers: dict[int, str | OSError] = {}
        works: list[Work] = []
        files = [File(str(at), item.path, item.kind) for at, item in enumerate(items)]
        taken = 0

        def take_in() -> None:
            # In the order of the scan, as the local engine does: a copy is described by the first.
            nonlocal taken
            portion = []
            while taken in answers:
                portion.append((items[taken], answers[taken]))
                taken += 1
            works.extend(self._storing.new_works(portion))

        def take(rows: Sequence[Row]) -> None:
            for key, _, _, about, _ in rows:
                answer = pickle.loads(about)
                if not isinstance(answer, str):
                    reason = _reason(answer, items[int(key)]).removeprefix("cannot be read: ")
                    answer = OSError(0, reason)
                answers.setdefault(int(key), answer)
            take_in()

        def command(alone: bool) -> HashCommand:
            left = [file for file in files if int(file.key) not in answers]
            return HashCommand([[file] for file in left])

        self._ask_until_answered(command, take, lambda: len(items) - len(answers))
        for at in range(len(items)):
            answers.setdefault(at, OSError(0, WORKER_LOST))
        take_in()
        return works

    def _embed(self, works: Sequence[Work]) -> None:
        decoding, embedding = self._wanted()
        self._pending = {work.content: _Pending(work) for work in works}

        def command(alone: bool) -> EmbedCommand:
            return EmbedCommand(self._calls(alone=alone), decoding, embedding, alone)

        self._ask_until_answered(command, self._take, lambda: len(self._pending))
        for pending in self._pending.values():
            self._storing.abandon(pending.work, f"cannot be read: {WORKER_LOST}")
        self._pending = {}

    def _wanted(self) -> tuple[Decoding, Embedding]:
        embedder = self._parts.embedder()
        settings = self._parts.settings
        recall = settings.recall
        if Path(recall.model).is_dir():
            recall = recall.model_copy(update={"model": str(Path(recall.model).resolve())})
        decoding = Decoding(
            preprocessing=embedder.preprocessing,
            limits=self._parts.limits,
            timeout_s=settings.ingest.timeout_s,
            max_memory_mb=settings.ingest.max_memory_mb,
        )
        embedding = Embedding(
            recall=recall, fingerprint=embedder.fingerprint, preprocessing=embedder.preprocessing
        )
        return decoding, embedding

    def _calls(self, *, alone: bool) -> list[list[File]]:
        works = {id(pending.work.item): pending.work for pending in self._pending.values()}
        at_once = 1 if alone else min(FILES_PER_CALL, 1 + len(works) // (4 * self._cpus))
        return [
            [File(works[id(item)].content, item.path, item.kind, item.sidecars) for item in portion]
            for portion in portions([work.item for work in works.values()], at_once)
        ]

    def _take(self, rows: Sequence[Row]) -> None:
        """Takes in what came of files; what came before counts once."""
        ready: list[tuple[Work, Segment, Vector]] = []
        for key, what, position, about, data in rows:
            pending = self._pending.get(key)
            if pending is None:
                continue
            work = pending.work
            if what == "failed":
                del self._pending[key]
                self._storing.abandon(work, _reason(pickle.loads(about), work.item))
                continue
            if about and not pending.is_open:
                self._storing.open(work, pickle.loads(about))
                pending.is_open = True
            if what in ("vector", "lost") and position not in pending.got:
                pending.got.add(position)
                answer = np.frombuffer(data, np.float32) if what == "vector" else data.decode()
                pending.waiting.append((position, answer))
            if pending.is_open:
                ready += self._settle(pending)
        ready = [one for one in ready if one[0].content in self._pending]
        if ready:
            self._storing.add(
                [(work, segment) for work, segment, _ in ready],
                np.stack([vector for _, _, vector in ready]),
            )
        for key in {row[0] for row in rows}:
            pending = self._pending.get(key)
            if pending is not None and pending.is_open and not pending.work.left:
                del self._pending[key]

    def _settle(self, pending: _Pending) -> Iterator[tuple[Work, Segment, Vector]]:
        """The segments with vectors; those without are lost."""
        waiting, pending.waiting = pending.waiting, []
        for position, answer in waiting:
            if isinstance(answer, str):
                self._storing.lose(pending.work, 1, reason=answer)
            else:
                yield pending.work, pending.work.segments[position], answer


def _reason(failure: Failure, item: MediaItem) -> str:
    """Why a file cannot be used, for the report."""
    if failure.unseen_on and os.path.lexists(item.path):
        return (
            f"cannot be read: node {failure.unseen_on} does not see it "
            "(index folders on storage that all nodes have under the same path)"
        )
    return failure.reason


def _rounds(items: Sequence[MediaItem]) -> Iterator[list[MediaItem]]:
    """Some files at a time, in order."""
    some: list[MediaItem] = []
    size = 0
    for item in items:
        some.append(item)
        size += item.size
        if len(some) >= ROUND_FILES or size >= ROUND_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _remove(folder: Path) -> None:
    """Removes what Ray wrote; its workers end a little after it, and write until then."""
    until = time.monotonic() + END_S
    while folder.exists() and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.05)


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_S).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            remedy="check the address that `ray start --head` printed, and the network",
        ) from None
