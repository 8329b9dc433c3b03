"""Qwen3-VL's forward pass for training: batches whose pictures all have one size.

Where pictures go in the prompt is known from its making. The layers are those that the engine runs
(`secondglance.rerank.layers`), on transformers' own modules, and so its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from secondglance.rerank import layers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """What the vision tower makes of the pictures of a batch.

    Attributes:
        tokens: (batch, vision tokens, hidden).
        deep: The same shape, one for each deepstack layer.
    """

    tokens: Tensor
    deep: tuple[Tensor, ...]

    def repeated(self, times: int) -> Seen:
        """Each picture so many times, one after the other."""

        def repeat(value: Tensor) -> Tensor:
            return value[:, None].expand(-1, times, -1, -1).reshape(-1, *value.shape[1:])

        return Seen(repeat(self.tokens), tuple(repeat(layer) for layer in self.deep))


def join(parts: Sequence[Seen]) -> Seen:
    """The pictures of both sides, in the order of the prompt."""
    return Seen(
        torch.cat([part.tokens for part in parts], 1),
        tuple(torch.cat(layers, 1) for layers in zip(*(part.deep for part in parts), strict=True)),
    )


class Forward(torch.nn.Module):
    """The fast path through a `Qwen3VLForConditionalGeneration`.

    Args:
        model: Whose weights to use. They stay its own: nothing is copied.
        compiled: Fuse the operations of each layer. The first steps then take a minute.
    """

    def __init__(self, model: Any, *, compiled: bool = False) -> None:
        super().__init__()
        self.model = model
        self._layers: Any = (layers.vision_layer, layers.text_layer)
        self._trained: Any = self._layers
        if compiled:
            self._trained = tuple(torch.compile(layer, dynamic=True) for layer in self._layers)
        self._grids: dict[tuple[int, int], layers.Grid] = {}

    def see(self, cut: Tensor, height: int, width: int) -> Seen:
        """The vision tower.

        Args:
            cut: What `layers.patches` returns.
            height: Pixels of a frame.
            width: Pixels of a frame.
        """
        visual = self.model.model.visual
        batch, times, count, _ = cut.shape
        size = height // layers.PATCH, width // layers.PATCH
        if size not in self._grids:
            self._grids[size] = layers.grid(visual, *size, cut.device)
        run, _ = self._trained if torch.is_grad_enabled() else self._layers
        parts = layers.tower(visual, cut.reshape(batch * times, count, -1), self._grids[size], run)
        tokens, *deep = (part.view(batch, times * count // 4, -1) for part in parts)
        return Seen(tokens, tuple(deep))

    def read(
        self, ids: Tensor, positions: Tensor, seen: Seen | None, spots: Tensor | None
    ) -> Tensor:
        """The language model: what `states` ends in, after the last norm."""
        return self.last_norm(self.states(ids, positions, seen, spots)[-1])

    def states(
        self, ids: Tensor, positions: Tensor, seen: Seen | None, spots: Tensor | None
    ) -> list[Tensor]:
        """The language model.

        Args:
            ids: (batch, tokens), padded to the right.
            positions: (3, batch, tokens).
            seen: The pictures, or None.
            spots: (batch, vision tokens): place of each vision token in its prompt.

        Returns:
            Hidden states after each layer, (batch, tokens, hidden).
        """
        language = self.model.model.language_model
        # Unlike an embedding's, the gradient of this needs no sorting.
        table = language.embed_tokens.weight
        hidden = table.index_select(0, ids.flatten()).view(*ids.shape, -1)
        where = None
        if seen is not None and spots is not None:
            where = spots[..., None].expand(-1, -1, hidden.shape[-1])
            hidden = hidden.scatter(1, where, seen.tokens.to(hidden.dtype))
        cos, sin = language.rotary_emb(hidden, positions)
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
            cos, sin = cos.to(dtype), sin.to(dtype)
        cos, sin = cos[:, None], sin[:, None]
        found = []
        _, run = self._trained if torch.is_grad_enabled() else self._layers
        for number, layer in enumerate(language.layers):
            hidden = run(layer, hidden, cos, sin)
            if seen is not None and where is not None and number < len(seen.deep):
                hidden = hidden.scatter_add(1, where, seen.deep[number].to(hidden.dtype))
            found.append(hidden)
        return found

    def last_norm(self, hidden: Tensor) -> Tensor:
        """What the head reads of a last state."""
        return layers.rms(self.model.model.language_model.norm, hidden)

    def log_odds(self, state: Tensor, yes: int, no: int) -> Tensor:
        """logit_yes - logit_no of states (batch, hidden), in float32: (batch,)."""
        rows = self.model.model.language_model.embed_tokens.weight
        odds: Tensor = state.float() @ (rows[yes] - rows[no]).float()
        return odds

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token: (..., vocabulary)."""
        return F.linear(hidden, self.model.model.language_model.embed_tokens.weight)
