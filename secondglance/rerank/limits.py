"""How much of a picture or clip the reranker sees.

Source of the numbers: `qwen3_vl_reranker.py` of QwenLM/Qwen3-VL-Embedding and `qwen_vl_utils`
(both Apache-2.0).
"""

from __future__ import annotations

from dataclasses import dataclass

PATCH_SIZE = 16
TOKEN_SIZE = 2 * PATCH_SIZE
"""Side of the square that one token stands for, in pixels."""
TOKEN_PIXELS = TOKEN_SIZE * TOKEN_SIZE
MIN_PIXELS = 4 * TOKEN_PIXELS
MAX_PIXELS = 1800 * TOKEN_PIXELS
FRAME_MIN_PIXELS = 128 * TOKEN_PIXELS
FRAME_MAX_PIXELS = 768 * TOKEN_PIXELS
TOTAL_PIXELS = 10 * FRAME_MAX_PIXELS
FPS = 1.0
MIN_FRAMES = 4
MAX_FRAMES = 64
UNTIMED_FPS = 2.0
"""Rate that `qwen_vl_utils` supposes for frames whose times are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one picture or clip.

    Attributes:
        min_pixels: Pixels of an image, at least.
        max_pixels: Pixels of an image, at most.
        total_pixels: Pixels of a clip; two frames share tokens and count once.
        fps: Frames a second taken from a video file.
        max_frames: Frames of a video file, at most.
        max_listed_frames: Frames of a list of frames, at most.
    """

    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS
    total_pixels: int = TOTAL_PIXELS
    fps: float = FPS
    max_frames: int = MAX_FRAMES
    max_listed_frames: int = MAX_FRAMES

    def frame_pixels(self, frames: int) -> tuple[int, float]:
        """Fewest and most pixels of each of `frames` frames.

        The formula is that of `qwen_vl_utils.fetch_video`, whose floor of 128 tokens a frame
        would break small budgets; here the budget wins.
        """
        most = min(FRAME_MAX_PIXELS, self.total_pixels / frames * 2)
        if most < int(FRAME_MIN_PIXELS * 1.05):
            return TOKEN_PIXELS, most
        return FRAME_MIN_PIXELS, most
