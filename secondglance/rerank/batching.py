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
    """A prompt with its pixels, and where its answer goes."""

    place: int
    encoded: prompt.Encoded
    images: tuple[torch.Tensor, ...]
    videos: tuple[torch.Tensor, ...]

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


def batches(pairs: Sequence[Pair], batch_tokens: int) -> Iterator[list[Pair]]:
    """Groups pairs of like length, longest first, within the budget of padded tokens."""
    batch: list[Pair] = []
    for pair in sorted(pairs, key=len, reverse=True):
        if batch and len(batch[0]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(pair)
    if batch:
        yield batch
