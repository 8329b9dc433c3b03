"""Which preset a new library takes when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secondglance.config import Settings, read_preset
from secondglance.ingest.checkpoint import hub_repository, short_reason

GPU_PRESET_BYTES = 24 * 10**9
HUB_TIMEOUT_S = 5.0


def choose_preset(wanted: Settings) -> tuple[str, list[str]]:
    """The best preset whose models are here or can be fetched.

    Args:
        wanted: What file, environment and flags say; a preset named there is taken.

    Returns:
        The name, and warnings for the user.
    """
    if "preset" in wanted.model_fields_set:
        return wanted.preset, []
    name = "gpu" if _gpu_bytes() >= GPU_PRESET_BYTES else "laptop"
    preset = read_preset(name)
    missing = [repository for repository in _repositories(preset) if not is_cached(repository)]
    if not missing:
        return name, []
    try:
        size = sum(_download_bytes(repository) for repository in missing)
    except Exception as error:
        return "starter", [
            f"the models of the preset {name!r} are not on this machine and the hub cannot be "
            f"reached ({short_reason(error)}). The preset 'starter' is used: its models are for "
            "trying things out only. For real use, connect once and make a new library, set "
            "HF_ENDPOINT to a mirror, or name local folders with recall.model and rerank.model"
        ]
    return name, [
        f"the preset {name!r} downloads {size / 1e9:.1f} GB on first use: {', '.join(missing)}"
    ]


def is_cached(repository: str) -> bool:
    """Whether the hub cache of this machine holds weights of a model."""
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(repository, local_files_only=True)
    except Exception:
        return False
    return any(Path(folder).glob("*.safetensors"))


def _repositories(preset: dict[str, Any]) -> list[str]:
    recall = preset["recall"]
    clip = hub_repository(recall["model"], recall.get("pretrained", ""))
    return [name for name in (clip, preset["rerank"]["model"]) if name is not None]


def _download_bytes(repository: str) -> int:
    from huggingface_hub import HfApi

    info = HfApi().model_info(repository, files_metadata=True, timeout=HUB_TIMEOUT_S)
    return sum(
        file.size or 0 for file in info.siblings or () if file.rfilename.endswith(".safetensors")
    )


def _gpu_bytes() -> int:
    import torch

    if not torch.cuda.is_available():
        return 0
    return int(torch.cuda.get_device_properties(0).total_memory)
