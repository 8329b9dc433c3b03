"""The eight grounds. Each function paints one place by daylight, for a batch of pictures.

Every function takes the view and `chance`, (n, 16, 1, 1) even random numbers from 0 to 1, of which
the first settles the horizon, and returns a `Ground`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from secondglance.scenes.textures import (
    DENSITY,
    DOTS,
    GRAIN,
    SIDE,
    SMOOTH,
    View,
    colour,
    mix,
    sample,
    scatter,
    step,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What hides the sky.

    Attributes:
        surface: (n, 3, h, w) colours in daylight.
        cover: (n, 1, h, w), 1 where ground hides the sky.
        glow: (n, 1, h, w), 1 where lamps shine by night, or None.
        water: (n, 1, h, w), 1 where the surface mirrors the sky, or None.
    """

    surface: torch.Tensor
    cover: torch.Tensor
    glow: torch.Tensor | None = None
    water: torch.Tensor | None = None


def horizon(chance: torch.Tensor) -> torch.Tensor:
    """Height of the horizon, (n, 1, 1, 1), as a fraction of the height from the top."""
    return 0.35 + 0.25 * chance[:, :1]


def meadow(view: View, chance: torch.Tensor) -> Ground:
    """Green with blades and flowers, a low hill behind."""
    line, device = horizon(chance), view.x.device
    hill = line - 0.02 - 0.05 * _profile(view, chance[:, 1:2], scale=0.35)
    near = _nearness(view, line)
    surface = mix(colour(0xB4D65F, device), colour(0x3C9632, device), near**0.7)
    surface = mix(colour(0x86B56B, device), surface, view.below(line))
    patches = _noise(view, chance[:, 2:3], SMOOTH, across=0.6, down=1.4)
    blades = _noise(view, chance[:, 3:4], GRAIN, across=1.6, down=0.22)
    surface = surface * (0.88 + 0.24 * patches + 0.5 * (blades - 0.5) * (0.2 + near))
    flowers = step(_receding(view, chance[:, 4:5], DOTS, near), 0.35, 0.6) * step(near, 0.06, 0.2)
    petals = mix(colour(0xFFF3B0, device), colour(0xF7A8CF, device), step(patches, 0.45, 0.55))
    return Ground(surface=mix(surface, petals, flowers), cover=view.below(hill))


def beach(view: View, chance: torch.Tensor) -> Ground:
    """Sand in front of a strip of sea."""
    line, device = horizon(chance), view.x.device
    curve = torch.sin(view.x * (2 + 3 * chance[:, 1:2]) + 6.3 * chance[:, 2:3])
    shore = line + (1 - line) * (0.3 + 0.14 * chance[:, 3:4]) + 0.025 * curve
    depth = ((view.y - line) / (shore - line)).clamp(0, 1)
    swell = _noise(view, chance[:, 4:5], GRAIN, across=0.18, down=1.2)
    water = mix(colour(0x1C6DB8, device), colour(0x5CCFD2, device), depth**1.5)
    water = water * (0.9 + 0.2 * swell)
    grain = _noise(view, chance[:, 5:6], GRAIN, across=1.5, down=1.5)
    ripples = _noise(view, chance[:, 6:7], SMOOTH, across=0.5, down=1.6)
    sand = mix(colour(0xE3C88F, device), colour(0xF6E6BC, device), ripples)
    sand = sand * (0.92 + 0.16 * grain) * (0.78 + 0.22 * step(view.y - shore, 0.0, 0.05))
    dry = view.below(shore)
    foam = torch.exp(-(((view.y - shore + 0.008) / 0.011) ** 2)) * (0.5 + 0.5 * swell)
    surface = mix(mix(water, sand, dry), torch.ones_like(sand), foam)
    return Ground(surface=surface, cover=view.below(line), water=1 - dry)


def desert(view: View, chance: torch.Tensor) -> Ground:
    """Dunes one behind the other, lit from one side."""
    return _dunes(view, chance, far=0xD9A066, lit=0xF2BE74, dark=0xB9763C, height=0.09, ripple=0.07)


def snowfield(view: View, chance: torch.Tensor) -> Ground:
    """White drifts with blue shadows."""
    return _dunes(view, chance, far=0xD6E6F6, lit=0xFCFEFF, dark=0xAAC6EA, height=0.05, ripple=0.02)


def forest(view: View, chance: torch.Tensor) -> Ground:
    """Three rows of firs, the nearest the darkest, over mossy ground."""
    line, device = horizon(chance), view.x.device
    near = _nearness(view, line)
    moss = _noise(view, chance[:, 1:2], SMOOTH, across=0.8, down=1.8)
    grain = _noise(view, chance[:, 2:3], GRAIN, across=1.2, down=0.9)
    surface = mix(colour(0x57763A, device), colour(0x33502A, device), near)
    surface = surface * (0.7 + 0.4 * moss + 0.4 * (grain - 0.5))
    cover = view.below(line)
    rows = (
        (0.0, 0.085, 0.30, 0x6D947C),
        (0.025, 0.12, 0.38, 0x3F6E4C),
        (0.06, 0.19, 0.5, 0x1F4A2E),
    )
    for number, (lower, width, height, code) in enumerate(rows):
        firs = _firs(view, chance[:, 3 + number : 4 + number], line + lower, width, height)
        surface = mix(surface, colour(code, device) * (0.85 + 0.3 * grain), firs)
        cover = torch.maximum(cover, firs)
    return Ground(surface=surface, cover=cover)


def mountains(view: View, chance: torch.Tensor) -> Ground:
    """Snow-capped peaks, foothills, and a green slope in front."""
    line, device = horizon(chance), view.x.device
    rough = _profile(view, chance[:, 1:2], scale=1.3) - 0.5
    flank = _noise(view, chance[:, 2:3], SMOOTH, across=1.5, down=1.5)
    surface = colour(0x7E8CAE, device).expand(len(chance), 3, 1, 1)
    cover = torch.zeros_like(flank)
    peaks = ((0.46, 0.95, 0x8C9BBF, 0xFFFFFF), (0.25, 1.7, 0x5C6E8C, 0xE6EEF7))
    for number, (height, frequency, code, snow) in enumerate(peaks):
        phase = chance[:, 3 + number : 4 + number]
        climb, slope = _peaks(view, phase, frequency)
        ridge = line + 0.03 - height * (0.25 + 0.75 * climb) - 0.035 * rough
        rock = colour(code, device) * (0.78 + 0.3 * flank) * torch.where(slope > 0, 1.12, 0.78)
        capped = step(0.26 * height + 0.08 * (flank - 0.5) - (view.y - ridge), -0.01, 0.01)
        capped = capped * step(climb, 0.3, 0.5)
        white = colour(snow, device) * torch.where(slope > 0, 1.0, 0.8)
        shape = view.below(ridge)
        surface, cover = mix(surface, mix(rock, white, capped), shape), torch.maximum(cover, shape)
    near = _nearness(view, line)
    grass = mix(colour(0x7A9B62, device), colour(0x476B3A, device), near)
    slope_edge = line + 0.04 * (_profile(view, chance[:, 5:6], scale=0.5) - 0.5)
    shape = view.below(slope_edge)
    surface = mix(surface, grass * (0.8 + 0.4 * flank), shape)
    return Ground(surface=surface, cover=torch.maximum(cover, shape))


def city(view: View, chance: torch.Tensor) -> Ground:
    """Two rows of buildings with windows, and a street that runs towards them."""
    line, device = horizon(chance), view.x.device
    near = _nearness(view, line)
    grain = _noise(view, chance[:, 1:2], GRAIN, across=1.2, down=1.2)
    # In a street seen along its axis, a stripe's width grows with nearness.
    aside = (view.x - view.wide * (0.35 + 0.3 * chance[:, 2:3])).abs()
    reach = near + 0.04
    road = step(0.62 * reach - aside, -0.004, 0.004)
    dashes = step(torch.frac(1.5 / (near + 0.12) + chance[:, 3:4]) - 0.45, -0.06, 0.06)
    paint = step(0.025 * reach - aside, -0.003, 0.003) * dashes
    paint = paint + step(0.02 * reach - (aside - 0.56 * reach).abs(), -0.003, 0.003)
    surface = mix(colour(0xA9A59C, device), colour(0x54575E, device), road) * (0.94 + 0.12 * grain)
    surface = mix(surface, colour(0xF2E9C9, device), paint.clamp(0, 1))
    cover = view.below(line)
    glow = torch.zeros_like(cover)
    rows = ((0.095, 0.40, 0x9FB1C6, 0xB7C4D2), (0.15, 0.27, 0x6F7F93, 0xB08A72))
    for number, (width, height, cold, warm) in enumerate(rows):
        phase = chance[:, 4 + number : 5 + number]
        column = view.x / width + 7 * phase
        house = torch.floor(column)
        tone = scatter(house, phase + 0.3)
        top = line - height * (0.3 + 0.7 * scatter(house, phase))
        inside = torch.frac(column)
        body = view.below(top) * (1 - view.below(line)) * step(inside, 0.0, 0.05)
        floors = (view.y - top) * view.tall / 0.04
        panes = step(torch.frac(inside * 4) - 0.3, -0.08, 0.08)
        panes = panes * step(torch.frac(floors) - 0.4, -0.1, 0.1) * step(inside, 0.08, 0.14)
        panes = panes * (floors > 0.6)
        lamp = scatter(torch.floor(inside * 4) + 5 * torch.floor(floors) + 31 * house, phase)
        wall = mix(colour(cold, device), colour(warm, device), step(tone, 0.4, 0.6))
        wall = wall * (0.75 + 0.4 * tone)
        wall = mix(wall, colour(0x3E5876, device), 0.75 * panes)
        surface, cover = mix(surface, wall, body), torch.maximum(cover, body)
        glow = mix(glow, panes * (lamp > 0.4), body)
    return Ground(surface=surface, cover=cover, glow=glow)


def sea(view: View, chance: torch.Tensor) -> Ground:
    """Water up to the horizon, waves that grow towards the front."""
    line, device = horizon(chance), view.x.device
    near = _nearness(view, line)
    surface = mix(colour(0x4A9CCB, device), colour(0x0B4C86, device), near**0.6)
    bend = _noise(view, chance[:, 1:2], SMOOTH, across=0.5, down=1.2)
    rows = torch.sin(26 * torch.log(near + 0.09) + 9 * bend + 6.3 * chance[:, 2:3])
    chop = _receding(view, chance[:, 3:4], GRAIN, near)
    waves = 0.6 * rows + 1.6 * (chop - 0.5)
    surface = surface * (1 + 0.2 * waves)
    crests = step(waves, 0.75, 1.15) * step(near, 0.02, 0.15)
    surface = mix(surface, colour(0xEAF6FA, device), 0.75 * crests)
    cover = view.below(line)
    return Ground(surface=surface, cover=cover, water=cover)


PAINTERS: tuple[Callable[[View, torch.Tensor], Ground], ...] = (
    meadow,
    beach,
    desert,
    snowfield,
    forest,
    mountains,
    city,
    sea,
)
"""In the order of `vocabulary.PLACES`."""


def _nearness(view: View, line: torch.Tensor) -> torch.Tensor:
    """0 at the horizon, 1 at the lower border."""
    return ((view.y - line) / (1 - line)).clamp(0, 1)


def _noise(
    view: View, chance: torch.Tensor, channel: int, *, across: float, down: float
) -> torch.Tensor:
    """Noise as on a wall: `across` and `down` are frequencies relative to the texture's own."""
    u = view.x * (DENSITY * across) + chance * SIDE
    v = view.y * (view.tall * DENSITY * down) + torch.frac(chance * 97) * SIDE
    return sample(view.noise[channel : channel + 1], u, v)


def _receding(view: View, chance: torch.Tensor, channel: int, near: torch.Tensor) -> torch.Tensor:
    """Noise as on the ground: finer towards the horizon."""
    closeness = 1 / (0.3 + near)
    u = (view.x - 0.5 * view.wide) * closeness * (0.8 * DENSITY) + chance * SIDE
    v = closeness * (0.7 * DENSITY) + torch.frac(chance * 97) * SIDE
    return sample(view.noise[channel : channel + 1], u, v)


def _profile(view: View, chance: torch.Tensor, *, scale: float) -> torch.Tensor:
    """A smooth random line from 0 to 1, (n, 1, 1, w)."""
    u = view.x * (DENSITY * scale) + chance * SIDE
    v = torch.frac(chance * 97) * SIDE
    return sample(view.noise[SMOOTH : SMOOTH + 1], u, v)


def _dunes(
    view: View,
    chance: torch.Tensor,
    *,
    far: int,
    lit: int,
    dark: int,
    height: float,
    ripple: float,
) -> Ground:
    """Four crests, each with a lit upper and a shaded lower side."""
    line, device = horizon(chance), view.x.device
    grain = _noise(view, chance[:, 1:2], GRAIN, across=1.3, down=1.3)
    surface = colour(far, device).expand(len(chance), 3, 1, 1)
    cover = torch.zeros_like(grain)
    for number, depth in enumerate((0.0, 0.16, 0.4, 0.72)):
        phase = chance[:, 2 + number : 3 + number]
        wave = torch.sin(view.x * (2.2 + 2.5 * phase) * (1.6 - depth) + 40 * phase)
        bumps = _profile(view, torch.frac(phase * 13), scale=0.25) - 0.5
        crest = line + (1 - line) * depth + height * (0.4 + depth) * (0.7 * wave + 0.8 * bumps)
        fall = (view.y - crest) / (0.1 + 0.25 * depth)
        side = (0.5 + 0.45 * wave + 0.3 * bumps).clamp(0, 1)
        share = (step(fall, 0.0, 1.0) * (0.45 + 0.55 * side)).clamp(0, 1)
        bands = torch.sin(260 * (view.y - crest) / (0.5 + depth) + 30 * bumps)
        body = mix(colour(lit, device), colour(dark, device), share)
        body = mix(body, colour(far, device), torch.full_like(share, 0.5 * (1 - depth) ** 2))
        body = body * (1 + ripple * bands * step(fall, 0.0, 0.3) + 0.08 * (grain - 0.5))
        shape = view.below(crest)
        surface, cover = mix(surface, body, shape), torch.maximum(cover, shape)
    return Ground(surface=surface, cover=cover)


def _firs(
    view: View, phase: torch.Tensor, foot: torch.Tensor, width: float, height: float
) -> torch.Tensor:
    """Cover of a row of firs; `width` in shorter sides, `height` as a fraction of the height."""
    column = view.x / width + 9 * phase
    tree = torch.floor(column)
    tall = height * (0.55 + 0.45 * scatter(tree, phase))
    from_axis = (torch.frac(column) - 0.5).abs() * 2
    down = (view.y - (foot - tall)) / tall
    # Branches hang in tiers: within each the outline widens, then jumps back.
    tier = torch.frac(down * 6)
    outline = (down * 0.95 - 0.12 * (1 - tier)).clamp(0, 1.1)
    softness = 2.5 / (width * view.height / view.tall)
    return step(outline - from_axis, 0.0, softness) * (1 - view.below(foot))


def _peaks(view: View, phase: torch.Tensor, frequency: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Pointed heights from 0 to 1 and their slopes, each (n, 1, 1, w)."""
    climb, slope = torch.zeros_like(phase * view.x), torch.zeros_like(phase * view.x)
    for number, weight in enumerate((0.62, 0.26, 0.12)):
        pitch = frequency * (2.3**number)
        place = torch.frac(view.x * pitch + torch.frac(phase * 17 * (number + 1)) + 1)
        climb = climb + weight * (1 - (2 * place - 1).abs())
        slope = slope + weight * pitch * torch.sign(0.5 - place)
    return climb, slope / math.sqrt(frequency)
