"""Finding a CLIP checkpoint: a local folder, the hub, or an open-clip name and tag.

Everything ends as an open-clip folder (`open_clip_config.json`, one `.safetensors`, tokenizer
files) that open-clip itself loads by its `local-dir:` scheme, or as an open-clip name with a
`.safetensors` file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secondglance.errors import ModelError

logger = logging.getLogger(__name__)

CONFIG_FILE = "open_clip_config.json"
HUB_FILES = ("open_clip_model.safetensors", "*.json", "*.txt", "*.model", "merges.txt")
LOCAL_REMEDY = (
    "point recall.model at a local open-clip folder, or HF_ENDPOINT at a mirror you can reach"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCheckpoint:
    """What to hand to open-clip: `model_name`, `pretrained`; and the file of the weights."""

    model_name: str
    pretrained: str | None
    weights: Path


def find_clip(model: str, *, pretrained: str = "", revision: str | None = None) -> ClipCheckpoint:
    """Resolves what a user wrote to files on this machine, downloading where needed.

    Args:
        model: Local folder, hub id (`org/name`, `hf-hub:org/name`), or open-clip model name.
        pretrained: For a model name: an open-clip tag, or a `.safetensors` file.
        revision: Hub revision.

    Raises:
        ModelError: It cannot be found or fetched, or has no safetensors weights.
    """
    folder = Path(model.removeprefix("local-dir:")).expanduser()
    if folder.is_dir():
        return _local_folder(folder)
    if model.startswith(("local-dir:", "/", ".", "~")):
        raise ModelError(
            f"no CLIP folder at {folder}", remedy="check recall.model; it must hold " + CONFIG_FILE
        )
    if model.startswith("hf-hub:") or "/" in model:
        return _hub(model.removeprefix("hf-hub:"), revision)
    return _by_name(model, pretrained, revision)


def hub_repository(model: str, pretrained: str) -> str | None:
    """The hub id behind an open-clip name and tag, or behind a hub id; None for local ones."""
    if Path(model.removeprefix("local-dir:")).expanduser().is_dir() or model.startswith("builtin:"):
        return None
    if "/" in model:
        return model.removeprefix("hf-hub:")
    import open_clip.pretrained

    tag: dict[str, Any] = open_clip.pretrained.get_pretrained_cfg(model, pretrained)
    return str(tag["hf_hub"]).rstrip("/") if tag.get("hf_hub") else None


def _local_folder(folder: Path) -> ClipCheckpoint:
    if not (folder / CONFIG_FILE).is_file():
        raise ModelError(
            f"{folder} has no {CONFIG_FILE}", remedy="give the folder of an open-clip checkpoint"
        )
    weights = sorted(folder.glob("*.safetensors"))
    named = folder / "open_clip_model.safetensors"
    chosen = named if named in weights else next(iter(weights), None)
    if chosen is None:
        raise ModelError(
            f"{folder} has no .safetensors weights",
            remedy="convert the checkpoint: pickled weights are never loaded",
        )
    return ClipCheckpoint(model_name=f"local-dir:{folder}", pretrained=None, weights=chosen)


def _hub(repository: str, revision: str | None) -> ClipCheckpoint:
    from huggingface_hub import HfApi, snapshot_download

    def fetch(*, local_only: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(HUB_FILES),
                local_files_only=local_only,
            )
        )

    try:
        return _local_folder(fetch(local_only=True))
    except Exception:
        logger.debug("%s is not in the hub cache", repository)
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=10)
        size = sum(f.size or 0 for f in info.siblings or () if f.rfilename == HUB_FILES[0])
        logger.info("downloading %s (%.0f MB)", repository, size / 1e6)
        folder = fetch(local_only=False)
    except Exception as error:
        raise ModelError(
            f"cannot fetch the CLIP model {repository}: {short_reason(error)}", remedy=LOCAL_REMEDY
        ) from None
    return _local_folder(folder)


def _by_name(model: str, pretrained: str, revision: str | None) -> ClipCheckpoint:
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        import difflib

        close = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        raise ModelError(
            f"unknown CLIP model {model!r}",
            remedy=f"a local folder, a hub id, or an open-clip name such as {', '.join(close)}"
            if close
            else "give a local folder, a hub id, or an open-clip name",
        )
    if pretrained.endswith(".safetensors"):
        weights = Path(pretrained).expanduser()
        if not weights.is_file():
            raise ModelError(f"no weights file at {weights}", remedy="check recall.pretrained")
        return ClipCheckpoint(model_name=model, pretrained=str(weights), weights=weights)
    repository = hub_repository(model, pretrained)
    if repository is None:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ModelError(
            f"{model} has no weights tagged {pretrained!r} on the hub",
            remedy=f"recall.pretrained may be a .safetensors file or one of: {tags}",
        )
    return _hub(repository, revision)


def short_reason(error: BaseException) -> str:
    """The cause of a failed download in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0][:200]}" if first else type(error).__name__
