"""Backdrops: sky, ground and light, made from place, time, weather and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from secondglance.scenes.places import PAINTERS, Ground, horizon
from secondglance.scenes.textures import DENSITY, DOTS, SIDE, SMOOTH, View, mix, sample, step

if TYPE_CHECKING:
    import numpy.typing as npt

CHANCES = 40
DAY, SUNSET, NIGHT = range(3)
CLEAR, RAIN, SNOW, FOG = range(4)
"""Numbers of the times and weathers, in the order of `vocabulary`."""
SKY = (
    (0x2F7FE0, 0x74B4F2, 0xD6EDFB),
    (0x4B3C86, 0xE8617A, 0xFFC267),
    (0x080D2C, 0x142152, 0x32457F),
)
"""By time: zenith, middle, and above the horizon."""
CLOUDS = (0xFFFFFF, 0xFF9C86, 0x3A4774)
OVERCAST = (
    (0, 0x717D8B, 0x9DAEC3, 0xC9D1D8),
    (0, 0x85626A, 0xA98A98, 0xDDAF98),
    (0, 0x1E2538, 0x36415E, 0x4C566E),
)
"""By time and weather: what hides the sky."""
GREYNESS = (0.0, 0.82, 0.82, 0.9)
LIGHT = ((1.0, 1.0, 1.0), (1.0, 0.77, 0.66), (0.33, 0.38, 0.56))
"""By time: what daylight colours are multiplied with."""
DIMNESS = (1.0, 0.74, 0.95, 1.0)
FADING = (0.0, 0.35, 0.15, 0.0)
"""By weather: how much colours lose towards grey."""
SETTLED = (0.5, 0.42, 0.38, 0.1, 0.5, 0.5, 0.42, 0.0)
"""By place: how white the ground becomes in falling snow."""
LAMP = (1.0, 0.83, 0.42)
FRESH_SNOW = (0.93, 0.96, 1.0)
MIRRORED = 0.5
"""How much of the sky's colour water takes on."""


def chances(seeds: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Even random numbers from 0 to 1, (n, CHANCES), by the splitmix64 generator's finaliser."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, CHANCES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = seeds.astype(np.uint64)[:, None] * np.uint64(0xD1342543DE82EF95) + counter
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    return np.asarray((bits >> np.uint64(40)) / (1 << 24), dtype=np.float32)


def palette(codes: object) -> npt.NDArray[np.float32]:
    """0xRRGGBB codes of any shape as channels from 0 to 1, along a new last axis."""
    packed = np.asarray(codes, dtype=np.int64)
    channels = np.stack([packed >> shift & 255 for shift in (16, 8, 0)], axis=-1)
    return np.asarray(channels / 255, dtype=np.float32)


def paint(view: View, backdrops: npt.NDArray[np.int64]) -> torch.Tensor:
    """Backdrops without anything that falls.

    Args:
        view: The pixels.
        backdrops: (n, 4): place, time, weather, seed.

    Returns:
        float32 (n, h, w, 3) from 0 to 1 on the view's device.
    """
    place, time, weather, seeds = backdrops.T
    device = view.x.device
    # Pictures of one place are painted together, so each painter runs once.
    order = np.argsort(place, kind="stable")
    chance = torch.from_numpy(chances(seeds)[order]).to(device)[:, :, None, None]
    sky, low = _sky(view, chance, time[order], weather[order])
    starts = np.searchsorted(place[order], np.arange(len(PAINTERS) + 1))
    painted = torch.empty_like(sky)
    for number, painter in enumerate(PAINTERS):
        rows = slice(int(starts[number]), int(starts[number + 1]))
        if rows.start == rows.stop:
            continue
        ground = painter(view, chance[rows, :16])
        lit = _light(view, ground, chance[rows], low[rows], number, time[order][rows],
                     weather[order][rows])  # fmt: skip
        painted[rows] = mix(sky[rows], lit, ground.cover)
    painted = _fog(view, painted, chance, time[order], weather[order])
    back = torch.from_numpy(np.argsort(order)).to(device)
    return painted.permute(0, 2, 3, 1)[back].clamp_(0, 1).contiguous()


def _table(values: object, device: torch.device) -> torch.Tensor:
    """Per-picture values as (n, channels, 1, 1)."""
    table = np.asarray(values, dtype=np.float32)
    return torch.from_numpy(table.reshape(len(table), -1, 1, 1)).to(device)


def _sky(
    view: View,
    chance: torch.Tensor,
    time: npt.NDArray[np.int64],
    weather: npt.NDArray[np.int64],
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sky, (n, 3, h, w), and its colour above the horizon, (n, 3, 1, 1)."""
    device = view.x.device
    line = horizon(chance)
    jitter = 0.93 + 0.14 * chance[:, 20:23]
    zenith, middle, low = (_table(palette(SKY)[time, stop], device) * jitter for stop in range(3))
    down = (view.y / line).clamp(0, 1)
    sky = mix(zenith, middle, (down * 2).clamp(0, 1))
    sky = mix(sky, low, (down * 2 - 1).clamp(0, 1))
    u = view.x * (0.42 * DENSITY) + chance[:, 23:24] * SIDE
    v = view.y * (view.tall * 1.25 * DENSITY) + chance[:, 24:25] * SIDE
    veil = sample(view.noise[SMOOTH : SMOOTH + 1], u, v)
    amount = _table(np.array([0.85, 0.75, 0.35])[time] * (weather == CLEAR), device)
    threshold = 0.5 + 0.3 * chance[:, 25:26]
    clouds = step(veil - threshold, 0.0, 0.32) * amount
    sky = mix(sky, _table(palette(CLOUDS)[time], device), clouds)
    stars = sample(view.noise[DOTS : DOTS + 1], view.x * DENSITY + chance[:, 26:27] * SIDE,
                   view.y * (view.tall * DENSITY) + chance[:, 27:28] * SIDE)  # fmt: skip
    shining = _table((time == NIGHT) & (weather == CLEAR), device)
    sky = sky + stars * stars * shining * (1 - 0.7 * down)
    # The sun itself would look like an object; its glow does not.
    sun = view.wide * (0.2 + 0.6 * chance[:, 28:29])
    distance = ((view.x - sun) ** 2 + ((view.y - line) * view.tall) ** 2) * 14
    glow = torch.exp(-distance) * _table(0.55 * ((time == SUNSET) & (weather == CLEAR)), device)
    sky = mix(sky, _table(np.broadcast_to([1.0, 0.93, 0.62], (len(time), 3)), device), glow)
    cloudy = _table(palette(OVERCAST)[time, weather], device)
    heavy = cloudy * (0.86 + 0.28 * veil)
    greyness = _table(np.array(GREYNESS)[weather], device)
    return mix(sky, heavy, greyness), mix(low, cloudy, greyness)


def _light(
    view: View,
    ground: Ground,
    chance: torch.Tensor,
    low: torch.Tensor,
    place: int,
    time: npt.NDArray[np.int64],
    weather: npt.NDArray[np.int64],
) -> torch.Tensor:
    """The ground of one place as it looks at the time and in the weather of each picture."""
    device = view.x.device
    surface = ground.surface * (0.96 + 0.08 * chance[:, 30:33])
    u = view.x * (0.9 * DENSITY) + chance[:, 33:34] * SIDE
    v = view.y * (view.tall * 2.2 * DENSITY) + chance[:, 34:35] * SIDE
    patches = sample(view.noise[SMOOTH : SMOOTH + 1], u, v)
    white = _table(SETTLED[place] * (weather == SNOW), device) * (
        0.6 + 0.8 * step(patches, 0.3, 0.6)
    )
    fresh = _table(np.broadcast_to(FRESH_SNOW, (len(time), 3)), device)
    surface = mix(surface, fresh, white)
    grey = surface.mean(dim=1, keepdim=True)
    surface = mix(surface, grey, _table(np.array(FADING)[weather], device))
    light = np.array(LIGHT)[time] * np.array(DIMNESS)[weather][:, None]
    surface = surface * _table(light, device)
    if ground.water is not None:
        surface = mix(surface, low * (0.6 + 0.8 * grey), MIRRORED * ground.water)
    if ground.glow is not None:
        strength = _table(np.array([0.0, 0.45, 0.95])[time], device)
        lamps = _table(np.broadcast_to(LAMP, (len(time), 3)), device)
        surface = mix(surface, lamps, strength * ground.glow)
    return surface


def _fog(
    view: View,
    painted: torch.Tensor,
    chance: torch.Tensor,
    time: npt.NDArray[np.int64],
    weather: npt.NDArray[np.int64],
) -> torch.Tensor:
    """Fog hides the distance more than the foreground, and drifts in banks."""
    device = view.x.device
    rows = np.flatnonzero(weather == FOG)
    if len(rows) == 0:
        return painted
    index = torch.from_numpy(rows).to(device)
    some = chance[index]
    u = view.x * (0.35 * DENSITY) + some[:, 35:36] * SIDE
    v = view.y * (view.tall * DENSITY) + some[:, 36:37] * SIDE
    bank = sample(view.noise[SMOOTH : SMOOTH + 1], u, v)
    far = 1 - ((view.y - horizon(some)) / 0.5).clamp(0, 1)
    thick = (0.36 + 0.4 * far + 0.2 * (bank - 0.5)).clamp(0, 0.92)
    haze = _table(palette(OVERCAST)[time[rows], FOG], device)
    painted[index] = mix(painted[index], haze, thick)
    return painted
