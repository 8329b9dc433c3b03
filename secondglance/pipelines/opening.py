"""Opening a library folder: its stamp, the settings in force, and the parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secondglance.config import PRESET_NAMES, load_settings, read_preset
from secondglance.errors import LibraryError
from secondglance.ingest.catalog import Catalog
from secondglance.pipelines.build import Parts
from secondglance.pipelines.preset import choose_preset
from secondglance.pipelines.sharing import SharedModels
from secondglance.pipelines.stamp import (
    STAMP_FILE,
    check_recall,
    make_folder,
    read_stamp,
    with_collection,
)
from secondglance.sections import StoreSettings


def open_parts(
    folder: str | Path,
    *,
    preset: str | None,
    config: str | Path | None,
    create: bool,
    settings: Mapping[str, Any] | None,
    models: SharedModels | None = None,
) -> tuple[Path, Parts, list[str]]:
    """Opens a library, or makes a new one; see `Library.open`.

    Returns:
        The folder as an absolute path, the parts, and warnings for the user.
    """
    root = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 - keeps links
    stamp = read_stamp(root)
    file = Path(config).expanduser() if config is not None else None
    warnings: list[str] = []
    if stamp is None:
        if not create:
            raise LibraryError(
                f"there is no library in {root}",
                remedy=f"make one with: secondglance index FOLDER --library {folder}",
            )
        wanted = load_settings(file=file, flags=settings)
        name = preset if preset not in (None, "auto") else None
        if name is None:
            name, warnings = choose_preset(wanted)
        resolved = load_settings(base=read_preset(name), file=file, flags=settings)
        resolved = with_collection(resolved)
    else:
        asked = read_preset(preset) if preset not in (None, "auto") else {}
        kept = {**stamp, **{k: v for k, v in asked.items() if k in ("recall", "rerank")}}
        # The stamp holds what must not change. How a model is used (sizes, batches, weights)
        # belongs to the preset that chose it.
        name = stamp.get("preset")
        made_with = read_preset(name) if name in PRESET_NAMES else {}
        resolved = load_settings(base=asked or made_with, stamp=kept, file=file, flags=settings)
        check_recall(root, stamp, resolved)
    make_folder(root, resolved, new=stamp is None)
    parts = Parts(root, resolved, Catalog(root), models=models)
    parts.is_new = stamp is None
    return root, parts, warnings


def stamp_state(folder: Path) -> tuple[int, int]:
    """Changes whenever the stamp of a library is replaced."""
    try:
        status = (folder / STAMP_FILE).stat()
    except OSError:
        return (0, 0)  # the library is away; whoever reads from it says so
    return status.st_mtime_ns, status.st_ino


def follow_stamp(folder: Path, parts: Parts) -> None:
    """Lets open parts use the store that the stamp names now, after a migration."""
    stamp = read_stamp(folder) or {}
    current = parts.settings.store
    parts.use_store(StoreSettings(**{**current.model_dump(), **stamp.get("store", {})}))
