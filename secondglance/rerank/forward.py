"""The reranker's forward pass: from prompts and pixels to log-odds.

Four things make it faster than a call of the model. Pictures of one size go through the vision
tower side by side. What all pairs of a query begin with is computed once, and its keys and values
are shared. No cache of keys and values is kept for pairs. And the last layer is finished for the
last token only, which is all that yes and no are read from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from secondglance.rerank import layers
from secondglance.rerank.batching import padded

if TYPE_CHECKING:
    from torch import Tensor

    from secondglance.rerank.batching import Pair

VISION_PATCHES = 1 << 16
"""Patches that go through the vision tower at once."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What pairs of one query begin with.

    Attributes:
        tokens: How many.
        images: Pictures among them.
        videos: Clips among them.
        keys: For each layer, (1, heads, tokens, width).
        values: The same shapes.
    """

    tokens: int
    images: int
    videos: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Normaliser:
    """How bytes become what the vision tower reads: (bytes - mean) / deviation."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> Normaliser:
        """That of one of transformers' image or video processors."""
        scale = float(processor.rescale_factor)
        return cls(
            tuple(float(value) / scale for value in processor.image_mean),
            tuple(float(value) / scale for value in processor.image_std),
        )

    def __call__(self, pixels: Tensor, dtype: torch.dtype) -> Tensor:
        """Normalises (..., 3, height, width)."""
        mean, deviation = (
            torch.tensor(values, device=pixels.device).view(3, 1, 1)
            for values in (self.mean, self.deviation)
        )
        return ((pixels.float() - mean) / deviation).to(dtype)


class Forward:
    """Scores batches of pairs.

    Args:
        model: A `Qwen3VLModel`, wholly on one device.
        head: The difference of the rows of "yes" and "no", (hidden,), float32.
        pad_id: Token that fills the end of shorter prompts.
        image_normaliser: Of pictures.
        video_normaliser: Of clips.
        compiled: Fuse each layer's operations. The first batches then take a minute or more.
    """

    def __init__(
        self,
        model: Any,
        head: Tensor,
        *,
        pad_id: int,
        image_normaliser: Normaliser,
        video_normaliser: Normaliser,
        compiled: bool = False,
    ) -> None:
        self._model = model
        self._head = head
        self._pad_id = pad_id
        self._normalisers = image_normaliser, video_normaliser
        self._pads = model.config.image_token_id, model.config.video_token_id
        self._grids: dict[tuple[int, int], layers.Grid] = {}
        self._device = head.device
        self._dtype = model.language_model.norm.weight.dtype

        if compiled:
            # While one thread compiles, those of other devices run their layers as they are.
            config = torch._dynamo.config
            config.error_on_nested_fx_trace = False
            # Each device compiles the same functions anew; past the limit, the last ones would
            # stay unfused.
            limit = 8 * max(1, torch.cuda.device_count())
            config.recompile_limit = max(config.recompile_limit, limit)

        def fused(function: Any) -> Any:
            return torch.compile(function, dynamic=True) if compiled else function

        self._vision_layer = fused(layers.vision_layer)
        self._projected, self._finished = fused(layers.projected), fused(layers.finished)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._device

    def common(self, pairs: Sequence[Pair]) -> int:
        """Tokens that all pairs of one query begin with."""
        return common_tokens(pairs, self._pads)

    @torch.inference_mode()
    def begin(self, first: Pair, tokens: int) -> Prefix:
        """Computes the first tokens of a pair, for all that begin with them."""
        images, videos = first.images[: first.query_images], first.videos[: first.query_videos]
        ids, positions = first.encoded.ids[None, :tokens], first.encoded.positions[:, None, :tokens]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        hidden, deep, where = self._embedded(ids, images, videos)
        cos, sin = self._rotation(hidden, positions)
        stack = self._model.language_model.layers
        for number, layer in enumerate(stack):
            query, key, value = self._projected(layer, hidden, cos, sin)
            keys.append(key)
            values.append(value)
            if number + 1 < len(stack):
                mixed = layers.attended(query, key, value)
                hidden = self._finished(layer, hidden, mixed)
                hidden = _deepened(hidden, deep, where, number)
        return Prefix(tokens, len(images), len(videos), tuple(keys), tuple(values))

    @torch.inference_mode()
    def log_odds(self, pairs: Sequence[Pair], prefix: Prefix | None = None) -> Tensor:
        """logit_yes - logit_no of each pair, (pairs,), float32, on the device.

        Nothing waits for the device here: the next batch can be made ready while it works.

        Args:
            pairs: Of like length, best.
            prefix: What all of them begin with.
        """
        begin = prefix.tokens if prefix else 0
        skipped = (prefix.images, prefix.videos) if prefix else (0, 0)
        ids, positions, lengths = padded(pairs, self._pad_id, skipped=begin)
        hidden, deep, where = self._embedded(
            ids,
            [image for pair in pairs for image in pair.images[skipped[0] :]],
            [video for pair in pairs for video in pair.videos[skipped[1] :]],
        )
        cos, sin = self._rotation(hidden, positions)
        last = self._moved(lengths - 1)
        stack = self._model.language_model.layers
        for number, layer in enumerate(stack):
            query, key, value = self._projected(layer, hidden, cos, sin)
            if prefix:
                key, value = (
                    torch.cat([shared.expand(len(pairs), -1, -1, -1), own], 2)
                    for shared, own in ((prefix.keys[number], key), (prefix.values[number], value))
                )
            mask = None
            if number + 1 == len(stack):
                query, hidden = _at(query, last, 2), _at(hidden, last, 1)
                seen = torch.arange(key.shape[2], device=key.device) <= begin + last[:, None]
                mask = seen[:, None, None]
            hidden = self._finished(layer, hidden, layers.attended(query, key, value, mask))
            if number + 1 < len(stack):
                hidden = _deepened(hidden, deep, where, number)
        state = layers.rms(self._model.language_model.norm, hidden)[:, 0]
        found: Tensor = state.float() @ self._head
        return found

    def _embedded(
        self, ids: Any, images: Sequence[Tensor], videos: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """States before the first layer; what pictures add after the first ones; and where.

        Returns:
            (batch, tokens, hidden); for each deepstack layer (vision tokens, hidden); and the
            vision tokens' places in the flattened batch.
        """
        hidden = self._model.language_model.embed_tokens(self._moved(ids))
        spots = [np.flatnonzero(ids.reshape(-1) == pad) for pad in self._pads]
        where = self._moved(np.concatenate(spots))
        if not len(where):
            return hidden, [], where
        seen = [
            self._see(items, normaliser)
            for items, normaliser in zip((images, videos), self._normalisers, strict=True)
            if items
        ]
        tokens, *deep = (torch.cat(parts) for parts in zip(*seen, strict=True))
        flat = hidden.view(-1, hidden.shape[-1]).index_copy(0, where, tokens.to(hidden.dtype))
        return flat.view_as(hidden), deep, where

    def _see(self, items: Sequence[Tensor], normaliser: Normaliser) -> list[Tensor]:
        """The vision tower over pictures or clips, those of one size side by side.

        Returns:
            Their tokens, in order, (tokens, hidden), and what each deepstack layer adds.
        """
        same: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, item in enumerate(items):
            same[item.shape[-2], item.shape[-1]].append(number)
        found: list[list[Tensor]] = [[] for _ in items]
        for (height, width), numbers in same.items():
            frames = [items[number] for number in numbers]
            # Two frames of a clip are one patch deep; a picture counts as two equal frames. Bytes
            # go to the device picture by picture: joining them here first would copy all twice.
            depth = 1 if frames[0].ndim == 3 else 2
            twos = [
                frame.to(self._device, non_blocking=True).view(-1, depth, *frame.shape[-3:])
                for frame in frames
            ]
            counts = [len(two) for two in twos]
            whole = torch.cat(twos)
            step = max(1, VISION_PATCHES * layers.PATCH**2 // (height * width))
            parts = [
                self._tower(normaliser(few, self._dtype), height, width)
                for few in torch.split(whole, step)
            ]
            outputs = [torch.cat(layer) for layer in zip(*parts, strict=True)]
            for output in outputs:
                for number, tokens in zip(numbers, torch.split(output, counts), strict=True):
                    found[number].append(tokens.flatten(0, 1))
        return [torch.cat(layer) for layer in zip(*found, strict=True)]

    def _tower(self, frames: Tensor, height: int, width: int) -> list[Tensor]:
        """(n, 1 or 2, 3, height, width) to tokens, (n, tokens, hidden), then those of deepstack."""
        size = height // layers.PATCH, width // layers.PATCH
        if size not in self._grids:
            self._grids[size] = layers.grid(self._model.visual, *size, self._device)
        cut = layers.patches(frames)[:, 0]
        return layers.tower(self._model.visual, cut, self._grids[size], self._vision_layer)

    def _rotation(self, hidden: Tensor, positions: Any) -> tuple[Tensor, Tensor]:
        cos, sin = self._model.language_model.rotary_emb(hidden, self._moved(positions))
        return cos[:, None], sin[:, None]

    def _moved(self, values: Any) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)


def common_tokens(pairs: Sequence[Pair], pads: Sequence[int]) -> int:
    """How many tokens all pairs of one query begin with, before their candidates' pictures."""
    first = pairs[0].encoded.ids
    most = len(first) - 1
    for pair in pairs:
        ids = pair.encoded.ids
        vision = np.flatnonzero(np.isin(ids, pads))
        if len(vision) > pair.query_vision:
            most = min(most, int(vision[pair.query_vision]))
        most = min(most, len(ids) - 1)
        differs = np.flatnonzero(ids[:most] != first[:most])
        if len(differs):
            most = int(differs[0])
    return most


def _at(values: Tensor, last: Tensor, axis: int) -> Tensor:
    """The entry of each row at its own place along an axis; the axis stays."""
    shape = list(values.shape)
    shape[axis] = 1
    index = last.view(-1, *[1] * (values.ndim - 1)).expand(shape)
    return values.gather(axis, index)


def _deepened(hidden: Tensor, deep: Sequence[Tensor], where: Tensor, number: int) -> Tensor:
    if number >= len(deep):
        return hidden
    flat = hidden.view(-1, hidden.shape[-1])
    return flat.index_add(0, where, deep[number].to(hidden.dtype)).view_as(hidden)
