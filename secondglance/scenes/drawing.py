"""From scenes to the sprites of each frame, which the renderer paints."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from secondglance.scenes.scene import Group, Motion, Scene
from secondglance.scenes.vocabulary import COLOURS, PLACES, TIMES, WEATHERS

if TYPE_CHECKING:
    import numpy.typing as npt

COLUMNS = 8
"""kind, colour, cx, cy, size, angle, flip, alpha: see `Drawing`."""
CLIP_S = 4.0
STILL_S = (0.0,)
TRAVEL = 0.44
"""How far a moving group goes, in picture sides."""
HOPS = 3
TURNS = 1.5
TILT = 0.22
CLUSTERS: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.0, 0.0),),
    2: ((-0.5, 0.0), (0.5, 0.0)),
    3: ((-0.5, 0.42), (0.5, 0.42), (0.0, -0.42)),
    4: ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)),
    5: ((-0.62, -0.62), (0.62, -0.62), (-0.62, 0.62), (0.62, 0.62), (0.0, 0.0)),
}
"""Middles of the members of a group, in sides of one member."""
MEMBER = {2: 0.2, 3: 0.2, 4: 0.195, 5: 0.185}
"""Side of one member, as a fraction of the picture's shorter side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What the renderer takes.

    Attributes:
        sprites: float32 of shape (frames, slots, 8): `kind` (-1: empty slot), `colour` (-1:
            natural), `cx`, `cy` (fractions of width and height), `size` (fraction of the shorter
            side), `angle` (radians, clockwise), `flip` (0 or 1), `alpha` (0 to 1).
        backdrop: int64 of shape (4,): place, time, weather, seed.
    """

    sprites: npt.NDArray[np.float32]
    backdrop: npt.NDArray[np.int64]


def draw(scene: Scene, rng: random.Random, *, times_s: Sequence[float] = STILL_S) -> Drawing:
    """Settles what a description leaves open (tilt, exact place and size), frame by frame.

    Args:
        scene: The scene; without motion all frames are alike.
        rng: Draws what is left open.
        times_s: Time of each frame, from 0 to `CLIP_S`.
    """
    rows: list[list[list[float]]] = []
    meeting = {g for m in scene.motions if m.other is not None for g in (m.group, m.other)}
    for number, group in enumerate(scene.groups):
        motion = scene.motion_of(number)
        onset = rng.uniform(0.3, 0.6)
        path = [_pose(motion, number, time_s / CLIP_S, onset) for time_s in times_s]
        x, y = (0.5, group.y) if number in meeting else (group.x, group.y)
        rows += _members(group, path, rng, x=x, y=y)
    sprites = np.array(rows, dtype=np.float32).transpose(1, 0, 2)
    backdrop = (
        PLACES.index(scene.place),
        TIMES.index(scene.time),
        WEATHERS.index(scene.weather),
        rng.randrange(1 << 31),
    )
    return Drawing(
        sprites=np.ascontiguousarray(sprites), backdrop=np.array(backdrop, dtype=np.int64)
    )


def stack(
    drawings: Sequence[Drawing],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Drawings of equally many frames as one batch.

    Returns:
        Sprites of shape (drawings, frames, slots, 8), padded with empty slots, and backdrops of
        shape (drawings, 4).
    """
    slots = max(drawing.sprites.shape[1] for drawing in drawings)
    frames = drawings[0].sprites.shape[0]
    sprites = np.zeros((len(drawings), frames, slots, COLUMNS), dtype=np.float32)
    sprites[..., 0] = -1
    for place, drawing in enumerate(drawings):
        sprites[place, :, : drawing.sprites.shape[1]] = drawing.sprites
    return sprites, np.stack([drawing.backdrop for drawing in drawings])


def _members(
    group: Group,
    path: Sequence[tuple[float, float, float, float, float]],
    rng: random.Random,
    *,
    x: float,
    y: float,
) -> list[list[list[float]]]:
    """Rows of each member of a group in each frame."""
    side = (group.extent if group.count == 1 else MEMBER[group.count]) * rng.uniform(0.92, 1.08)
    colour = -1 if group.colour is None else COLOURS.index(group.colour)
    x, y = x + rng.uniform(-0.012, 0.012), y + rng.uniform(-0.012, 0.012)
    stretch = side * rng.uniform(1.0, 1.1)
    rows = []
    for across, down in CLUSTERS[group.count]:
        tilt, flip = rng.uniform(-TILT, TILT), rng.random() < 0.5
        member = side * rng.uniform(0.94, 1.06) if group.count > 1 else side
        dx, dy = across * stretch, down * stretch
        if group.count > 1:
            dx, dy = dx + rng.uniform(-0.012, 0.012), dy + rng.uniform(-0.012, 0.012)
        rows.append(
            [
                [
                    group.kind, colour, x + (dx * scale) + move_x, y + (dy * scale) + move_y,
                    member * scale, tilt + turn, flip, alpha,
                ]
                for move_x, move_y, scale, turn, alpha in path
            ]
        )  # fmt: skip
    return rows


def _pose(
    motion: Motion | None, group: int, share: float, onset: float
) -> tuple[float, float, float, float, float]:
    """Shift in x and y, scale, turn and alpha of a group after `share` of a clip."""
    if motion is None:
        return 0.0, 0.0, 1.0, 0.0, 1.0
    along = TRAVEL * (share - 0.5)
    match motion.verb:
        case "left":
            return -along, 0.0, 1.0, 0.0, 1.0
        case "right":
            return along, 0.0, 1.0, 0.0, 1.0
        case "up":
            return 0.0, -along, 1.0, 0.0, 1.0
        case "down":
            return 0.0, along, 1.0, 0.0, 1.0
        case "jump":
            return 0.0, -0.22 * abs(math.sin(math.pi * HOPS * share)), 1.0, 0.0, 1.0
        case "spin":
            return 0.0, 0.0, 1.0, 2 * math.pi * TURNS * share * motion.direction, 1.0
        case "grow":
            return 0.0, 0.0, 0.5 + share, 0.0, 1.0
        case "shrink":
            return 0.0, 0.0, 1.5 - share, 0.0, 1.0
        case "appear":
            return 0.0, 0.0, 1.0, 0.0, float(share >= onset)
        case "disappear":
            return 0.0, 0.0, 1.0, 0.0, float(share < onset)
        case "return":
            away = 0.36 * math.sin(math.pi * share) - 0.18
            return away * motion.direction, 0.0, 1.0, 0.0, 1.0
        case "meet" | "part":
            near = share if motion.verb == "meet" else 1 - share
            side = -1 if group == motion.group else 1
            return side * motion.direction * (0.36 - 0.22 * near), 0.0, 1.0, 0.0, 1.0
