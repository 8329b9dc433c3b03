"""Drawings as pictures and clips in memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from secondglance.scenes.drawing import STILL_S, Drawing, stack
from secondglance.scenes.examples import Side, clip_times
from secondglance.types import Content, VideoClip

if TYPE_CHECKING:
    import numpy.typing as npt

    from secondglance.scenes.render import Renderer


def rendered(
    renderer: Renderer,
    drawings: Sequence[Drawing],
    times_s: Sequence[float],
    *,
    width: int,
    height: int,
) -> npt.NDArray[np.uint8]:
    """Paints drawings: (drawings, frames, height, width, 3).

    Args:
        renderer: Paints.
        drawings: With one frame for each time.
        times_s: Of the frames, in seconds.
        width: Pixels.
        height: Pixels.
    """
    import torch

    sprites, backdrops = stack(drawings)
    pixels: npt.NDArray[np.uint8] = (
        renderer.render(
            torch.from_numpy(sprites),
            torch.from_numpy(backdrops),
            times_s=times_s,
            height=height,
            width=width,
        )
        .cpu()
        .numpy()
    )
    return pixels


def content(side: Side, renderer: Renderer, *, picture_px: int, clip_px: int) -> Content:
    """A generated query or candidate as the reranker takes it.

    Args:
        side: What it is.
        renderer: Paints it.
        picture_px: Side of pictures.
        clip_px: Side of a clip's frames.
    """
    from PIL import Image

    texts = (side.text,) if side.text else ()
    if side.drawing is None:
        return Content(texts=texts)
    count = len(side.drawing.sprites)
    times_s = STILL_S if count == 1 else clip_times(random.Random(0), frames=count)
    size = picture_px if count == 1 else clip_px
    [pixels] = rendered(renderer, [side.drawing], times_s, width=size, height=size)
    frames = tuple(Image.fromarray(frame) for frame in pixels)
    if count == 1:
        return Content(texts=texts, images=frames)
    return Content(texts=texts, videos=(VideoClip(frames=frames, times_s=tuple(times_s)),))
