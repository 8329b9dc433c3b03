"""Paints drawings: backdrop, sprites, then what falls from the sky."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from secondglance.errors import InputError
from secondglance.scenes.backdrop import FOG, OVERCAST, paint, palette
from secondglance.scenes.sprites import (
    BLUE,
    CELL_PX,
    COVER,
    GREEN,
    HIGH,
    LEVELS,
    LOW,
    PADDED_PX,
    RED,
    RIM,
    TEXEL,
    pyramid,
)
from secondglance.scenes.textures import View, falling, ground_noise
from secondglance.scenes.vocabulary import COLOURS, PLACES, TIMES, WEATHERS
from secondglance.scenes.weather import fall

if TYPE_CHECKING:
    import numpy.typing as npt

CHUNK_PX = {"cuda": 1 << 26, "cpu": 1 << 20}
"""Pixels painted at once; some thirty float planes of them are alive at a time."""
PATCH_PX = {"cuda": 1 << 23, "cpu": 1 << 20}
"""Pixels of sprites sampled at once."""
PATCH_SIDES = np.array([16, 24, 40, 64, 96, 144, 224, 336, 512, 768, 1152, 1 << 30])
"""Sprites are drawn in square windows of these sides, so that equal ones make a batch."""
TINTS = palette(
    [
        (0x7E0610, 0xE01B24, 0xFF9A8C),
        (0xB07A00, 0xFAD416, 0xFFF6B0),
        (0x04521A, 0x22A53A, 0xA6EBA0),
        (0x06207A, 0x1F5FE8, 0x9CC6FF),
        (0x3A0868, 0x8A2FC4, 0xD9A8F8),
        (0xC03A80, 0xFF7DB8, 0xFFD9EC),
        (0x9A9CA4, 0xECECF0, 0xFFFFFF),
        (0x050507, 0x2A2A2F, 0x7C7C84),
    ]
)
"""By colour, in the order of `vocabulary.COLOURS`: shadow, the colour itself, highlight."""
BLACK = COLOURS.index("black")
DARK_KIND = 0.36
"""Kinds whose mean luminance is below this get a light rim."""
RIMS = ((0.02, 0.02, 0.05), (1.0, 1.0, 1.0))
RIM_STRENGTH = (0.55, 0.75)
SPRITE_LIGHT = ((1.0, 1.0, 1.0), (1.0, 0.95, 0.91), (0.82, 0.83, 0.90))
"""By time of day: less than the ground loses, so that colours can still be named."""
SPRITE_FOG = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Sprites of one chunk, one row each; picture coordinates in pixels.

    Attributes:
        frame: Number of the frame in the chunk.
        turn: How many-th visible sprite of its frame it is; later ones cover earlier ones.
        window: Side of the square window that holds it.
        corner: Top and left of the window.
        cell: First texel of its cell, and texels per row of it.
        pose: Centre x and y; then how far a pixel to the right and one down move u and v.
        paint: (TEXEL, 4) as `Renderer._mixing` makes them.
    """

    frame: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]
    window: npt.NDArray[np.int64]
    corner: npt.NDArray[np.int64]
    cell: npt.NDArray[np.int64]
    pose: npt.NDArray[np.float32]
    paint: npt.NDArray[np.float32]

    def batches(self, limit_px: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
        """Rows that can be drawn together, with the side of their windows, bottom ones first."""
        order = np.lexsort((self.window, self.turn))
        keys = np.stack([self.turn[order], self.window[order]])
        cuts = np.flatnonzero((np.diff(keys) != 0).any(axis=0)) + 1
        for rows in np.split(order, cuts):
            if len(rows):
                side = int(self.window[rows[0]])
                most = max(1, limit_px // side**2)
                for start in range(0, len(rows), most):
                    yield side, rows[start : start + most]


class Renderer:
    """Draws scenes with sprites on generated backdrops, in batches.

    Args:
        device: `cpu` or `cuda`.

    Raises:
        InputError: Another device.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        if self.device.type not in CHUNK_PX:
            raise InputError(f"cannot render on {device}; allowed: {', '.join(CHUNK_PX)}")
        sprites = pyramid()
        self._texels = sprites.texels.to(self.device)
        self._starts, self._sides = sprites.starts, sprites.sides
        self._dark = sprites.brightness < DARK_KIND
        self._noise = torch.from_numpy(ground_noise()).to(self.device)
        self._falling = torch.from_numpy(falling()).to(self.device)

    @torch.no_grad()
    def render(
        self,
        sprites: torch.Tensor,
        backdrop: torch.Tensor,
        *,
        times_s: Sequence[float],
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Paint a batch of scenes.

        Args:
            sprites: float32 (scenes, frames, slots, 8) as in `drawing.Drawing`, on any device;
                later slots are drawn over earlier ones.
            backdrop: int64 (scenes, 4): place, time, weather, seed.
            times_s: Time of each frame; rain and snow move with it.
            height: Pixels.
            width: Pixels.

        Returns:
            uint8 (scenes, frames, height, width, 3) on the renderer's device.

        Raises:
            InputError: Shapes that do not fit together, or a number that names nothing.
        """
        rows = sprites.detach().cpu().numpy().astype(np.float64)
        places = backdrop.detach().cpu().numpy().astype(np.int64)
        self._check(rows, places, times_s)
        scenes, frames = rows.shape[:2]
        view = View.of(height, width, self._noise)
        pixels = torch.empty(
            (scenes, frames, height, width, 3), dtype=torch.uint8, device=self.device
        )
        step = max(1, CHUNK_PX[self.device.type] // (frames * height * width))
        for start in range(0, scenes, step):
            part = slice(start, start + step)
            canvas = paint(view, places[part])
            canvas = canvas[:, None].expand(-1, frames, -1, -1, -1)
            canvas = canvas.reshape(-1, height, width, 3).contiguous()
            self._draw(canvas, rows[part], places[part])
            fall(view, canvas, self._falling, places[part], np.asarray(times_s, dtype=np.float64))
            pixels[part] = (canvas * 255 + 0.5).to(torch.uint8).view(-1, *pixels.shape[1:])
        return pixels

    def _check(
        self,
        sprites: npt.NDArray[np.float64],
        places: npt.NDArray[np.int64],
        times_s: Sequence[float],
    ) -> None:
        shape = sprites.shape
        if len(shape) != 4 or shape[3] != 8 or places.shape != (shape[0], 4):
            raise InputError(
                f"sprites of shape {shape} and backdrops of shape {places.shape}; "
                "wanted (scenes, frames, slots, 8) and (scenes, 4)"
            )
        if len(times_s) != shape[1]:
            raise InputError(f"{len(times_s)} times for {shape[1]} frames")
        kind, colour = sprites[..., 0], sprites[..., 1]
        limits = np.array([len(PLACES), len(TIMES), len(WEATHERS)])
        if not np.isfinite(sprites).all():
            raise InputError("a sprite has a value that is not finite")
        if (kind >= len(self._dark)).any() or (colour >= len(COLOURS)).any():
            raise InputError(
                f"kind {kind.max():.0f} or colour {colour.max():.0f} does not exist; kinds end at "
                f"{len(self._dark) - 1}, colours at {len(COLOURS) - 1}"
            )
        if (places[:, :3] < 0).any() or (places[:, :3] >= limits).any():
            raise InputError(f"a backdrop's place, time or weather is not below {limits.tolist()}")

    def _place(
        self,
        sprites: npt.NDArray[np.float64],
        places: npt.NDArray[np.int64],
        height: int,
        width: int,
    ) -> _Placed:
        """Everything about each visible sprite that does not need its pixels."""
        scenes, frames, slots, _ = sprites.shape
        rows = sprites.reshape(scenes * frames, slots, 8)
        shorter = min(height, width)
        kind, colour, x, y, size, angle, flip, alpha = np.moveaxis(rows, -1, 0)
        x, y, side = x * width, y * height, size * shorter
        reach = 0.5 * side * (PADDED_PX / CELL_PX) * (np.abs(np.cos(angle)) + np.abs(np.sin(angle)))
        seen = (kind >= 0) & (alpha > 0) & (side > 0.5)
        seen &= (x + reach > 0) & (x - reach < width) & (y + reach > 0) & (y - reach < height)
        turn: npt.NDArray[np.int64] = np.cumsum(seen, axis=1, dtype=np.int64)[seen]
        frame = np.nonzero(seen)[0]
        x, y, side, angle, flip, alpha, reach = (
            values[seen] for values in (x, y, side, angle, flip, alpha, reach)
        )
        sort: npt.NDArray[np.int64] = kind[seen].astype(np.int64)
        tint: npt.NDArray[np.int64] = colour[seen].astype(np.int64)
        window = PATCH_SIDES[np.searchsorted(PATCH_SIDES, 2 * reach + 2)]
        window = np.minimum(window, max(height, width))
        top = np.clip(np.floor(y - window / 2), 0, np.maximum(height - window, 0))
        left = np.clip(np.floor(x - window / 2), 0, np.maximum(width - window, 0))
        level = np.clip(np.floor(np.log2(CELL_PX / side) + 0.4), 0, LEVELS - 1).astype(np.int64)
        pitch = self._sides[level] + 2
        cell = np.stack([self._starts[level] + sort * pitch * pitch, pitch], axis=1)
        # Texels per pixel, along both axes of the sprite.
        scale = self._sides[level] / (side * PADDED_PX / CELL_PX)
        cosine, sine, mirror = np.cos(angle), np.sin(angle), np.where(flip > 0.5, -1.0, 1.0)
        pose = np.stack(
            [x, y, scale * cosine * mirror, scale * sine * mirror, -scale * sine, scale * cosine],
            axis=1,
        )
        picture = places[frame // frames]
        mixing = self._mixing(sort, tint, alpha, picture)
        return _Placed(
            frame=frame,
            turn=turn,
            window=window,
            corner=np.stack([top, left], axis=1).astype(np.int64),
            cell=cell,
            pose=pose.astype(np.float32),
            paint=mixing.astype(np.float32),
        )

    def _mixing(
        self,
        kind: npt.NDArray[np.int64],
        colour: npt.NDArray[np.int64],
        alpha: npt.NDArray[np.float64],
        picture: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """(sprites, TEXEL, 4): from a texel's bytes to premultiplied red, green, blue and cover."""
        mixing = np.zeros((len(kind), TEXEL, 4))
        natural = colour < 0
        for channel in (RED, GREEN, BLUE):
            mixing[natural, channel, channel] = 1
        shadow, pure, highlight = np.moveaxis(TINTS[colour[~natural]], 1, 0)
        mixing[~natural, COVER, :3] = shadow
        mixing[~natural, LOW, :3] = pure - shadow
        mixing[~natural, HIGH, :3] = highlight - pure
        mixing[:, COVER, 3] = 1
        mixing[:, :, :3] *= np.array(SPRITE_LIGHT)[picture[:, 1]][:, None]
        bright_rim = np.where(natural, self._dark[kind], colour == BLACK).astype(np.int64)
        strength = np.array(RIM_STRENGTH)[bright_rim]
        mixing[:, RIM, :3] = np.array(RIMS)[bright_rim] * strength[:, None]
        mixing[:, RIM, 3] = strength
        fog = SPRITE_FOG * (picture[:, 2] == FOG)[:, None, None]
        haze = palette(OVERCAST)[picture[:, 1], FOG][:, None]
        mixing[:, :, :3] += fog * (haze * mixing[:, :, 3:] - mixing[:, :, :3])
        return mixing * alpha[:, None, None] / 255

    def _draw(
        self,
        canvas: torch.Tensor,
        sprites: npt.NDArray[np.float64],
        places: npt.NDArray[np.int64],
    ) -> None:
        """Lay the sprites over the canvas, (scenes * frames, h, w, 3), in place."""
        height, width = canvas.shape[1:3]
        placed = self._place(sprites, places, height, width)
        flat = canvas.view(-1, 3)
        batches = list(placed.batches(PATCH_PX[self.device.type]))
        if not batches:
            return
        # One copy of everything, in drawing order; the loop only cuts pieces off it.
        order = np.concatenate([rows for _, rows in batches])
        numbers = np.concatenate([placed.frame[:, None], placed.corner, placed.cell], axis=1)[order]
        whole = torch.from_numpy(numbers).to(self.device)
        pose = torch.from_numpy(placed.pose[order]).to(self.device)
        mixing = torch.from_numpy(placed.paint[order]).to(self.device)
        start = 0
        for side, rows in batches:
            part = slice(start, start + len(rows))
            start = part.stop
            frame, top, left, base, pitch = whole[part, :, None, None].unbind(1)
            ys = top + torch.arange(min(side, height), device=self.device).view(1, -1, 1)
            xs = left + torch.arange(min(side, width), device=self.device).view(1, 1, -1)
            x, y, ux, uy, vx, vy = pose[part, :, None, None].unbind(1)
            across, down = xs + 0.5 - x, ys + 0.5 - y
            # Cells have a border of one empty texel: whatever lies outside is held there.
            u = (ux * across + uy * down + 0.5 * (pitch - 1)).clamp_min(0)
            v = (vx * across + vy * down + 0.5 * (pitch - 1)).clamp_min(0)
            u, v = torch.minimum(u, pitch - 1.001), torch.minimum(v, pitch - 1.001)
            colours = self._look_up(u, v, base, pitch) @ mixing[part]
            index = ((frame * height + ys) * width + xs).view(-1)
            colours = colours.view(-1, 4)
            flat[index] = flat[index] * (1 - colours[:, 3:]) + colours[:, :3]

    def _look_up(
        self, u: torch.Tensor, v: torch.Tensor, base: torch.Tensor, pitch: torch.Tensor
    ) -> torch.Tensor:
        """Bilinear texels at (u, v), (n, rows, columns), as floats (n, rows * columns, TEXEL)."""
        column, row = u.floor(), v.floor()
        u, v = u - column, v - row
        index = base + row.long() * pitch + column.long()
        total: torch.Tensor | None = None
        for right, lower in ((0, 0), (1, 0), (0, 1), (1, 1)):
            texels = self._texels[index + (right + lower * pitch)]
            weight = (u if right else 1 - u) * (v if lower else 1 - v)
            channels = texels.unsqueeze(-1).view(torch.uint8).float() * weight.unsqueeze(-1)
            total = channels if total is None else total.add_(channels)
        assert total is not None
        return total.view(len(total), -1, TEXEL)
