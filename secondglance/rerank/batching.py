"""Pairs on their way to the model: read side by side, ahead of it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import MediaError
from secondglance.rerank import prompt

if TYPE_CHECKING:
    import torch

    from secondglance.rerank.prompt import Integers

READERS = min(16, max(4, os.cpu_count() or 4))
"""Threads that read media side by side."""
WINDOW_BYTES = 256 << 20
"""Pixels held in memory before they are scored."""
AHEAD = 2
"""Windows that are prepared while the model works on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt with its pixels, and where its answer goes.

    Attributes:
        place: Number of the candidate.
        encoded: The prompt.
        images: Pictures of both sides, in order; see `Side`.
        videos: Clips of both sides, in order.
        query_images: So many of the pictures are the query's.
        query_videos: The same of clips.
        query_vision: Vision tokens of the query.
    """

    place: int
    encoded: prompt.Encoded
    images: tuple[torch.Tensor, ...] = ()
    videos: tuple[torch.Tensor, ...] = ()
    query_images: int = 0
    query_videos: int = 0
    query_vision: int = 0

    def __len__(self) -> int:
        return len(self.encoded.ids)


def windows(
    make: Callable[[int], Pair | MediaError], count: int, *, window_tokens: int
) -> Iterator[list[tuple[int, Pair | MediaError]]]:
    """Prepares pairs side by side, ahead of whoever scores them.

    Args:
        make: Prepares one.
        count: How many.
        window_tokens: A window ends with so many tokens, or with `WINDOW_BYTES` of pixels.

    Yields:
        Places and pairs, in order; what cannot be prepared is an error.
    """
    ready: queue.Queue[list[tuple[int, Pair | MediaError]] | BaseException | None]
    ready = queue.Queue(AHEAD)
    over = threading.Event()

    def hand(item: list[tuple[int, Pair | MediaError]] | BaseException | None) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for window in _windows(make, count, window_tokens, over):
                hand(window)
            hand(None)
        except BaseException as error:  # raised again where the windows are waited for
            hand(error)

    producer = threading.Thread(target=work, name="rerank-windows", daemon=True)
    producer.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        over.set()
        producer.join()


def _windows(
    make: Callable[[int], Pair | MediaError],
    count: int,
    window_tokens: int,
    over: threading.Event,
) -> Iterator[list[tuple[int, Pair | MediaError]]]:
    window: list[tuple[int, Pair | MediaError]] = []
    held, tokens = 0, 0
    step = 2 * READERS
    with ThreadPoolExecutor(READERS, thread_name_prefix="rerank-reader") as readers:
        for start in range(0, count, step):
            if over.is_set():
                return
            places = range(start, min(start + step, count))
            for place, made in zip(places, readers.map(make, places), strict=True):
                window.append((place, made))
                if isinstance(made, Pair):
                    held += sum(pixels.numel() for pixels in (*made.images, *made.videos))
                    tokens += len(made)
            if held >= WINDOW_BYTES or tokens >= window_tokens:
                yield window
                window, held, tokens = [], 0, 0
    if window:
        yield window


def padded(
    pairs: Sequence[Pair], pad_id: int, *, skipped: int = 0
) -> tuple[Integers, Integers, Integers]:
    """Prompts side by side: ids (pairs, tokens), positions (3, pairs, tokens), lengths (pairs,).

    Padding goes to the right. The model looks back only, so no token ever sees it, and attention
    needs no mask: the fast causal kernels apply.

    Args:
        pairs: Of like length, best.
        pad_id: Token that fills the end of shorter prompts.
        skipped: Tokens that are left out at the beginning of each.
    """
    lengths = np.array([len(pair) - skipped for pair in pairs])
    ids = np.full((len(pairs), int(lengths.max())), pad_id, dtype=np.int64)
    positions = np.zeros((3, *ids.shape), dtype=np.int64)
    for row, (pair, length) in enumerate(zip(pairs, lengths, strict=True)):
        ids[row, :length] = pair.encoded.ids[skipped:]
        positions[:, row, :length] = pair.encoded.positions[:, skipped:]
    return ids, positions, lengths
