"""A model on one device: what it shares between pairs, and what to do if a batch does not fit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from secondglance.errors import MediaError, RerankError
from secondglance.rerank.answers import TooLarge, answer
from secondglance.rerank.batching import Pair, padded

if TYPE_CHECKING:
    from torch import Tensor

    from secondglance.rerank.forward import Prefix
    from secondglance.types import PairScore

logger = logging.getLogger(__name__)


class Passes(Protocol):
    """A way to run the model."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        ...

    def common(self, pairs: Sequence[Pair]) -> int:
        """Tokens that all pairs of a query begin with; 0 where each is computed as a whole."""
        ...

    def begin(self, pair: Pair, tokens: int) -> Prefix:
        """Computes the first tokens of a pair, for all that begin with them."""
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
        processor: Of the checkpoint; makes the model's pixel arguments of a batch.
        pad_id: Token that fills the end of shorter prompts.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        head: Tensor,
        *,
        processor: Any,
        pad_id: int,
    ) -> None:
        self.device = head.device
        self._model = model
        self._head = head
        self._processor = processor
        self._pad_id = pad_id

    def common(self, pairs: Sequence[Pair]) -> int:
        """Nothing is shared."""
        return 0

    def begin(self, pair: Pair, tokens: int) -> Prefix:
        """Never asked for, as nothing is shared."""
        raise RerankError(f"{type(self).__name__} computes each pair as a whole")

    @torch.inference_mode()
    def log_odds(self, pairs: Sequence[Pair], prefix: Prefix | None = None) -> Tensor:
        """logit_yes - logit_no of each pair."""
        ids, positions, lengths = (torch.from_numpy(part) for part in padded(pairs, self._pad_id))
        inputs = {
            "input_ids": ids,
            "position_ids": positions,
            **model_pixels(self._processor, pairs),
        }
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        hidden = self._model(**inputs, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(pairs)), (lengths - 1).to(hidden.device)]
        found: Tensor = last.float() @ self._head
        return found


def model_pixels(processor: Any, batch: Sequence[Pair]) -> dict[str, Tensor]:
    """Normalised patches of every image and video of a batch, in order of appearance."""
    images = [image for pair in batch for image in pair.images]
    videos = [video for pair in batch for video in pair.videos]
    inputs: dict[str, Tensor] = {}
    if images:
        inputs |= processor.image_processor(images=images, do_resize=False, return_tensors="pt")
    if videos:
        made = processor.video_processor(
            videos=videos, do_resize=False, do_sample_frames=False, return_tensors="pt"
        )
        inputs |= {name: made[name] for name in ("pixel_values_videos", "video_grid_thw")}
    return inputs


class Beginning:
    """What all pairs of a query begin with; a device computes it when it first needs it.

    Args:
        first: One of the pairs.
        tokens: How many tokens they have in common.
    """

    def __init__(self, first: Pair, tokens: int) -> None:
        self.first = first
        self.tokens = tokens
        self._made: dict[torch.device, Prefix | None] = {}

    def begins(self, pairs: Sequence[Pair], forward: Passes) -> bool:
        """Whether further pairs of the same query begin with it, too."""
        ids = self.first.encoded.ids[: self.tokens]
        alike = np.array_equal(pairs[0].encoded.ids[: self.tokens], ids)
        return alike and forward.common(pairs) >= self.tokens

    def on(self, forward: Passes) -> Prefix | None:
        """Its keys and values; None where they do not fit in memory, so that each pair goes whole.

        Not to be called for one device from two threads at once.
        """
        if forward.device not in self._made:
            try:
                self._made[forward.device] = forward.begin(self.first, self.tokens)
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                self._made[forward.device] = None
        return self._made[forward.device]


@dataclass(frozen=True, slots=True)
class Task:
    """A pair on its way to a model; its length is what is left to compute."""

    pair: Pair
    beginning: Beginning | None

    def __len__(self) -> int:
        return len(self.pair) - (self.beginning.tokens if self.beginning else 0)


class Replica:
    """Runs batches on one device; several threads may, one prepares while another waits.

    Args:
        forward: Runs the model.
        name: Of the model, for messages.
        on_shrink: Told the tokens of a batch that should fit, after one that did not.
    """

    def __init__(self, forward: Passes, *, name: str, on_shrink: Callable[[int], None]) -> None:
        self.forward = forward
        self._name = name
        self._on_shrink = on_shrink
        self._lock = threading.Lock()

    def run(self, tasks: Sequence[Task]) -> list[PairScore]:
        """Scores a batch.

        Raises:
            RerankError: The model failed.
        """
        if self.forward.device.type == "cuda":
            torch.cuda.set_device(self.forward.device)  # of this thread
        pairs, beginning = [task.pair for task in tasks], tasks[0].beginning
        prefix = None
        if beginning is not None:
            with self._lock, self._failures():
                prefix = beginning.on(self.forward)
        return [score for part in self._begin(pairs, prefix) for score in self._end(part)]

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
        longest = max(map(len, batch)) - (prefix.tokens if prefix else 0)
        logger.info("a batch of %d pairs does not fit in memory; halving it", len(batch))
        self._on_shrink(longest * (len(batch) - half))
        return [*self._begin(batch[:half], prefix), *self._begin(batch[half:], prefix)]

    def _end(self, part: _Begun) -> list[PairScore]:
        """Waits for a batch and gives its answers."""
        if part.log_odds is None:
            where = self.forward.device
            problem = f"{len(part.pairs[0])} tokens do not fit in the memory of {where}"
            remedy = "lower max_pixels or total_pixels, or take a smaller model"
            return [TooLarge(score=None, error=str(MediaError(problem, remedy=remedy)))]
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
