"""Noise that backdrops and weather are made of: fixed textures, sampled wherever wanted."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

if TYPE_CHECKING:
    import numpy.typing as npt

SIDE = 512
"""Textures are squares of so many texels and repeat seamlessly."""
DENSITY = 256
"""Texels per shorter picture side at scale 1."""
SMOOTH, GRAIN, DOTS = range(3)
"""Channels of `ground_noise`: rolling clouds, sand, and sparse points of light or petals."""
STREAKS, FLAKES = range(2)
"""Channels of `falling`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The pixels of a picture, and the noise to fill them with.

    Attributes:
        x: (1, 1, 1, width), in shorter sides from the left.
        y: (1, 1, height, 1), as a fraction of the height from the top.
        tall: Height in shorter sides.
        wide: Width in shorter sides.
        height: Pixels.
        noise: `ground_noise()` on the device.
    """

    x: torch.Tensor
    y: torch.Tensor
    tall: float
    wide: float
    height: int
    noise: torch.Tensor

    @classmethod
    def of(cls, height: int, width: int, noise: torch.Tensor) -> View:
        """The view of a picture of `height` x `width` pixels."""
        shorter = min(height, width)
        x = (torch.arange(width, device=noise.device) + 0.5) / shorter
        y = (torch.arange(height, device=noise.device) + 0.5) / height
        return cls(
            x=x.view(1, 1, 1, -1),
            y=y.view(1, 1, -1, 1),
            tall=height / shorter,
            wide=width / shorter,
            height=height,
            noise=noise,
        )

    def below(self, edge: torch.Tensor) -> torch.Tensor:
        """1 under the line at `edge` (fraction of the height), 0 over it, smooth between."""
        return ((self.y - edge) * self.height + 0.5).clamp(0, 1)


def sample(texture: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Bilinear look-up, mirrored beyond the borders.

    Args:
        texture: (channels, rows, columns).
        u: Column in texels, broadcastable with `v` to (n, 1, h, w).
        v: Row in texels.

    Returns:
        (n, channels, h, w).
    """
    rows, columns = texture.shape[-2:]
    across = u * (2 / columns) - 1 + torch.zeros_like(v)
    down = v * (2 / rows) - 1 + torch.zeros_like(u)
    grid = torch.cat((across, down), dim=1).permute(0, 2, 3, 1)
    return F.grid_sample(
        texture.expand(len(grid), -1, -1, -1), grid, padding_mode="reflection", align_corners=False
    )


@functools.cache
def colour(code: int, device: torch.device) -> torch.Tensor:
    """0xRRGGBB as (3, 1, 1), each channel from 0 to 1."""
    channels = [(code >> shift & 255) / 255 for shift in (16, 8, 0)]
    return torch.tensor(channels, device=device).view(3, 1, 1)


def mix(first: torch.Tensor, second: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """From `first` at share 0 to `second` at share 1."""
    return first + (second - first) * share


def step(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """0 up to `low`, 1 from `high`, smooth between."""
    share = ((value - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def scatter(number: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
    """A random value from 0 to 1 for each whole number: the usual sine hash of shaders."""
    return torch.frac(torch.sin(number * 12.9898 + phase * 78.233) * 4375.85453).abs()


@functools.cache
def ground_noise() -> npt.NDArray[np.float32]:
    """(3, SIDE, SIDE) from 0 to 1: `SMOOTH`, `GRAIN`, `DOTS`."""
    rng = np.random.default_rng(7)
    grain = _filtered(rng, lambda f: np.exp(-((f / 110) ** 2)))
    return np.stack(
        [
            _filtered(rng, lambda f: np.where(f > 2, np.maximum(f, 1) ** -1.7, 0)),
            grain,
            _points(rng, count=900, radius=(0.8, 1.7)),
        ]
    )


@functools.cache
def falling() -> npt.NDArray[np.float32]:
    """(2, 2 * SIDE, 2 * SIDE) from 0 to 1: `STREAKS` of rain and snow `FLAKES`, tiled twice."""
    rng = np.random.default_rng(8)
    streaks = _points(rng, count=330, radius=(1.0, 1.3), stretch=22)
    flakes = _points(rng, count=330, radius=(1.6, 3.6))
    return np.tile(np.stack([streaks, flakes]), (1, 2, 2))


def _filtered(
    rng: np.random.Generator, gain: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
) -> npt.NDArray[np.float32]:
    """White noise through a gain over frequency (cycles per SIDE), spread evenly over 0 to 1."""
    cycles = np.fft.fftfreq(SIDE) * SIDE
    frequency = np.hypot(cycles[:, None], cycles[None, :])
    spectrum = np.fft.fft2(rng.standard_normal((SIDE, SIDE))) * gain(frequency)
    spectrum[0, 0] = 0
    field = np.fft.ifft2(spectrum).real
    field /= field.std()
    # The distribution function of the normal law turns a bell into an even spread.
    even = 1 / (1 + np.exp(-field * math.pi / math.sqrt(3)))
    return np.asarray(even, dtype=np.float32)


def _points(
    rng: np.random.Generator, *, count: int, radius: tuple[float, float], stretch: float = 1.0
) -> npt.NDArray[np.float32]:
    """Soft points, `stretch` times as tall as wide, that wrap around the borders."""
    field = np.zeros((SIDE, SIDE), dtype=np.float32)
    for row, column, size, bright in zip(
        rng.uniform(0, SIDE, count),
        rng.uniform(0, SIDE, count),
        rng.uniform(*radius, count),
        rng.uniform(0.55, 1.0, count),
        strict=True,
    ):
        reach_x, reach_y = math.ceil(size * 3), math.ceil(size * 3 * stretch)
        xs = np.arange(math.floor(column) - reach_x, math.floor(column) + reach_x + 1)
        ys = np.arange(math.floor(row) - reach_y, math.floor(row) + reach_y + 1)
        distance = np.hypot((xs[None, :] - column) / size, (ys[:, None] - row) / (size * stretch))
        point = (bright * np.clip(1.7 - distance, 0, 1)).astype(np.float32)
        window = np.ix_(ys % SIDE, xs % SIDE)
        field[window] = np.maximum(field[window], point)
    return field
