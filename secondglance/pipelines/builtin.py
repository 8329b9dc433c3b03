"""Models that the package brings or makes, and where they lie."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Literal

STARTER = "builtin:starter"
UNTRAINED = "builtin:untrained"


def clip_folder(model: str) -> str:
    """A model as the embedder takes it; a built-in one becomes a folder."""
    if model == STARTER:
        return str(starter_folder("clip"))
    if model != UNTRAINED:
        return model
    from secondglance.models.untrained import build_untrained_clip

    return str(build_untrained_clip(cache_folder() / "untrained-clip"))


def reranker_folder(model: str) -> str:
    """A model as the reranker takes it; a built-in one becomes a folder."""
    if model == STARTER:
        return str(starter_folder("reranker"))
    if model != UNTRAINED:
        return model
    from secondglance.models.untrained import build_untrained_reranker

    return str(build_untrained_reranker(cache_folder() / "untrained-reranker"))


def starter_folder(name: Literal["clip", "reranker"]) -> Path:
    """Where a starter model lies in the package."""
    return Path(str(resources.files("secondglance"))) / "models" / "starter" / name


def shown_model(name: str) -> str:
    """A reranker's name for people: that of a starter model is not where it lies."""
    return STARTER if name == str(starter_folder("reranker")) else name


def shipped_sha256(model: str, name: Literal["clip", "reranker"]) -> str | None:
    """What the weights of a starter model must hash to; None for any other model."""
    if model != STARTER:
        return None
    sums = starter_folder(name).parent / "SHA256SUMS"
    lines = (line.split() for line in sums.read_text("utf-8").splitlines())
    return next(digest for digest, path in lines if path.startswith(f"{name}/"))


def cache_folder() -> Path:
    """Where untrained models are made: `SECONDGLANCE_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    named = os.environ.get("SECONDGLANCE_CACHE")
    return Path(named).expanduser() if named else user_cache_path("secondglance")
