"""How good a frame is as a picture: sharp, and neither black nor blown out.

Pure functions on uint8 pixels, of shape (height, width, 3) or (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Luma = npt.NDArray[np.float32]

LONG_SIDE = 480
"""Pixels at which frames are measured: sharpness would otherwise follow the size of a video, and
the grain of a large one. A blur that is not seen at this size is not seen in a cover's preview."""

NOISE = 3 / 255
"""Grain that is not taken for detail, as a standard deviation: where there is nothing else, in a
dark or empty frame, the smallest noise would look perfectly sharp."""

BLACK, WHITE = 0.08, 0.92
"""Mean brightness below and above which a frame shows nothing: fades, slates, flashes."""

CLIPPED_SHARE = 0.75
"""Share of pixels at either end of the range from which on a frame counts as black or blown out."""
CLIPPED_LEVELS = 12 / 255


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameQuality:
    """Measures of one frame.

    Attributes:
        sharpness: Variance of the Laplacian over the energy of the gradient, 0 to 5; 0 is flat,
            below 0.5 out of focus, a step from black to white has 2. Compare within one video.
        brightness: Mean, 0 (black) to 1 (white).
        contrast: Standard deviation of the brightness, 0 to 0.5.
        clipped: Share of the pixels that are as good as black or white.
    """

    sharpness: float
    brightness: float
    contrast: float
    clipped: float

    @property
    def exposed(self) -> bool:
        """Whether there is something to see: neither black, nor white, nor a blank."""
        return (
            BLACK <= self.brightness <= WHITE
            and self.clipped < CLIPPED_SHARE
            and self.contrast > NOISE
        )


def measure(pixels: Pixels) -> FrameQuality:
    """All measures of a frame."""
    grey = luma(pixels)
    ends = (grey < CLIPPED_LEVELS) | (grey > 1 - CLIPPED_LEVELS)
    return FrameQuality(
        sharpness=sharpness(grey),
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        clipped=float(ends.mean()),
    )


def luma(pixels: Pixels) -> Luma:
    """Brightness in 0..1 (Rec. 601), its long side reduced to `LONG_SIDE` by averaging."""
    picture = Image.fromarray(pixels).convert("L")
    scale = LONG_SIDE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


def sharpness(grey: Luma) -> float:
    """Variance of the Laplacian, divided by the mean square of the gradient.

    The first is the usual measure of focus (Pech-Pacheco et al., "Diatom autofocusing in
    brightfield microscopy", ICPR 2000). Undivided it prefers whatever has most contrast, divided
    by the variance of the brightness whatever has least: dust and empty roads. What is left is how
    quickly brightness changes where it does, however large the even parts of a frame are.

    Args:
        grey: As `luma` makes it.
    """
    if min(grey.shape) < 3:
        return 0.0
    laplacian = (
        grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    )
    gradient = np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean()
    # The gradient of noise alone is four times its variance.
    return float(laplacian.var() / (gradient + 4 * NOISE**2))
