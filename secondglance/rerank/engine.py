"""Pairs in, answers out: batches that fit in the device's memory, and what to do if they do not."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from secondglance.errors import MediaError, RerankError
from secondglance.rerank.answers import answer, failed
from secondglance.rerank.batching import Pair, padded
from secondglance.rerank.scheduler import Job, Scheduler

if TYPE_CHECKING:
    from torch import Tensor

    from secondglance.rerank.forward import Prefix
    from secondglance.types import PairScore

logger = logging.getLogger(__name__)


class Passes(Protocol):
    """A way to run the model."""

    def prefix(self, pairs: Sequence[Pair]) -> Callable[[], Prefix] | None:
        """What computes the beginning of all pairs of one query; None where that does not pay."""
        ...

    def log_odds(self, pairs: Sequence[Pair], prefix: Prefix | None = None) -> Tensor:
        """logit_yes - logit_no of each pair, (pairs,), float32, maybe still being computed."""
        ...


class PlainForward:
    """The forward pass as transformers runs it.

    For models spread over several devices, and for an `attn_implementation` of the user's own.

    Args:
        model: A `Qwen3VLModel`.
        head: The difference of the rows of "yes" and "no", (hidden,), float32.
        pixels: Makes the model's pixel arguments of a batch.
        pad_id: Token that fills the end of shorter prompts.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        head: Tensor,
        *,
        pixels: Callable[[Sequence[Pair]], dict[str, Tensor]],
        pad_id: int,
    ) -> None:
        self._model = model
        self._head = head
        self._pixels = pixels
        self._pad_id = pad_id

    def prefix(self, pairs: Sequence[Pair]) -> None:
        """Nothing: each pair is computed as a whole."""

    @torch.inference_mode()
    def log_odds(self, pairs: Sequence[Pair], prefix: Prefix | None = None) -> Tensor:
        """logit_yes - logit_no of each pair."""
        ids, positions, lengths = (torch.from_numpy(part) for part in padded(pairs, self._pad_id))
        inputs = {"input_ids": ids, "position_ids": positions, **self._pixels(pairs)}
        inputs = {name: value.to(self._head.device) for name, value in inputs.items()}
        hidden = self._model(**inputs, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(pairs)), (lengths - 1).to(hidden.device)]
        found: Tensor = last.float() @ self._head
        return found


@dataclass(frozen=True, slots=True)
class Task:
    """A pair on its way to the model; its length is what is left to compute."""

    pair: Pair
    prefix: Prefix | None

    def __len__(self) -> int:
        return len(self.pair) - (self.prefix.tokens if self.prefix else 0)


class Engine:
    """Scores the pairs of queries; those of several threads share batches.

    Args:
        forward: Runs the model.
        name: Of the model, for messages.
        device: Where it runs.
        batch_tokens: Tokens of a batch, padding included.
    """

    def __init__(
        self, forward: Passes, *, name: str, device: torch.device, batch_tokens: int
    ) -> None:
        self.forward = forward
        self._name = name
        self._device = device
        self._lock = threading.Lock()
        # On a GPU one thread starts a batch while the other waits for the last one's answers.
        at_once = 2 if device.type == "cuda" else 1
        self._scheduler = Scheduler([self._run] * at_once, batch_tokens=batch_tokens)

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, padding included."""
        return self._scheduler.batch_tokens

    @batch_tokens.setter
    def batch_tokens(self, tokens: int) -> None:
        self._scheduler.batch_tokens = tokens

    def answers(
        self, windows: Iterable[Sequence[Pair]], *, timeout_s: float | None = None
    ) -> Iterator[tuple[int, PairScore]]:
        """Places and scores of the pairs of one query, in no particular order.

        Args:
            windows: The pairs, as they become ready.
            timeout_s: Longest wait for the scores of a window, in seconds.

        Raises:
            RerankError: The model failed, or the time has passed.
        """
        prefix: Prefix | None = None
        key: object = None
        jobs: deque[tuple[Sequence[Pair], Job]] = deque()
        try:
            for pairs in windows:
                if not pairs:
                    continue
                if prefix is None or not prefix.begins(pairs):
                    prefix = self._prefix(pairs)
                    # Pairs with a beginning of their own need batches of their own.
                    key = object() if prefix else None
                tasks = [Task(pair, prefix) for pair in pairs]
                jobs.append((pairs, self._scheduler.submit(tasks, key=key)))
                if len(jobs) > 1:
                    yield from _read(*jobs[0], timeout_s)
                    jobs.popleft()
            while jobs:
                yield from _read(*jobs[0], timeout_s)
                jobs.popleft()
        finally:
            for _, job in jobs:  # nobody waits for these any more
                job.cancel()

    def _run(self, tasks: Sequence[Task]) -> list[PairScore]:
        """Scores a batch; of each thread of the scheduler."""
        pairs = [task.pair for task in tasks]
        return [score for part in self._begin(pairs, tasks[0].prefix) for score in self._end(part)]

    def _prefix(self, pairs: Sequence[Pair]) -> Prefix | None:
        try:
            compute = self.forward.prefix(pairs)
            if compute is None:
                return None
            with self._lock, self._failures():
                return compute()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None  # each pair then brings its own

    def _begin(self, batch: Sequence[Pair], prefix: Prefix | None) -> list[_Begun]:
        """Starts a batch; one that does not fit in memory goes in halves."""
        try:
            with self._lock, self._failures():
                return [_Begun(batch, self.forward.log_odds(batch, prefix))]
        except torch.OutOfMemoryError:
            pass  # handled below, where the failed batch's tensors are no longer referenced
        torch.cuda.empty_cache()
        if len(batch) == 1:
            return [_Begun(batch, None)]
        half = len(batch) // 2
        logger.info("a batch of %d pairs does not fit in memory; halving it", len(batch))
        return [*self._begin(batch[:half], prefix), *self._begin(batch[half:], prefix)]

    def _end(self, part: _Begun) -> list[PairScore]:
        """Waits for a batch and gives its answers."""
        if part.log_odds is None:
            problem = f"{len(part.pairs[0])} tokens do not fit in the memory of {self._device}"
            remedy = "lower max_pixels or total_pixels, or take a smaller model"
            return [failed(MediaError(problem, remedy=remedy))]
        with self._failures():
            values = part.log_odds.tolist()
        return [answer(value) for value in values]

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns what the model raises into an error that names it."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise RerankError(f"{self._name} failed: {type(error).__name__}: {reason}") from error


@dataclass(frozen=True, slots=True)
class _Begun:
    """A batch that the device works on; without log-odds if a single pair did not fit."""

    pairs: Sequence[Pair]
    log_odds: Tensor | None


def _read(
    pairs: Sequence[Pair], job: Job, timeout_s: float | None
) -> Iterator[tuple[int, PairScore]]:
    for pair, score in zip(pairs, job.result(timeout_s), strict=True):
        yield pair.place, score
