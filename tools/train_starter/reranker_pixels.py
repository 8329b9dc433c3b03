"""From drawings to pixels as the reranker will meet them: compressed, resized, not quite alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

PIXELS_AT_ONCE = 1 << 26
"""Pixels rendered at once, to bound memory."""
ALIKE = 128
"""Pictures that are varied in the same way."""

# ITU-T T.81, annex K: the usual quantisation tables of JPEG.
_LUMA = torch.tensor(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    dtype=torch.float32,
)
_CHROMA = torch.full((8, 8), 99.0)
_CHROMA[:4, :4] = torch.tensor(
    [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]], dtype=torch.float32
)
# ITU-R BT.601, full range, as JFIF has it.
_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


class Pictures:
    """Renders drawings on a device.

    Args:
        renderer: `secondglance.scenes.render.Renderer`, or what has its `render`.
        device: Where frames are wanted.
        augment: Vary them, moderately; else they are rendered as they are.
        seed: Of the variations.
    """

    def __init__(self, renderer: Any, device: str, *, augment: bool, seed: int = 0) -> None:
        self._renderer = renderer
        self._device = device
        self._augment = augment
        self._choice = random.Random(seed)
        self._noise = torch.Generator(device).manual_seed(seed)

    def frames(
        self,
        sprites: np.ndarray[Any, Any],
        backdrop: np.ndarray[Any, Any],
        times_s: Sequence[float],
        *,
        height: int,
        width: int,
    ) -> Tensor:
        """Renders a batch.

        Args:
            sprites: (batch, T, slots, 8); see `Drawing`.
            backdrop: (batch, 4).
            times_s: (T,).
            height: Pixels.
            width: Pixels.

        Returns:
            float32 of shape (batch, T, 3, height, width), normalised to -1..1.
        """
        rows, places = torch.from_numpy(sprites), torch.from_numpy(backdrop)
        scale = self._scale(len(times_s))
        tall, wide = round(height * scale / 2) * 2, round(width * scale / 2) * 2
        step = max(1, PIXELS_AT_ONCE // (len(times_s) * tall * wide))
        parts = []
        for first in range(0, len(rows), step):
            drawn = self._renderer.render(
                rows[first : first + step],
                places[first : first + step],
                times_s=times_s,
                height=tall,
                width=wide,
            )
            value = drawn.permute(0, 1, 4, 2, 3).float() / 255
            if self._augment:
                parts += [self._vary(few, height, width) for few in value.split(ALIKE)]
            else:
                parts.append(value)
        return torch.cat(parts) * 2 - 1

    def _scale(self, frames: int) -> float:
        if not self._augment or self._choice.random() < (0.6 if frames == 1 else 0.8):
            return 1.0
        return self._choice.uniform(1.2, 2.0 if frames == 1 else 1.6)

    def _vary(self, value: Tensor, height: int, width: int) -> Tensor:
        """What files do to pictures; (batch, T, 3, tall, wide) to (batch, T, 3, height, width)."""
        batch, frames = value.shape[:2]
        flat = value.flatten(0, 1)
        if self._choice.random() < 0.35:
            flat = jpeg(flat, self._choice.uniform(45, 95))
        if self._choice.random() < 0.3:  # framed a little differently
            crop = self._choice.uniform(0.94, 1.0)
            tall, wide = round(flat.shape[2] * crop), round(flat.shape[3] * crop)
            top = self._choice.randint(0, flat.shape[2] - tall)
            left = self._choice.randint(0, flat.shape[3] - wide)
            flat = flat[:, :, top : top + tall, left : left + wide]
        if flat.shape[2:] != (height, width):
            flat = F.interpolate(
                flat, (height, width), mode="bicubic", antialias=True, align_corners=False
            )
        if self._choice.random() < 0.25:  # blurred (above 0) or sharpened
            soft = F.avg_pool2d(flat, 3, stride=1, padding=1, count_include_pad=False)
            flat = torch.lerp(flat, soft, self._choice.uniform(-0.6, 0.6))
        flat = flat.clamp(0, 1).view(batch, frames, 3, height, width)
        if self._choice.random() < 0.4:
            flat = self._light(flat)
        if self._choice.random() < 0.2:
            strength = self._uniform(batch, 0.0, 0.03)
            noise = torch.randn(flat.shape, generator=self._noise, device=flat.device)
            flat = flat + noise * strength
        return (flat.clamp(0, 1) * 255).round() / 255

    def _light(self, value: Tensor) -> Tensor:
        """Gamma, contrast and brightness of each picture or clip."""
        batch = len(value)
        value = value.clamp(min=1e-3) ** self._uniform(batch, 0.85, 1.18)
        value = (value - 0.5) * self._uniform(batch, 0.88, 1.12) + 0.5
        return value + self._uniform(batch, -0.05, 0.05)

    def _uniform(self, batch: int, low: float, high: float) -> Tensor:
        draw = torch.rand((batch, 1, 1, 1, 1), generator=self._noise, device=self._device)
        return draw * (high - low) + low


def jpeg(value: Tensor, quality: float) -> Tensor:
    """What baseline JPEG with 4:2:0 chroma loses, without the coding.

    Args:
        value: (pictures, 3, height, width), 0 to 1.
        quality: 1 to 100, on libjpeg's scale.
    """
    height, width = value.shape[2:]
    padded = F.pad(value, (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = _YCC.to(value.device)
    ycc = torch.einsum("nchw,dc->ndhw", padded * 255, matrix)
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    luma = _quantise(ycc[:, :1] - 128, (_LUMA * scale).round().clamp(1, 255)) + 128
    chroma = F.avg_pool2d(ycc[:, 1:], 2)
    chroma = _quantise(chroma, (_CHROMA * scale).round().clamp(1, 255))
    chroma = F.interpolate(chroma, scale_factor=2, mode="nearest")
    back = torch.einsum(
        "nchw,dc->ndhw", torch.cat([luma, chroma], 1), torch.linalg.inv(_YCC).to(value.device)
    )
    return back[:, :, :height, :width].div(255).clamp(0, 1)


def _quantise(plane: Tensor, table: Tensor) -> Tensor:
    """Rounds the cosine coefficients of each 8 x 8 block."""
    place = torch.arange(8, dtype=torch.float32)
    basis = torch.cos((2 * place[None] + 1) * place[:, None] * torch.pi / 16) / 2
    basis[0] /= 2**0.5
    basis, table = basis.to(plane.device), table.to(plane.device)
    count, channels, height, width = plane.shape
    blocks = plane.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ ((coefficients / table).round() * table) @ basis
    return blocks.transpose(3, 4).reshape(count, channels, height, width)
