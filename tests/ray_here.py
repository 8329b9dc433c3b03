"""Stands in for a Ray cluster: runs the same stages in a thread, and loses what tests want lost."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import pytest
import torch

from secondglance.ingest import workers
from secondglance.pipelines import ray_driver, ray_stages
from secondglance.pipelines.ray_messages import (
    Done,
    EmbedCommand,
    File,
    HashCommand,
    Ready,
    Rows,
)

Command = HashCommand | EmbedCommand


class GoneError(Exception):
    """The driver process is killed, as when the cluster is lost."""


class Here:
    """What `RayEngine` starts instead of the process that speaks to Ray.

    Set `answers` to change what a command gives, with `self.of` as what it gives by itself.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.started = 0
        self.killed = threading.Event()
        """Set when the engine ends what it started by force."""
        self.commands: list[Command] = []
        self.answers: Callable[[Command], Iterator[Any]] = self.of
        patch.setattr(workers, "start_process", self._start)
        self._threads = torch.get_num_threads()

    def _start(self, target: object, pipe: Connection, *_: object) -> threading.Thread:
        assert target is ray_driver.drive
        self.started += 1
        # The caller closes its copy, which a process would not notice.
        mine = Connection(os.dup(pipe.fileno()))
        thread = _Process(self.killed, target=self._drive, args=(mine,), daemon=True)
        thread.start()
        return thread

    def _drive(self, pipe: Connection) -> None:
        with contextlib.suppress(OSError, EOFError, GoneError), pipe:
            pipe.send(Ready(2))
            while (command := pipe.recv()) is not None:
                self.commands.append(command)
                for message in self.answers(command):
                    pipe.send(message)

    def of(self, command: Command) -> Iterator[Any]:
        """What a cluster that loses nothing gives."""
        for call in command.calls:
            yield self.rows(command, call)
        yield Done(node_lost=False)

    def rows(self, command: Command, call: Sequence[File]) -> Rows:
        """What comes of one call."""
        table = ray_stages.calls_table([call])
        if isinstance(command, HashCommand):
            return Rows(ray_stages.rows_of(ray_stages.hash_files(table)))
        embedder = ray_stages.Embedder(command.embedding, self._threads)
        return Rows(
            [
                row
                for decoded in ray_stages.decode_files(table, command.decoding)
                for row in ray_stages.rows_of(embedder(decoded))
            ]
        )


class _Process(threading.Thread):
    """A thread, which cannot be killed: it ends once its pipe is closed."""

    def __init__(self, killed: threading.Event, **options: Any) -> None:
        super().__init__(**options)
        self._killed = killed

    def terminate(self) -> None:
        self._killed.set()

    kill = terminate


def names(command: Command) -> list[list[str]]:
    """The files of a command, by call."""
    return [[file.path.name for file in call] for call in command.calls]
