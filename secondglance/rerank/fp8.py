"""Matrix products in 8-bit floating point, on GPUs that have it.

Weights get one scale a row, activations one a token, taken from their largest value as they come
(dynamic per-row scaling, as in "FP8-LM", Peng et al. 2023). Sums stay in float32. Scores drift by a
little; how much is measured on the model itself when it is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from secondglance.errors import ModelError
from secondglance.types import Content

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max
LEAST = 1e-12
STEP = 16
"""Widths that the GPU's fp8 products take are multiples of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far log-odds move.

    Attributes:
        mean: Of the absolute differences.
        largest: Of them.
        pairs: On how many pairs this was measured.
    """

    mean: float
    largest: float
    pairs: int


class Fp8Linear(nn.Module):
    """A linear layer in 8 bits.

    Args:
        linear: Whose weights to take.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = (weight.abs().amax(1, keepdim=True).float() / LARGEST).clamp_min(LEAST)
        self.register_buffer("weight", (weight.float() / scale).to(FORMAT), persistent=False)
        self.register_buffer("scale", scale.t().contiguous(), persistent=False)
        bias = None if linear.bias is None else linear.bias.detach()
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """(..., in) to (..., out), in the type of `value`."""
        flat = value.reshape(-1, value.shape[-1])
        scale = (flat.abs().amax(-1, keepdim=True).float() / LARGEST).clamp_min(LEAST)
        found = torch._scaled_mm(
            (flat.float() / scale).to(FORMAT),
            self.weight.t(),  # type: ignore[operator]
            scale_a=scale,
            scale_b=self.scale,  # type: ignore[arg-type]
            bias=self.bias,  # type: ignore[arg-type]
            out_dtype=value.dtype,
            use_fast_accum=True,
        )
        return found.view(*value.shape[:-1], -1)


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Refuses where there is no 8-bit arithmetic.

    Raises:
        ModelError: The device has none, or the other weights are not bfloat16.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        raise ModelError(
            f"{device} cannot compute in fp8",
            remedy="leave fp8 off; it takes an NVIDIA GPU of the Ada or Hopper generation or newer",
        )
    if dtype != torch.bfloat16:
        raise ModelError(
            f"fp8 goes with bfloat16, not with {str(dtype).removeprefix('torch.')}",
            remedy="leave out dtype",
        )


def quantise(models: Sequence[nn.Module], probe: Callable[[], Sequence[float]]) -> Drift:
    """Turns the layers' matrices into 8 bits, in place.

    Args:
        models: Each a `Qwen3VLModel`.
        probe: Scores a few pairs.

    Returns:
        How far the probe's log-odds moved.
    """
    before = probe()
    for model in cast("Sequence[Any]", models):
        inner = [*model.visual.blocks.modules(), *model.language_model.layers.modules()]
        for parent in inner:
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and not (
                    child.in_features % STEP or child.out_features % STEP
                ):
                    setattr(parent, name, Fp8Linear(child))
    torch.cuda.empty_cache()
    moved = [abs(a - b) for a, b in zip(before, probe(), strict=True)]
    return Drift(mean=sum(moved) / len(moved), largest=max(moved), pairs=len(moved))


def probe() -> tuple[Content, list[Content]]:
    """A query and a few candidates of each kind, always the same: for measuring drift."""
    ramp = np.add.outer(np.arange(256), np.arange(256))
    pictures = [
        Image.fromarray(np.stack([ramp * red, ramp * 2, 255 - ramp], -1).astype(np.uint8))
        for red in range(1, 5)
    ]
    documents = [
        *(Content(images=(picture,)) for picture in pictures),
        *(Content(texts=(text,)) for text in ("two dogs on a beach", "a red car", "夜晚的城市")),
        Content(texts=("a caption",), images=tuple(pictures[:2])),
    ]
    return Content(texts=("a dog runs along the water",)), documents
