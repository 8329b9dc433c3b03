"""What each vision token shows, as the drawing knows it: teaches the vision tower to see.

Yes or no says little about a picture, and a caption names an object without saying where it is.
The drawing tells both for every token; small heads read it off the vision tower in training, and
are thrown away after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

TOKEN = 32
"""Side of the square that one vision token stands for, in pixels."""
IGNORED = -100
"""As in `cross_entropy`."""
FILLED = 0.8
"""Side of the square that a sprite's shape fills, as a share of its own."""
COVERED = 0.3
"""Share of a token, or of the sprite, that must lie in both for the token to show it."""
HIDING = 0.5
"""The same share from which a sprite hides those below it there."""
POSE = 9
SHIFT, GROWTH, TURN = 0.06, 0.07, 1.2
"""Usual movement between two frames: picture sides, octaves, radians."""


@dataclass(slots=True)
class Shown:
    """What vision tokens show; rows are pictures, columns their tokens.

    Attributes:
        kind: (pictures, tokens): 0 for the backdrop, else 1 + the number of the kind.
        colour: The same shape: 0 for its own colours, else 1 + the colour; IGNORED on backdrop.
        pose: (pictures, tokens, POSE): centre in the picture in x and y, and from the token's, in
            sizes of a token; size; and how centre, size and angle change until the next frame;
            zeros on backdrop.
        scenery: (pictures, 3): place, time, weather.
    """

    kind: Any
    colour: Any
    pose: Any
    scenery: Any


def shown(sprites: Any, backdrop: Any, *, height: int, width: int) -> Shown:
    """What the tokens of drawings show.

    Args:
        sprites: (pictures, T, slots, 8); see `Drawing`. T is 1 or even.
        backdrop: (pictures, 4).
        height: Pixels, a multiple of 32.
        width: Pixels, a multiple of 32.
    """
    if sprites.shape[1] == 1:
        sprites = np.repeat(sprites, 2, axis=1)  # as the processor does
    first, second = sprites[:, ::2], sprites[:, 1::2]  # (pictures, pairs of frames, slots, 8)
    middle = (first + second) / 2
    shorter = min(height, width)
    x, y, side = middle[..., 2] * width, middle[..., 3] * height, middle[..., 4] * shorter
    visible = (first[..., 0] >= 0) & (np.maximum(first[..., 7], second[..., 7]) > 0.5)
    rows, columns = height // TOKEN, width // TOKEN
    cell_y, cell_x = (
        (values.reshape(-1) + 0.5) * TOKEN
        for values in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    )
    half = (FILLED * side / 2)[..., None]

    def overlap(centre: Any, cell: Any) -> Any:
        low = np.maximum(centre[..., None] - half, cell - TOKEN / 2)
        high = np.minimum(centre[..., None] + half, cell + TOKEN / 2)
        return np.clip(high - low, 0, None)

    area = overlap(x, cell_x) * overlap(y, cell_y)  # (pictures, pairs, slots, cells)
    share = area / np.maximum(np.minimum(TOKEN**2, (2 * half) ** 2), 1)
    share = np.where(visible[..., None], share, 0.0)
    # What is drawn later hides what is below it.
    share += np.arange(share.shape[2])[:, None] * (share > HIDING)
    best = share.argmax(axis=2)
    there = np.take_along_axis(share, best[:, :, None], 2)[:, :, 0] > COVERED

    def pick(values: Any) -> Any:
        return np.take_along_axis(values, best.reshape(*best.shape[:2], -1), 2)

    kind = np.where(there, pick(first[..., 0]).astype(np.int64) + 1, 0)
    colour = np.where(there, pick(first[..., 1]).astype(np.int64) + 1, IGNORED)
    size = np.maximum(np.stack([first[..., 4], second[..., 4]]), 1e-3)
    turn = (second[..., 5] - first[..., 5] + np.pi) % (2 * np.pi) - np.pi
    pose = np.stack(
        [
            pick(x) / width * 4 - 2,
            pick(y) / height * 4 - 2,
            (pick(x) - cell_x) / TOKEN,
            (pick(y) - cell_y) / TOKEN,
            np.log2(pick(size.mean(0)) / 0.29),
            pick(second[..., 2] - first[..., 2]) / SHIFT,
            pick(second[..., 3] - first[..., 3]) / SHIFT,
            pick(np.log2(size[1] / size[0])) / GROWTH,
            pick(turn) / TURN,
        ],
        axis=-1,
    )
    pose = np.where(there[..., None], pose.clip(-3, 3), 0.0)
    count = len(sprites)
    return Shown(
        kind=kind.reshape(count, -1),
        colour=colour.reshape(count, -1),
        pose=pose.reshape(count, -1, pose.shape[-1]).astype(np.float32),
        scenery=np.asarray(backdrop[:, :3], dtype=np.int64),
    )
