"""The sprites of the object kinds: the atlas beside kinds.csv, and its pyramid for the renderer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.scenes.vocabulary import kinds

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

ATLAS = Path(__file__).parent / "sprites.webp"
CELL_PX = 128
COLUMNS = 20
PADDED_PX = 144
"""A cell with room for the rim around the sprite."""
LEVELS = 5
TEXEL = 8
"""Bytes per texel: red, green, blue, low shade, high shade, cover (all times cover), rim, 0."""
RED, GREEN, BLUE, LOW, HIGH, COVER, RIM = range(7)
RIM_PX = 5
"""How far the rim is from the sprite's edge where it ends, in cell pixels; half of it is soft."""
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LEAST_CONTRAST = 0.22
"""Shades nearer together than this are not pulled apart further: it would only show noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """All sprites at all levels of detail in one row of texels.

    Attributes:
        texels: int64 (texels,), each `TEXEL` bytes.
        starts: First texel of each level's first cell, (LEVELS,).
        sides: Side of a cell at each level without its empty border of one texel, (LEVELS,).
        brightness: Mean luminance of each kind, 0 to 1.
    """

    texels: torch.Tensor
    starts: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64]
    brightness: npt.NDArray[np.float32]


def cells() -> npt.NDArray[np.uint8]:
    """The sprites, (kinds, CELL_PX, CELL_PX, 4) RGBA with straight alpha."""
    from PIL import Image

    with Image.open(ATLAS) as picture:
        atlas = np.asarray(picture.convert("RGBA"))
    rows = atlas.shape[0] // CELL_PX
    grid = atlas.reshape(rows, CELL_PX, COLUMNS, CELL_PX, 4).swapaxes(1, 2)
    return grid.reshape(rows * COLUMNS, CELL_PX, CELL_PX, 4)[: len(kinds())].copy()


@functools.cache
def pyramid() -> Pyramid:
    """Every sprite at `LEVELS` sizes, each half the one before, on the CPU.

    Levels are averages of premultiplied texels, so a look-up between four of them is correct at
    the edges too. Made once, which takes seconds; it is not to be changed.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812

    straight = cells().astype(np.float32) / 255
    cover, luma = straight[..., 3], straight[..., :3] @ np.array(LUMA, dtype=np.float32)
    shade = np.stack([_stretched(luma[kind], cover[kind]) for kind in range(len(luma))])
    low, high = np.minimum(shade * 2, 1), np.maximum(shade * 2 - 1, 0)
    layers = np.concatenate([straight[..., :3], low[..., None], high[..., None]], axis=-1)
    layers = np.concatenate([layers * cover[..., None], cover[..., None]], axis=-1)
    border = (PADDED_PX - CELL_PX) // 2
    level = F.pad(torch.from_numpy(layers).permute(0, 3, 1, 2), [border] * 4)
    level = torch.cat([level, _rim(level[:, COVER:])], dim=1)
    level = F.pad(level, [0, 0, 0, 0, 0, TEXEL - level.shape[1]])
    blocks, starts, sides, total = [], [], [], 0
    for _ in range(LEVELS):
        block = F.pad((level * 255).round().to(torch.uint8), [1] * 4)
        block = block.permute(0, 2, 3, 1).contiguous().view(torch.int64).view(-1)
        blocks.append(block)
        starts.append(total)
        sides.append(level.shape[-1])
        total += len(block)
        level = F.avg_pool2d(level, 2)
    weight = cover.sum(axis=(1, 2))
    return Pyramid(
        texels=torch.cat(blocks),
        starts=np.array(starts, dtype=np.int64),
        sides=np.array(sides, dtype=np.int64),
        brightness=(luma * cover).sum(axis=(1, 2)) / np.maximum(weight, 1e-6),
    )


def _stretched(
    luma: npt.NDArray[np.float32], cover: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Luminance spread over 0 to 1 with the sprite's median at 0.5.

    The median carries the pure colour of a tint, so that most of a sprite shows it.
    """
    seen = luma[cover > 0.5]
    dark, median, bright = np.percentile(seen, (2, 50, 98)) if seen.size else (0.0, 0.5, 1.0)
    below = (luma - median) / max(median - dark, LEAST_CONTRAST)
    above = (luma - median) / max(bright - median, LEAST_CONTRAST)
    shade = 0.5 + 0.5 * np.where(luma < median, below, above)
    return np.asarray(np.clip(shade, 0, 1), dtype=np.float32)


def _rim(cover: torch.Tensor) -> torch.Tensor:
    """A soft band around the covered part, (kinds, 1, side, side)."""
    import torch.nn.functional as F  # noqa: N812

    reach = RIM_PX // 2
    wide = F.max_pool2d(cover, 2 * reach + 1, stride=1, padding=reach)
    for _ in range(2):
        wide = F.avg_pool2d(wide, 2 * reach + 1, stride=1, padding=reach)
    return wide * (1 - cover)
