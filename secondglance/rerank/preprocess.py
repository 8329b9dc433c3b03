"""One side of a pair as the reranker sees it: resized pixels, and their place in the prompt.

Pixels are those of the official script (`qwen3_vl_reranker.py` of QwenLM/Qwen3-VL-Embedding,
Apache-2.0), to the bit. What differs: the pixel budget also holds for video files, timestamps
are true wherever the times of the frames are known, photos are turned upright, and what cannot
be read is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secondglance.rerank import prompt
from secondglance.rerank.clips import load_clip
from secondglance.rerank.limits import TOKEN_SIZE, Limits
from secondglance.rerank.pictures import load_image
from secondglance.types import Content

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a pair, ready for the prompt.

    Attributes:
        pieces: Its part of the prompt; empty if there is nothing on this side.
        images: uint8 of shape (3, height, width) each.
        videos: uint8 of shape (frames, 3, height, width) each; an even number of frames.
    """

    pieces: tuple[prompt.Piece, ...]
    images: tuple[torch.Tensor, ...]
    videos: tuple[torch.Tensor, ...]

    @property
    def pixel_bytes(self) -> int:
        """Memory that the pixels take."""
        return sum(pixels.numel() for pixels in (*self.images, *self.videos))

    @property
    def vision_tokens(self) -> int:
        """Tokens that stand for its pictures and clips."""
        pads = [piece for piece in self.pieces if isinstance(piece, prompt.Pads)]
        return sum(pad.rows * pad.columns for pad in pads)


def prepare(content: Content, limits: Limits) -> Side:
    """Reads and resizes everything on one side: videos, images, texts, in that order.

    Raises:
        MediaError: A picture or clip cannot be read, naming it.
    """
    pieces: list[prompt.Piece] = []
    images: list[torch.Tensor] = []
    videos: list[torch.Tensor] = []
    for clip in content.videos:
        pixels, times_s = load_clip(clip, limits)
        pieces += prompt.video_pieces(times_s, *_tokens(pixels))
        videos.append(pixels)
    for source in content.images:
        pixels = load_image(source, limits)
        pieces += prompt.image_pieces(*_tokens(pixels))
        images.append(pixels)
    pieces += content.texts
    return Side(pieces=tuple(pieces), images=tuple(images), videos=tuple(videos))


def _tokens(pixels: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of tokens."""
    return pixels.shape[-2] // TOKEN_SIZE, pixels.shape[-1] // TOKEN_SIZE
