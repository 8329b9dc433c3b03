"""Qwen3-VL's forward pass for batches whose pictures all have one size.

transformers splits vision attention by picture, finds placeholders by mask and reads sizes back
from the device. With one size for a batch none of that is needed: attention runs over (pictures,
heads, patches, width), positions are constants, and where pictures go in the prompt is known from
its making. The modules, and so the weights, are transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

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


def patches(frames: Tensor) -> Tensor:
    """Cuts frames into patches, in the order of Qwen's image processor.

    Args:
        frames: (batch, T, 3, height, width), normalised; T is 1 or even, sides multiples of 32.

    Returns:
        (batch, temporal patches, patches, 1536).
    """
    if frames.shape[1] == 1:
        frames = frames.expand(-1, 2, -1, -1, -1)  # a picture is a clip of two equal frames
    batch, count, _, height, width = frames.shape
    cut = frames.reshape(batch, count // 2, 2, 3, height // 32, 2, 16, width // 32, 2, 16)
    return cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(
        batch, count // 2, height * width // 256, 1536
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
        self._layers: Any = (_vision_layer, _text_layer)
        self._trained = self._layers
        if compiled:
            self._trained = tuple(torch.compile(layer, dynamic=True) for layer in self._layers)
        self._places: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def see(self, cut: Tensor, height: int, width: int) -> Seen:
        """The vision tower.

        Args:
            cut: What `patches` returns.
            height: Pixels of a frame.
            width: Pixels of a frame.
        """
        visual = self.model.model.visual
        batch, times, count, _ = cut.shape
        taps, weights, cos, sin = self._place(height // 16, width // 16, cut.device)
        projection = visual.patch_embed.proj
        # A convolution whose stride is its kernel is a matrix product.
        hidden = F.linear(
            cut.reshape(batch * times, count, -1), projection.weight.flatten(1), projection.bias
        )
        hidden = hidden + (visual.pos_embed(taps) * weights[..., None]).sum(1).to(hidden.dtype)
        deep = []
        wanted = list(visual.deepstack_visual_indexes)
        run, _ = self._trained if torch.is_grad_enabled() else self._layers
        for number, block in enumerate(visual.blocks):
            hidden = run(block, hidden, cos, sin)
            if number in wanted:
                merger = visual.deepstack_merger_list[wanted.index(number)]
                deep.append(merger(hidden).view(batch, times * count // 4, -1))
        return Seen(visual.merger(hidden).view(batch, times * count // 4, -1), tuple(deep))

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
        return _rms(self.model.model.language_model.norm, hidden)

    def log_odds(self, state: Tensor, yes: int, no: int) -> Tensor:
        """logit_yes - logit_no of states (batch, hidden), in float32: (batch,)."""
        rows = self.model.model.language_model.embed_tokens.weight
        odds: Tensor = state.float() @ (rows[yes] - rows[no]).float()
        return odds

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token: (..., vocabulary)."""
        return F.linear(hidden, self.model.model.language_model.embed_tokens.weight)

    def _place(
        self, rows: int, columns: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Position embedding and rotation of each patch of a grid; made once."""
        if (rows, columns) not in self._places:
            visual = self.model.model.visual
            side = int(visual.pos_embed.num_embeddings**0.5)
            row, column = _block_order(rows, columns)
            (low, high, share), (left, right, share_x) = (
                _taps(row, rows, side),
                _taps(column, columns, side),
            )
            taps = [y * side + x for y in (low, high) for x in (left, right)]
            weights = [v * h for v in (1 - share, share) for h in (1 - share_x, share_x)]
            width = visual.config.hidden_size // visual.config.num_heads
            frequencies = 1.0 / 10_000.0 ** (torch.arange(0, width // 2, 2) / (width // 2))
            angles = torch.cat([row[:, None] * frequencies, column[:, None] * frequencies], 1)
            angles = torch.cat([angles, angles], 1)
            made = (torch.stack(taps, 1), torch.stack(weights, 1), angles.cos(), angles.sin())
            self._places[rows, columns] = tuple(value.to(device) for value in made)  # type: ignore[assignment]
        return self._places[rows, columns]


def _block_order(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch: blocks of 2 x 2 stay together, since they are merged."""
    grid = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    ).reshape(2, rows // 2, 2, columns // 2, 2)
    row, column = grid.permute(0, 1, 3, 2, 4).reshape(2, -1)
    return row, column


def _taps(place: Tensor, size: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours in the learned grid of `side`, and the share of the second."""
    exact = torch.linspace(0, side - 1, size)[place]
    low = exact.long()
    return low, (low + 1).clamp(max=side - 1), exact - low


def _rotate(value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = value.chunk(2, -1)
    return value * cos + torch.cat([-second, first], -1) * sin


def _rms(norm: Any, value: Tensor) -> Tensor:
    return F.rms_norm(value, value.shape[-1:], norm.weight.to(value.dtype), norm.variance_epsilon)


def _halved(value: Tensor) -> Tensor:
    """In autocast's type, for several layers that read it and would each cast it."""
    if torch.is_autocast_enabled(value.device.type):
        return value.to(torch.get_autocast_dtype(value.device.type))
    return value


def _vision_layer(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block over (pictures, patches, hidden)."""
    attention = block.attn
    pictures, count, width = hidden.shape
    heads = attention.qkv(block.norm1(hidden)).view(pictures, count, 3, attention.num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    cos, sin = cos.to(query.dtype), sin.to(query.dtype)
    mixed = F.scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
    hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(pictures, count, width))
    return hidden + block.mlp(block.norm2(hidden))  # type: ignore[no-any-return]


def _text_layer(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer over (batch, tokens, hidden). Padding is on the right, so no mask is needed."""
    attention = layer.self_attn
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    normed = _halved(_rms(layer.input_layernorm, hidden))
    query = _rms(attention.q_norm, attention.q_proj(normed).view(shape)).transpose(1, 2)
    key = _rms(attention.k_norm, attention.k_proj(normed).view(shape)).transpose(1, 2)
    value = attention.v_proj(normed).view(shape).transpose(1, 2)
    query, key = _rotate(query.to(value.dtype), cos, sin), _rotate(key.to(value.dtype), cos, sin)
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    hidden = hidden + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(_halved(_rms(layer.post_attention_layernorm, hidden)))  # type: ignore[no-any-return]
