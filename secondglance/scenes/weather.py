"""What falls in front of everything: rain and snow, moving with time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from secondglance.scenes.backdrop import NIGHT, RAIN, SNOW, chances, palette
from secondglance.scenes.textures import DENSITY, FLAKES, SIDE, STREAKS, View, sample

if TYPE_CHECKING:
    import numpy.typing as npt

# Scale of the texture, speed in shorter sides per second, slant or sway, strength.
RAIN_LAYERS = ((0.9, 2.3, 0.16, 0.55), (1.5, 1.7, 0.13, 0.38))
SNOW_LAYERS = ((0.75, 0.22, 0.03, 0.95), (1.2, 0.16, 0.02, 0.8), (1.9, 0.11, 0.012, 0.5))
RAIN_COLOURS = palette((0xE9F1F8, 0xF6E6E0, 0xA9B8D0))
"""By time of day."""
SNOW_COLOURS = palette((0xFFFFFF, 0xFFF4EE, 0xD5DEF0))


def fall(
    view: View,
    canvas: torch.Tensor,
    falling: torch.Tensor,
    backdrops: npt.NDArray[np.int64],
    times_s: npt.NDArray[np.float64],
) -> None:
    """Draws rain and snow over the pictures in which it falls, in place.

    Args:
        view: The pixels.
        canvas: float32 (n * frames, h, w, 3) from 0 to 1.
        falling: `textures.falling()` on the canvas's device.
        backdrops: (n, 4): place, time, weather, seed.
        times_s: (frames,).
    """
    for weather, layers, colours, channel in (
        (RAIN, RAIN_LAYERS, RAIN_COLOURS, STREAKS),
        (SNOW, SNOW_LAYERS, SNOW_COLOURS, FLAKES),
    ):
        pictures = np.flatnonzero(backdrops[:, 2] == weather)
        if len(pictures) == 0:
            continue
        frames = (pictures[:, None] * len(times_s) + np.arange(len(times_s))).reshape(-1)
        seconds = np.tile(times_s, len(pictures))
        start = np.repeat(chances(backdrops[pictures, 3]), len(times_s), axis=0)
        time = np.repeat(backdrops[pictures, 1], len(times_s))
        drops = _drops(view, falling[channel : channel + 1], layers, start, seconds,
                       slanted=weather == RAIN)  # fmt: skip
        if weather == RAIN:
            drops = drops * _column(np.where(time == NIGHT, 0.7, 1.0), drops.device)
        index = torch.from_numpy(frames).to(canvas.device)
        tint = torch.from_numpy(colours[time]).to(canvas.device)[:, None, None, :]
        cover = drops.permute(0, 2, 3, 1)
        below = canvas[index]
        canvas[index] = below + (tint - below) * cover


def _drops(
    view: View,
    texture: torch.Tensor,
    layers: tuple[tuple[float, float, float, float], ...],
    start: npt.NDArray[np.float32],
    seconds: npt.NDArray[np.float64],
    *,
    slanted: bool,
) -> torch.Tensor:
    """Cover of all layers together, (frames, 1, h, w)."""
    device = view.x.device
    free = torch.ones((), device=device)
    for number, (scale, speed, drift, strength) in enumerate(layers):
        texels = DENSITY * scale
        phase = start[:, 37 + number].astype(np.float64)
        aside = phase * SIDE
        if not slanted:
            sway = np.sin(2 * math.pi * (seconds * 0.4 + phase)) * drift
            aside = aside + sway * texels
        down = (start[:, 36 - number] * SIDE - seconds * speed * texels) % SIDE
        slant = drift if slanted else 0.0
        # Where drops fall slanted, they must also travel along the slant.
        if slanted:
            aside = aside + seconds * speed * texels * slant
        u = view.x * texels + (view.y * view.tall * texels) * slant + _column(aside % SIDE, device)
        v = view.y * (view.tall * texels) + _column(down, device)
        free = free * (1 - strength * sample(texture, u, v))
    return 1 - free


def _column(values: npt.NDArray[np.float64], device: torch.device) -> torch.Tensor:
    """One value per frame, (frames, 1, 1, 1)."""
    return torch.from_numpy(values.astype(np.float32)).to(device).view(-1, 1, 1, 1)
