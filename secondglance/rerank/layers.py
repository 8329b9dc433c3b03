"""Layers of Qwen3-VL for batches of one shape, on transformers' own modules.

transformers splits vision attention by picture, finds placeholders by mask and reads sizes back
from the device. Here every batch has one shape and positions are constants, so nothing waits for
the device. The formulas are those of transformers' `modeling_qwen3_vl` (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

PATCH = 16
BLOCK = 2 * PATCH
"""Patches of 2 x 2 are merged into one token."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What the vision tower knows of the places of a frame's patches.

    Attributes:
        taps: (4, patches): neighbours of each patch in the learned grid of positions.
        weights: (4, patches): their shares.
        cos: (patches, head width): rotation.
        sin: The same shape.
    """

    taps: Tensor
    weights: Tensor
    cos: Tensor
    sin: Tensor


def patches(frames: Tensor) -> Tensor:
    """Cuts frames into patches, in the order of Qwen's image processor.

    Args:
        frames: (batch, T, 3, height, width); T is 1 or even, sides multiples of 32.

    Returns:
        (batch, temporal patches, patches, 1536).
    """
    if frames.shape[1] == 1:
        frames = frames.expand(-1, 2, -1, -1, -1)  # a picture is a clip of two equal frames
    batch, count, _, height, width = frames.shape
    cut = frames.reshape(
        batch, count // 2, 2, 3, height // BLOCK, 2, PATCH, width // BLOCK, 2, PATCH
    )
    return cut.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(
        batch, count // 2, height * width // PATCH**2, 3 * 2 * PATCH**2
    )


def grid(visual: Any, rows: int, columns: int, device: torch.device) -> Grid:
    """Places of the patches of a frame of rows x columns patches."""
    side = int(visual.pos_embed.num_embeddings**0.5)
    row, column = _block_order(rows, columns)
    low, high, share = _taps(row, rows, side)
    left, right, share_x = _taps(column, columns, side)
    taps = [y * side + x for y in (low, high) for x in (left, right)]
    weights = [v * h for v in (1 - share, share) for h in (1 - share_x, share_x)]
    width = visual.config.hidden_size // visual.config.num_heads
    frequencies = 1.0 / 10_000.0 ** (torch.arange(0, width // 2, 2) / (width // 2))
    angles = torch.cat([row[:, None] * frequencies, column[:, None] * frequencies], 1)
    angles = torch.cat([angles, angles], 1)
    made = (torch.stack(taps), torch.stack(weights), angles.cos(), angles.sin())
    return Grid(*(value.to(device) for value in made))


def embed_patches(visual: Any, cut: Tensor, place: Grid) -> Tensor:
    """Patches as the first vision layer takes them: (frames, patches, hidden)."""
    projection = visual.patch_embed.proj
    # A convolution whose stride is its kernel is a matrix product.
    hidden = F.linear(cut, projection.weight.flatten(1), projection.bias)
    where = (visual.pos_embed(place.taps) * place.weights[..., None]).sum(0)
    embedded: Tensor = hidden + where.to(hidden.dtype)
    return embedded


def vision_layer(block: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One block over (frames, patches, hidden); each frame attends to itself only."""
    attention = block.attn
    frames, count, width = hidden.shape
    heads = attention.qkv(block.norm1(hidden)).view(frames, count, 3, attention.num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4)
    query, key = (_rotated(part, cos, sin).to(value.dtype) for part in (query, key))
    mixed = F.scaled_dot_product_attention(query, key, value)
    hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(frames, count, width))
    return hidden + block.mlp(block.norm2(hidden))  # type: ignore[no-any-return]


def tower(
    visual: Any, cut: Tensor, place: Grid, run: Callable[[Any, Tensor, Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """The vision tower: tokens, (frames, tokens, hidden), then what each deepstack layer adds.

    Args:
        visual: A `Qwen3VLVisionModel`.
        cut: (frames, patches, 1536).
        place: Of these patches.
        run: `vision_layer`, or a compiled one.
    """
    hidden = embed_patches(visual, cut, place)
    wanted = list(visual.deepstack_visual_indexes)
    deep = []
    for number, block in enumerate(visual.blocks):
        hidden = run(block, hidden, place.cos, place.sin)
        if number in wanted:
            deep.append(visual.deepstack_merger_list[wanted.index(number)](hidden))
    return [
        merged.view(len(cut), -1, merged.shape[-1]) for merged in (visual.merger(hidden), *deep)
    ]


def projected(
    layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of (batch, tokens, hidden).

    Each is (batch, heads, tokens, width); queries and keys are rotated by `cos` and `sin`, (batch,
    1, tokens, width).
    """
    attention = layer.self_attn
    normed = halved(rms(layer.input_layernorm, hidden))
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    query = rms(attention.q_norm, attention.q_proj(normed).view(shape)).transpose(1, 2)
    key = rms(attention.k_norm, attention.k_proj(normed).view(shape)).transpose(1, 2)
    value = attention.v_proj(normed).view(shape).transpose(1, 2)
    return _rotated(query.to(value.dtype), cos, sin), _rotated(key.to(value.dtype), cos, sin), value


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention, (batch, heads, tokens, width).

    Args:
        query: (batch, heads, tokens, width), of the last tokens.
        key: (batch, fewer heads, all tokens, width).
        value: The same shape.
        mask: (batch, 1, tokens, all tokens), True where a token may look; None: at itself and all
            before it.
    """
    if mask is not None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    if query.shape[2] == key.shape[2]:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    bias: Any = causal_lower_right(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, enable_gqa=True)


def finished(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    """What follows attention in a layer: its projection, and the MLP.

    Args:
        layer: The layer.
        hidden: (batch, tokens, hidden), what the layer was given.
        mixed: What `attended` returns.
    """
    hidden = hidden + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(halved(rms(layer.post_attention_layernorm, hidden)))  # type: ignore[no-any-return]


def text_layer(layer: Any, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One layer over (batch, tokens, hidden). Padding is on the right, so no mask is needed."""
    return finished(layer, hidden, attended(*projected(layer, hidden, cos, sin)))


def halved(value: Tensor) -> Tensor:
    """In autocast's type, if that is on, for several layers that read it and would each cast it."""
    if torch.is_autocast_enabled(value.device.type):
        return value.to(torch.get_autocast_dtype(value.device.type))
    return value


def rms(norm: Any, value: Tensor) -> Tensor:
    """Transformers' RMS norm as one operation."""
    return F.rms_norm(value, value.shape[-1:], norm.weight.to(value.dtype), norm.variance_epsilon)


def _rotated(value: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = value.chunk(2, -1)
    return value * cos + torch.cat([-second, first], -1) * sin


def _block_order(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Row and column of each patch: blocks of 2 x 2 stay together, since they are merged."""
    order = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    ).reshape(2, rows // 2, 2, columns // 2, 2)
    row, column = order.permute(0, 1, 3, 2, 4).reshape(2, -1)
    return row, column


def _taps(place: Tensor, size: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours in the learned grid of `side`, and the share of the second."""
    exact = torch.linspace(0, side - 1, size)[place]
    low = exact.long()
    return low, (low + 1).clamp(max=side - 1), exact - low
