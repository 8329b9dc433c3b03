"""Decode workers: processes that may die or hang without taking the job along."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from typing import Any, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from secondglance.errors import MediaError
from secondglance.ingest.decode import start_worker

P = ParamSpec("P")
T = TypeVar("T")

_main_lock = threading.Lock()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the caller's script while a worker starts.

    A spawned process imports the parent's main module first. That would run a user's three-line
    script again in each worker, and load torch with it; decoding needs neither.
    """
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


class _Worker(SpawnProcess):
    def start(self) -> None:
        with _without_main():
            super().start()


class _Context(SpawnContext):
    # Spawned, not forked: torch and gRPC run threads, whose locks a fork would copy as held.
    Process = _Worker


def start_process(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Runs a function in a process of its own, which ends when this one does."""
    process = _Context().Process(target=target, args=args, daemon=True)
    process.start()
    return process


def default_workers() -> int:
    """Decode processes for this machine: one a core, up to 16."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return max(1, min(16, available or multiprocessing.cpu_count()))


class DecodePool:
    """Runs functions of `ingest.decode` in worker processes under time and memory limits.

    Args:
        workers: Processes; 0 for one a core.
        timeout_s: For one call; a worker that takes longer is killed and replaced.
        max_memory_mb: Address space of one worker.
    """

    def __init__(self, *, workers: int, timeout_s: float, max_memory_mb: int) -> None:
        self.workers = workers or default_workers()
        self.timeout_s = timeout_s
        self.max_memory_mb = max_memory_mb
        self._pool = ProcessPool(
            max_workers=self.workers,
            initializer=start_worker,
            initargs=(max_memory_mb,),
            context=_Context(),
        )

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedules a call; read its answer with `result`."""
        future: Future[T] = self._pool.schedule(
            function, args=args, kwargs=kwargs, timeout=self.timeout_s
        )
        return future

    def result(self, future: Future[T]) -> T:
        """The answer of a finished call.

        Raises:
            MediaError: Whatever went wrong, in words for the user.
        """
        try:
            return future.result()
        except MediaError:
            raise
        except FutureTimeoutError:
            raise MediaError(
                f"decoding took longer than {self.timeout_s:g} s", remedy="raise ingest.timeout_s"
            ) from None
        except ProcessExpired as error:
            raise MediaError(f"the decoder crashed on it (exit code {error.exitcode})") from None
        except MemoryError:
            raise MediaError(
                f"decoding needs more than {self.max_memory_mb} MB",
                remedy="raise ingest.max_memory_mb",
            ) from None
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from None
        except Exception as error:
            raise MediaError(f"cannot be decoded: {type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Kills the workers; calls that have not finished are dropped."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
