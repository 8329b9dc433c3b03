"""Several loaded models within a limit of memory."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeVar, cast

from secondglance.errors import InputError, RerankError

logger = logging.getLogger(__name__)

TIMEOUT_S = 60.0
"""Longest wait for memory that models in use hold."""


class Closeable(Protocol):
    """A model that can give its memory back."""

    def close(self) -> None:
        """Frees the model's memory. Called once, when nobody uses the model."""
        ...


T = TypeVar("T", bound=Closeable)


class ModelPool:
    """Keeps models loaded as long as they fit, and closes those unused for longest.

    A model is in use from the start to the end of each `with pool.get(...)`, and is never closed
    meanwhile. Several threads may use one model at the same time. Safe to call from any thread.

    Args:
        max_bytes: What all models together may need.

    Raises:
        InputError: `max_bytes` is not positive.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise InputError(f"max_bytes is {max_bytes}; it must be at least 1")
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # least recently used first
        self._closing_bytes = 0  # of models that are no longer entries, and not yet freed
        self._closed = False
        self._changed = threading.Condition()

    def __enter__(self) -> ModelPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def get(
        self,
        name: str,
        load: Callable[[], T],
        *,
        bytes_needed: int,
        timeout_s: float = TIMEOUT_S,
    ) -> Iterator[T]:
        """Lends a model for the length of a `with` block, loading it if need be.

        Of several threads that ask for a model, one loads it and the others wait. A load that
        raises leaves nothing behind; a thread that waited for it then tries itself.

        Args:
            name: Which model. One name is always the same model.
            load: Makes the model. Called without locks, once its memory is free.
            bytes_needed: Memory of the model in bytes; of no effect if it is loaded.
            timeout_s: Seconds to wait for memory that models in use hold. Waiting for another
                thread's load of this model does not count.

        Yields:
            The model.

        Raises:
            InputError: `bytes_needed` is negative.
            RerankError: The model is larger than the limit, models in use leave no room for it
                within `timeout_s`, or the pool is closed.
            Exception: What `load` raised.
        """
        if bytes_needed < 0:
            raise InputError(f"bytes_needed of {name} is {bytes_needed}; it must be 0 or more")
        entry = self._lease(name, load, bytes_needed, timeout_s)
        try:
            yield cast("T", entry.model)
        finally:
            self._release(entry)

    def unload(self, name: str) -> None:
        """Closes a model: now if nobody uses it, else after its last use.

        A later `get` loads it anew. A name that is not loaded changes nothing.
        """
        with self._changed:
            entry = self._entries.get(name)
            leaving = [] if entry is None else self._part_with([entry])
        self._free(leaving)

    def loaded(self) -> list[tuple[str, int]]:
        """Name and bytes of every loaded model, least recently used first."""
        with self._changed:
            return [(entry.name, entry.bytes) for entry in self._entries.values() if entry.ready]

    def close(self) -> None:
        """Closes every model: idle ones now, others after their last use.

        `get` raises from now on, in threads that wait as well.
        """
        with self._changed:
            self._closed = True
            leaving = self._part_with(list(self._entries.values()))
            self._changed.notify_all()
        self._free(leaving)

    def _lease(
        self, name: str, load: Callable[[], Closeable], bytes_needed: int, timeout_s: float
    ) -> _Entry:
        deadline_s: float | None = None
        with self._changed:
            while True:
                if self._closed:
                    raise RerankError(
                        f"cannot lend {name}: the pool of models is closed", remedy="open a new one"
                    )
                entry = self._entries.get(name)
                if entry is not None and entry.ready and not entry.unwanted:
                    entry.leases += 1
                    return entry
                if entry is not None and not entry.ready:
                    self._changed.wait()  # another thread loads it
                    continue
                leaving = self._room_for(name, bytes_needed) if entry is None else None
                if leaving is not None:
                    entry = self._entries[name] = _Entry(name, bytes_needed)
                    break
                if deadline_s is None:
                    deadline_s = time.monotonic() + timeout_s
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    raise self._no_room(name, bytes_needed, timeout_s)
                self._changed.wait(left_s)
        self._load(entry, load, leaving)
        return entry

    def _room_for(self, name: str, bytes_needed: int) -> list[_Entry] | None:
        """Models that part for a new one, no longer entries; None if that does not suffice."""
        if bytes_needed > self._max_bytes:
            raise RerankError(
                f"{name} needs {bytes_needed:,} bytes; the limit of the pool is "
                f"{self._max_bytes:,} bytes",
                remedy="raise the limit, or take a smaller model",
            )
        excess = sum(entry.bytes for entry in self._entries.values())
        excess += bytes_needed - self._max_bytes
        leaving = []
        for entry in self._entries.values():
            if excess <= 0:
                break
            if entry.ready and not entry.leases:
                leaving.append(entry)
                excess -= entry.bytes
        return self._part_with(leaving) if excess <= 0 else None

    def _no_room(self, name: str, bytes_needed: int, timeout_s: float) -> RerankError:
        used = ", ".join(f"{entry.name} ({entry.bytes:,})" for entry in self._entries.values())
        return RerankError(
            f"{name} needs {bytes_needed:,} bytes; the limit of the pool is {self._max_bytes:,} "
            f"bytes, and after {timeout_s:g} s these models are still in use: {used}",
            remedy="wait until they are idle, raise the limit, or take a smaller model",
        )

    def _load(
        self, entry: _Entry, load: Callable[[], Closeable], leaving: Sequence[_Entry]
    ) -> None:
        """Loads a model whose bytes are reserved in place of others, and leases it."""
        try:
            self._free(leaving)
            with self._changed:
                # The memory is promised, but other threads may still be closing who had it.
                self._changed.wait_for(self._is_within_limit)
            model = load()
        except BaseException:
            with self._changed:
                self._remove(entry)
                self._changed.notify_all()
            raise
        with self._changed:
            entry.model = model
            entry.ready = True
            entry.leases += 1
            self._changed.notify_all()

    def _is_within_limit(self) -> bool:
        entries = sum(entry.bytes for entry in self._entries.values())
        return entries + self._closing_bytes <= self._max_bytes

    def _release(self, entry: _Entry) -> None:
        with self._changed:
            entry.leases -= 1
            self._entries.move_to_end(entry.name)
            leaving = self._part_with([entry]) if entry.unwanted else []
            self._changed.notify_all()
        self._free(leaving)

    def _part_with(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Takes out models that are to be closed; those in use follow with their last lease."""
        leaving = []
        for entry in entries:
            if entry.ready and not entry.leases:
                self._remove(entry)
                self._closing_bytes += entry.bytes
                leaving.append(entry)
            else:
                entry.unwanted = True
        return leaving

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.name]

    def _free(self, entries: Sequence[_Entry]) -> None:
        """Closes models outside of the lock: it takes time, and others may go on."""
        with ExitStack() as stack:  # an interrupt during one does not keep the others
            for entry in reversed(entries):
                stack.callback(self._free_one, entry)

    def _free_one(self, entry: _Entry) -> None:
        try:
            entry.model.close()
        except Exception:
            # Whoever needed the room is not to blame, and the model is gone for the pool.
            logger.warning("%s failed to close; its memory may be lost", entry.name, exc_info=True)
        finally:
            entry.model = None
            with self._changed:
                self._closing_bytes -= entry.bytes
                self._changed.notify_all()


class _Entry:
    """A model that is being loaded or ready. All but `model` changes under the pool's lock."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self.name = name
        self.bytes = size_bytes
        self.model: Any = None
        self.ready = False
        self.leases = 0
        self.unwanted = False
