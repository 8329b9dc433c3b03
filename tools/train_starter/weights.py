"""Weights of a training run: float16, in parts that are small enough to travel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PART_BYTES = 14 * 2**20


def half(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """float16 where that holds the values; batch norms' variances can be too large for it."""
    return {
        name: (
            value.half() if value.is_floating_point() and "running" not in name else value
        ).contiguous()
        for name, value in ((n, v.detach().cpu()) for n, v in weights.items())
    }


def write_weights(
    weights: Mapping[str, torch.Tensor], folder: Path, *, part_bytes: int = PART_BYTES
) -> list[Path]:
    """Writes float16 weights as `weights-1-of-N.safetensors`, none larger than `part_bytes`."""
    from safetensors.torch import save_file

    parts: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in half(weights).items():
        if parts[-1] and size + tensor.nbytes > part_bytes:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(parts, start=1):
        paths.append(folder / f"weights-{number}-of-{len(parts)}.safetensors")
        save_file(part, paths[-1], metadata={"format": "pt"})
    return paths


def read_weights(*sources: Path) -> dict[str, torch.Tensor]:
    """Weights from files, or from all `.safetensors` files of folders.

    Of a file named as `write_weights` names them, the other parts beside it are read too.
    """
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for source in sources:
        if source.is_dir():
            files = sorted(source.glob("*.safetensors"))
        elif source.name.startswith("weights-"):
            files = sorted(source.parent.glob("weights-*-of-*.safetensors"))
        else:
            files = [source]
        for file in files:
            found |= load_file(file)
    return found
