"""How much memory models take, and what batch the rest of it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

USABLE = 0.8
"""Of the memory that is free after loading: kernels need some of their own, and blocks of it stay
unused."""
LEAST_TOKENS = 1_024
VISION_PATCHES_A_TOKEN = 2
"""Patches in the vision tower at once, for each token of a batch."""


def weights_bytes(folder: Path) -> int:
    """What the weights of a checkpoint take on disk, and in memory if loaded in their own type."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def model_bytes(model: torch.nn.Module) -> int:
    """What a loaded model takes."""
    held = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)


def token_bytes(config: Any, bytes_a_number: int) -> int:
    """Memory that one more token in a batch takes while a layer works on it.

    A layer holds what enters and leaves it, queries, keys and values, and the two inner activations
    of its MLP and their product. The vision tower is done before the language model begins, so the
    larger of both counts.

    Args:
        config: A `Qwen3VLConfig`.
        bytes_a_number: Of the type that the model computes in.
    """
    text, vision = config.text_config, config.vision_config
    in_text = 3 * text.intermediate_size + 10 * text.hidden_size
    in_vision = VISION_PATCHES_A_TOKEN * (3 * vision.intermediate_size + 10 * vision.hidden_size)
    return bytes_a_number * int(max(in_text, in_vision))


def fitting_tokens(config: Any, bytes_a_number: int, *, free_bytes: int, most: int) -> int:
    """Tokens of a batch that free memory allows: `most` at most, and no fewer than 1,024.

    Args:
        config: A `Qwen3VLConfig`.
        bytes_a_number: Of the type that the model computes in.
        free_bytes: Free memory of the device, with the model loaded.
        most: Enough to keep the device busy.
    """
    room = int(USABLE * free_bytes) // token_bytes(config, bytes_a_number)
    return max(LEAST_TOKENS, min(most, room))
