"""What a score depends on in a picture, found by hiding cells of a grid: masks, and their costs.

Windows of several cells overlap. What a window costs is the score of the whole picture minus the
score with the window hidden; a cell is worth the mean of what the windows over it cost.

Sources: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013), section
4.2, for hiding squares; Captum's `Occlusion` for the mean over windows that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    Masks = npt.NDArray[np.bool_]
    Map = npt.NDArray[np.float64]


LEAST_HALF = 1.0
"""Log-odds that a window must take at least, where the whole has few."""


def grid_shape(width: int, height: int, cells: int) -> tuple[int, int]:
    """Rows and columns of nearly square cells, `cells` along the longer side."""
    longer = max(width, height)
    return max(1, round(cells * height / longer)), max(1, round(cells * width / longer))


def windows(rows: int, columns: int, size: int) -> Masks:
    """Square windows of `size` cells a side at every place, those cut off by an edge too.

    So every cell is hidden equally often.

    Returns:
        bool of shape (windows, rows, columns); True is hidden.
    """
    masks = []
    for top in range(1 - size, rows):
        for left in range(1 - size, columns):
            mask = np.zeros((rows, columns), dtype=np.bool_)
            mask[max(top, 0) : top + size, max(left, 0) : left + size] = True
            masks.append(mask)
    return np.array(masks)


def flat(picture: Image.Image) -> Image.Image:
    """What stands where a cell is hidden: the picture's mean colour, without any shape."""
    return picture.resize((1, 1), Image.Resampling.BOX).resize(picture.size)


def hide(picture: Image.Image, behind: Image.Image, mask: Masks) -> Image.Image:
    """The picture with the hidden cells of `mask`, shape (rows, columns), taken from `behind`."""
    rows, columns = mask.shape
    across = np.arange(picture.width) * columns // picture.width
    down = np.arange(picture.height) * rows // picture.height
    hidden = Image.fromarray(mask[down][:, across])
    return Image.composite(behind, picture, hidden.convert("L"))


def mean_cost(masks: Masks, costs: Sequence[float]) -> Map:
    """The mean cost of the windows over each part.

    Args:
        masks: bool of shape (windows, ...); True is left out.
        costs: Of each window; NaN where it is not known.

    Returns:
        float64 of the shape of one mask; 0 where no window is known.
    """
    found = np.asarray(costs, dtype=np.float64)
    known = np.isfinite(found)
    shown = masks[known].astype(np.float64)
    total = np.tensordot(found[known], shown, axes=1)
    times = shown.sum(axis=0)
    return np.asarray(np.where(times > 0, total / np.maximum(times, 1), 0.0))


def too_weak(costs: Sequence[float], log_odds: float) -> bool:
    """Whether no single window takes half of a pair's log-odds, so that larger ones should hide it.

    So it is where a thing lies across cells, or stands there several times.

    Args:
        costs: Of the windows; NaN where it is not known.
        log_odds: Of the whole pair.
    """
    found = np.asarray(costs, dtype=np.float64)
    strongest = float(np.max(found[np.isfinite(found)], initial=0.0))
    return strongest < max(log_odds / 2, LEAST_HALF)
