"""Endless varied crops of a few free photographs, for keeping what the image tower knows.

The photographs come with scikit-image, whose docstrings say of each that it is in the public domain
or CC0, or (coins) that no restriction is known. One that says nothing of its licence is left out.
Heavily cropped and mixed, a few pictures carry a teacher's knowledge surprisingly far: Asano and
Saeed, "Extrapolating from a Single Image to a Thousand Classes using Distillation" (2023).
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tools.train_starter.clip_model import SIDE_PX

FILES = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "gravel.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg",
)  # fmt: skip
WEIGHTS = (4, 1, 3, 4, 4, 1, 1, 1, 1, 1, 4)
"""How often each is taken: those with many things in them more often."""
LARGE_PX = 768
"""Side to which photographs are squashed; small crops are taken from this size."""


class Photographs:
    """The photographs on a device, at three sizes.

    Args:
        device: Where crops are wanted.
        seed: Of the choices.
    """

    def __init__(self, device: str, *, seed: int = 0) -> None:
        import skimage
        from PIL import Image

        folder = Path(skimage.__file__).parent / "data"
        self._device = device
        self._choice = random.Random(seed)
        self._levels: list[list[Tensor]] = []
        for name in FILES:
            with Image.open(folder / name) as picture:
                array = np.array(picture.convert("RGB").resize((LARGE_PX, LARGE_PX)))
            large = torch.from_numpy(array).to(device).permute(2, 0, 1).float()[None] / 127.5 - 1
            self._levels.append([large, functional.avg_pool2d(large, 2)])
            self._levels[-1].append(functional.avg_pool2d(self._levels[-1][-1], 2))

    def crops(self, count: int) -> Tensor:
        """Crops of random place, size, aspect and turn, (count, 3, SIDE_PX, SIDE_PX) in -1..1."""
        chosen = self._choice.choices(range(len(FILES)), WEIGHTS, k=max(1, count // 8))
        parts = [self._crops(self._levels[number]) for number in chosen]
        found = torch.cat(parts)[:count]
        while len(found) < count:
            found = torch.cat([found, found[: count - len(found)]])
        return found[torch.randperm(count, device=self._device)]

    def _crops(self, levels: list[Tensor], count: int = 8) -> Tensor:
        """Crops from one photograph; larger ones from its smaller copies, against aliasing."""
        level = self._choice.choice((0, 1, 1, 2, 2, 2))
        low, high = ((0.15, 0.3), (0.3, 0.6), (0.55, 1.0))[level]
        scale = _uniform(count, low, high, self._device)
        aspect = torch.exp(_uniform(count, -0.35, 0.35, self._device))
        wide, tall = (scale * aspect).clamp(max=1), (scale / aspect).clamp(max=1)
        turn = _uniform(count, -0.25, 0.25, self._device) * (torch.rand_like(scale) < 0.5)
        mirror = (torch.rand_like(scale) < 0.5).float() * 2 - 1
        x = (torch.rand_like(scale) * 2 - 1) * (1 - wide)
        y = (torch.rand_like(scale) * 2 - 1) * (1 - tall)
        rows = (
            torch.stack([turn.cos() * wide * mirror, -turn.sin() * tall, x], -1),
            torch.stack([turn.sin() * wide * mirror, turn.cos() * tall, y], -1),
        )
        shape = [count, 3, SIDE_PX, SIDE_PX]
        grid = functional.affine_grid(torch.stack(rows, 1), shape, align_corners=False)
        picture = levels[level].expand(count, -1, -1, -1)
        return functional.grid_sample(
            picture, grid, mode="bilinear", padding_mode="reflection", align_corners=False
        )


def varied(pictures: Tensor, others: Tensor) -> Tensor:
    """Mixes pictures with one another and with others, and changes their colours.

    Args:
        pictures: (n, 3, h, w) in -1..1.
        others: (m, 3, h, w) in -1..1, some of which are cut into a quarter of the pictures.

    Source: CutMix (Yun et al., 2019) and mixup (Zhang et al., 2018).
    """
    count, device = len(pictures), pictures.device
    lot = torch.rand(count, 1, 1, 1, device=device)
    partner = pictures[torch.randperm(count, device=device)]
    if len(others):
        foreign = others[torch.randint(len(others), (count,), device=device)]
        partner = torch.where(torch.rand_like(lot) < 0.4, foreign, partner)
    blend = _uniform(count, 0.25, 0.75, str(device)).view(-1, 1, 1, 1)
    blended = torch.lerp(pictures, partner, blend)
    cut = torch.where(_boxes(count, pictures.shape[2:], device), partner, pictures)
    mixed = torch.where(lot < 0.4, cut, torch.where(lot > 0.85, blended, pictures))
    return _coloured(mixed)


def _boxes(count: int, shape: torch.Size, device: torch.device) -> Tensor:
    """One random rectangle per picture, (count, 1, h, w) bool."""
    height, width = shape
    centre = torch.rand(count, 2, device=device)
    half = _uniform(count * 2, 0.15, 0.45, str(device)).view(count, 2)
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    rows = (y - centre[:, :1]).abs() < half[:, :1]
    columns = (x - centre[:, 1:]).abs() < half[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _coloured(pictures: Tensor) -> Tensor:
    """Brightness, contrast, saturation and hue, for most pictures."""
    count, device = len(pictures), str(pictures.device)
    grey = pictures.mean(1, keepdim=True)
    strength = (torch.rand(count, 1, 1, 1, device=pictures.device) < 0.8).float()

    def factor(spread: float) -> Tensor:
        return 1 + _uniform(count, -spread, spread, device).view(-1, 1, 1, 1) * strength

    found = grey + (pictures - grey) * factor(0.6)
    angle = (_uniform(count, -math.pi, math.pi, device).view(-1, 1, 1, 1) * 0.5) * strength
    turned = torch.rand(count, 1, 1, 1, device=pictures.device) < 0.3
    # Turning the colours about the grey axis mixes each channel with its neighbours.
    cos, sin = angle.cos(), angle.sin() / math.sqrt(3)
    others = found.roll(1, dims=1), found.roll(2, dims=1)
    hue = found * cos + (1 - cos) * found.mean(1, keepdim=True) + sin * (others[1] - others[0])
    found = torch.where(turned, hue, found)
    shift = _uniform(count, -0.2, 0.2, device).view(-1, 1, 1, 1) * strength
    return (found * factor(0.4) + shift).clamp(-1, 1)


def _uniform(count: int, low: float, high: float, device: str) -> Tensor:
    return torch.rand(count, device=device) * (high - low) + low
