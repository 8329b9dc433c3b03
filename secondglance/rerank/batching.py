"""Pairs on their way to the model: read side by side, grouped by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secondglance.errors import MediaError
from secondglance.rerank import prompt

if TYPE_CHECKING:
    import torch

READERS = 4
"""Threads that read media side by side."""
WINDOW_BYTES = 512 << 20
"""Pixels held in memory before they are scored."""


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
    make: Callable[[int], Pair | MediaError], count: int
) -> Iterator[list[tuple[int, Pair | MediaError]]]:
    """Prepares pairs side by side, in stretches whose pixels fit in `WINDOW_BYTES` or so."""
    window: list[tuple[int, Pair | MediaError]] = []
    held = 0
    step = 2 * READERS
    with ThreadPoolExecutor(READERS, thread_name_prefix="rerank-reader") as readers:
        for start in range(0, count, step):
            places = range(start, min(start + step, count))
            for place, made in zip(places, readers.map(make, places), strict=True):
                window.append((place, made))
                if isinstance(made, Pair):
                    held += sum(pixels.numel() for pixels in (*made.images, *made.videos))
            if held >= WINDOW_BYTES:
                yield window
                window, held = [], 0
    if window:
        yield window


def batches(
    pairs: Sequence[Pair], batch_tokens: int, *, shared_tokens: int = 0
) -> Iterator[list[Pair]]:
    """Groups pairs of like length, longest first, within the budget of padded tokens.

    Args:
        pairs: To group.
        batch_tokens: Budget of a batch.
        shared_tokens: Tokens that all begin with, and that are computed once.
    """
    batch: list[Pair] = []
    for pair in sorted(pairs, key=len, reverse=True):
        if batch and (len(batch[0]) - shared_tokens) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch
