"""Opening a library folder: its stamp, the settings in force, and the parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secondglance.config import PRESET_NAMES, Settings, load_settings, read_preset
from secondglance.errors import LibraryError
from secondglance.ingest.catalog import Catalog
from secondglance.pipelines.build import Parts
from secondglance.pipelines.leases import Lease, lock_file
from secondglance.pipelines.preset import choose_preset
from secondglance.pipelines.sharing import SharedModels
from secondglance.pipelines.stamp import (
    IDENTITY,
    STAMP_FILE,
    check_recall,
    data_folder,
    differs_in,
    make_folder,
    read_stamp,
    with_collection,
    with_stamped_store,
)
from secondglance.sections import StoreSettings

TRIES = 10
"""The stamp may be replaced while a library is opened; nobody does so again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What whoever opens a library says of its settings; see `Library.open`.

    Attributes:
        token: Of one server, by its address; above all others.
    """

    preset: str | None = None
    config: Path | None = None
    settings: Mapping[str, Any] | None = None
    token: tuple[str, str] | None = None

    @property
    def named(self) -> str | None:
        """The preset, if one was named."""
        return self.preset if self.preset != "auto" else None


def absolute(path: str | Path) -> Path:
    """The absolute path of a folder or file as a user named it, with links as they are."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - keeps links


def open_parts(
    folder: str | Path, said: Said, *, create: bool, models: SharedModels | None = None
) -> tuple[Path, Parts, list[str]]:
    """Opens a library, or makes a new one; see `Library.open`.

    Returns:
        The folder as an absolute path, the parts, and warnings for the user.
    """
    root = absolute(folder)
    stamp = read_stamp(root)
    warnings: list[str] = []
    if stamp is None:
        if not create:
            raise LibraryError(
                f"there is no library in {root}",
                remedy=f"make one with: secondglance index FOLDER --library {folder}",
            )
        wanted = load_settings(file=said.config, flags=said.settings)
        name = said.named
        if name is None:
            name, warnings = choose_preset(wanted)
        base = read_preset(name)
        resolved = with_collection(load_settings(base=base, file=said.config, flags=said.settings))
        make_folder(root, resolved)
    state, found, lease = _leased(root)
    try:
        if stamp is not None:
            resolved = _resolve(found, said)
            check_recall(root, found, resolved)
        catalog = Catalog(data_folder(root, found))
        parts = Parts(root, resolved, catalog, lease=lease, models=models)
    except BaseException:
        lease.release()
        raise
    parts.is_new = stamp is None
    parts.stamped = state
    return root, parts, warnings


def _resolve(stamp: Mapping[str, Any], said: Said) -> Settings:
    """The settings of an existing library."""
    kept = {key: value for key, value in stamp.items() if key != "data"}
    asked = read_preset(said.named) if said.named is not None else {}
    kept |= {key: value for key, value in asked.items() if key in ("recall", "rerank")}
    # The stamp holds what must not change. How a model is used (sizes, batches, weights)
    # belongs to the preset that chose it.
    name = stamp.get("preset")
    made_with = read_preset(name) if name in PRESET_NAMES else {}
    return load_settings(base=asked or made_with, stamp=kept, file=said.config, flags=said.settings)


def _leased(root: Path) -> tuple[tuple[int, int], dict[str, Any], Lease]:
    """The stamp, and a lock that keeps what it names from being removed.

    Raises:
        LibraryError: There is no library any more.
    """
    for _ in range(TRIES):
        state = stamp_state(root)
        stamp = read_stamp(root)
        if stamp is None:
            break
        store = StoreSettings(**stamp.get("store", {}))
        lease = Lease.take(lock_file(data_folder(root, stamp), store))
        # Only what no stamp names is removed: if it is named now, it stays while we hold this.
        if lease is not None and read_stamp(root) == stamp:
            return state, stamp, lease
        if lease is not None:
            lease.release()
    raise LibraryError(
        f"the library {root} went away or changed again and again while it was opened",
        remedy="try again",
    )


def stamp_state(folder: Path) -> tuple[int, int]:
    """Changes whenever the stamp of a library is replaced."""
    try:
        status = (folder / STAMP_FILE).stat()
    except OSError:
        return (0, 0)  # the library is away; whoever reads from it says so
    return status.st_mtime_ns, status.st_ino


def follow(before: Parts, said: Said) -> Parts:
    """Parts of what the stamp names now, after a migration or a change of the model.

    Returns:
        `before`, if nothing changed that matters, or the library is away.
    """
    root = before.folder
    if read_stamp(root) is None:
        return before
    state, stamp, lease = _leased(root)
    try:
        settings = _followed(stamp, before.settings, said)
        data = data_folder(root, stamp)
        if settings == before.settings and data == before.data:
            before.stamped = state
            lease.release()
            return before
        parts = Parts(root, settings, Catalog(data), lease=lease)
    except BaseException:
        lease.release()
        raise
    parts.stamped = state
    before.hand_over(parts)
    if "recall" in before.loaded():
        # Searches go on with the old model until the new one is there.
        try:
            parts.embedder()
        except BaseException:
            parts.close()
            raise
    return parts


def _followed(stamp: Mapping[str, Any], before: Settings, said: Said) -> Settings:
    """What was said at opening still holds, but for the model and the store."""
    if differs_in(stamp, before.recall) is None:
        resolved = _resolve(stamp, said)
        recall = before.recall
    else:
        # A preset that was named then is that of the old model.
        resolved = _resolve(stamp, replace(said, preset=None))
        recall = resolved.recall
        if differs_in(stamp, recall) is not None:
            named = {key: value for key, value in stamp["recall"].items() if key in IDENTITY}
            recall = recall.model_copy(update={**named, "sha256": None})
    store = with_stamped_store(resolved.store, stamp)
    if said.token is not None and said.token[0] == store.uri:
        store = StoreSettings(**{**store.model_dump(), "token": said.token[1]})
    elif before.store.uri not in (None, store.uri):
        # One server's secret is not for another.
        store = store.model_copy(update={"token": None})
    return resolved.model_copy(update={"recall": recall, "store": store})
