"""What a caller of the reranker may ask for: devices, attention, arguments of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from secondglance.errors import ModelError

if TYPE_CHECKING:
    import torch


def devices(device: str | torch.device | None, replicas: int) -> list[torch.device]:
    """The devices that share the work, `device` first; 0 replicas: all GPUs from there on.

    Raises:
        ModelError: There are not so many.
    """
    import torch

    first = torch.device(auto_device() if device in (None, "auto") else device)
    if replicas == 1:
        return [first]
    if first.type != "cuda":
        raise ModelError(
            f"replicas is {replicas}, and {first} is one device",
            remedy="leave replicas out; several CUDA devices can share the work",
        )
    start, count = first.index or 0, torch.cuda.device_count()
    wanted = replicas or count - start
    if not 0 < wanted <= count - start:
        raise ModelError(
            f"replicas is {replicas}, and there are {count - start} GPUs from {first} on",
            remedy="ask for fewer, or 0 for all of them",
        )
    return [torch.device("cuda", start + number) for number in range(wanted)]


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs, and on processors that multiply it in hardware (AMX); else float32."""
    import torch

    # Before torch 2.9 nothing tells what the processor has.
    capabilities: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    amx = device.type == "cpu" and capabilities().get("amx_bf16", False)
    return torch.bfloat16 if device.type == "cuda" or amx else torch.float32


def own_kernels(kwargs: dict[str, Any]) -> bool:
    """Whether the engine's own forward pass runs; it takes the fastest kernels that torch has.

    Flash attention as a package of its own is what the official script asks for. Where it is not
    installed, torch's attention takes its place: it is flash attention too where the GPU allows,
    and scores are equal.
    """
    asked = kwargs.get("attn_implementation")
    if asked == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            warnings.warn(
                "flash_attention_2 was asked for and cannot be used here (package flash-attn and "
                "a CUDA device): torch's own attention takes its place, scores are the same",
                stacklevel=3,
            )
            del kwargs["attn_implementation"]
    return "attn_implementation" not in kwargs


def reject_unsafe(kwargs: dict[str, Any]) -> None:
    """Takes out the arguments that would run code or unpickle.

    Raises:
        ModelError: One of them asks for that.
    """
    if kwargs.pop("trust_remote_code", False):
        raise ModelError(
            "trust_remote_code=True: code from checkpoints is never run",
            remedy="leave the argument out; Qwen3-VL is part of transformers",
        )
    if not kwargs.pop("use_safetensors", True):
        raise ModelError(
            "use_safetensors=False: pickled weights are never loaded",
            remedy="leave the argument out, and convert the checkpoint to safetensors",
        )


def auto_device() -> str:
    """CUDA, then MPS, then the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
