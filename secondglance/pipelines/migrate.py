"""Moves the vectors of a library to another store, or makes a second library of it.

The copy grows beside the store in use. `migration.json` in the library's folder says where to, so
that a killed run is gone on with; `library.json` is replaced last, in one rename, once both stores
were compared. Until then every search uses the old store.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from secondglance.errors import DimensionError, InputError, LibraryError, StoreError
from secondglance.ingest.catalog import FILE_NAME as CATALOG_FILE
from secondglance.pipelines import copying
from secondglance.pipelines.build import Parts
from secondglance.pipelines.generations import Generation, mark, where
from secondglance.pipelines.opening import absolute
from secondglance.pipelines.replacing import replacing, write_json
from secondglance.pipelines.stamp import (
    STAMP_FILE,
    TOP,
    make_empty,
    new_collection,
    read_stamp,
    stamped_store,
    write_stamp,
)
from secondglance.pipelines.stores import NAMES, open_store
from secondglance.retrieve.store import Store
from secondglance.sections import StoreSettings

MARKER = "migration.json"
COPIED_BESIDE = ("fusion.json",)
"""Files of a library that a second one takes along as they are."""

Stage = Literal["copy", "compare"]


class MigrateOptions(TypedDict, total=False):
    """What `Library.migrate` takes; see `migrate`."""

    token: str | None
    collection: str | None
    new_library: str | Path | None
    remove_old: bool
    overwrite: bool
    sample: int
    min_recall: float
    on_progress: Callable[[Stage, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """What a migration did.

    Attributes:
        library: The library that uses the new store now.
        store: Where its vectors are, for people.
        index: How that is searched.
        records: Copied and compared.
        written: By this run; fewer if it went on from an earlier one.
        searches: Sampled vectors that both stores were asked for.
        recall: Mean share of the true ten nearest that the new store finds.
        old: Where the old store is, if it was kept.
        settings: Of the new store.
        warnings: For the user.
    """

    library: str
    store: str
    index: str
    records: int
    written: int
    searches: int
    recall: float
    old: str | None
    settings: StoreSettings
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line, without settings, which hold secrets."""
        return {key: value for key, value in asdict(self).items() if key != "settings"}


def target_settings(
    to: str, current: StoreSettings, *, token: str | None = None, collection: str | None = None
) -> StoreSettings:
    """The settings of the store that a user names.

    Args:
        to: `faiss`, `exact`, `milvus` (a file in the library), a path that ends in `.db`, or the
            address of a server.
        current: Of the library; index and limits are kept.
        token: Of the server.
        collection: On the server; None for a name of its own.

    Raises:
        InputError: It is none of these.
    """
    changed: dict[str, Any] = {"uri": None, "collection": collection}
    if to in NAMES:
        changed["backend"] = to
    elif "://" in to or to.endswith(".db"):
        address = to if "://" in to else str(absolute(to))
        changed |= {"backend": "milvus", "uri": address}
    else:
        raise InputError(
            f"{to!r} is no store",
            remedy="say faiss, exact, milvus, a path that ends in .db, or an address such as "
            "http://host:19530",
        )
    if collection is not None and changed["uri"] is None:
        raise InputError(
            f"the collection {collection!r} goes with the address of a Milvus server, not {to!r}",
            remedy="leave it out",
        )
    if token is not None and "://" not in to:
        raise InputError(
            f"a token goes with the address of a Milvus server, not {to!r}", remedy="leave it out"
        )
    if token is not None or current.uri is not None:
        changed["token"] = token  # one server's secret is not for another
    return StoreSettings(**{**current.model_dump(exclude={"collection", "uri"}), **changed})


def migrate(
    parts: Parts,
    to: str,
    *,
    token: str | None = None,
    collection: str | None = None,
    new_library: str | Path | None = None,
    remove_old: bool = False,
    overwrite: bool = False,
    sample: int = copying.SAMPLE,
    min_recall: float = copying.RECALL_FLOOR,
    on_progress: Callable[[Stage, int, int], None] = lambda stage, done, total: None,
) -> Migration:
    """Copies a library's records to another store, compares, and switches over.

    The caller holds the library's lock. A run that was killed is gone on with by the same call.

    Args:
        parts: Of the library.
        to: See `target_settings`.
        token: Of the new server; kept nowhere.
        collection: On the server; None for a name of its own.
        new_library: A folder that becomes a second library; this one stays as it is.
        remove_old: The old store is to go after the switch; `Library.migrate` removes it.
        overwrite: Empty a target that holds other data.
        sample: Vectors to compare by searching for them.
        min_recall: Share of the true nearest that an approximate new store must find.
        on_progress: Called with (stage, records done, records in all).

    Raises:
        InputError: The target is no store, or is the one in use; an option is out of range.
        StoreError: A store cannot be reached, the target holds other data, or the copy differs.
        LibraryError: The library is empty, or the folder of the second one cannot be used.
    """
    if sample < 1 or not 0 <= min_recall <= 1:
        raise InputError(
            f"sample is {sample} and min_recall {min_recall:g}; at least 1, and 0 to 1, are allowed"
        )
    if new_library is not None and remove_old:
        raise InputError("a second library leaves the store of the first; leave out --remove-old")
    if parts.catalog.get_meta("dim") is None:
        raise LibraryError(
            f"the library {parts.folder} holds no vectors yet",
            remedy="index something, or make a new library with --set store.backend=...",
        )
    wanted = target_settings(to, parts.settings.store, token=token, collection=collection)
    folder = parts.folder if new_library is None else _second_folder(parts.folder, new_library)
    data = parts.data if new_library is None else folder
    current = parts.settings.store
    if new_library is None:
        _check_other(parts.data, current, wanted)
    settings, resumed = _begin(parts, folder, wanted, named=collection is not None)
    source = parts.store()
    dim = source.dim
    total = source.count()
    target = _open_target(data, settings, dim=dim)
    try:
        if not resumed or overwrite:
            _check_empty(target, settings, data, overwrite=overwrite)
        _note(folder, parts, settings)
        on_progress("copy", 0, total)
        written = copying.copy(
            source,
            target,
            resumed=resumed or overwrite,
            on_progress=lambda done: on_progress("copy", done, total),
        )
        on_progress("compare", 0, 0)
        found = copying.compare(source, target, sample=sample, recall_floor=min_recall)
        index = target.capabilities.index
    finally:
        target.close()
    stamp = dict(read_stamp(parts.folder) or {})
    left = Generation(state="leaving", stamp={**stamp, "store": stamped_store(current)})
    stamp["store"] = stamped_store(settings)
    if new_library is not None:
        _copy_beside(parts, folder)
        stamp.pop("data", None)
    elif remove_old:
        mark(folder, left)  # it counts as soon as the stamp names another store
    write_stamp(folder, stamp)
    (folder / MARKER).unlink(missing_ok=True)
    warnings = list(_overridden())
    if token is not None:
        warnings.append(
            "the token is written nowhere: set SECONDGLANCE_STORE__TOKEN wherever this library "
            "is opened"
        )
    return Migration(
        library=str(folder),
        store=where(data, settings),
        index=index,
        records=found.records,
        written=written,
        searches=found.searches,
        recall=round(found.recall, 4),
        old=where(parts.data, current),
        settings=settings,
        warnings=tuple(warnings),
    )


def _check_other(folder: Path, current: StoreSettings, wanted: StoreSettings) -> None:
    one_place = current.backend == wanted.backend and current.uri == wanted.uri
    if one_place and wanted.collection in (None, current.collection):
        raise InputError(
            f"the library {folder} uses that store already: {where(folder, current)}",
            remedy="name another store, or another folder with --new-library",
        )


def _second_folder(first: Path, named: str | Path) -> Path:
    folder = absolute(named)
    if folder == first:
        raise LibraryError(f"{folder} is the library itself", remedy="name another folder")
    if (folder / STAMP_FILE).exists():
        raise LibraryError(
            f"{folder} is a library already", remedy="name a new or empty folder for the second one"
        )
    marker = _read_marker(folder)
    if marker is not None and marker["source"] != str(first):
        raise LibraryError(
            f"{folder} is half a copy of the library {marker['source']}",
            remedy="finish that first, or name another folder",
        )
    make_empty(folder, begun=marker is not None)
    return folder


def _begin(
    parts: Parts, folder: Path, wanted: StoreSettings, *, named: bool
) -> tuple[StoreSettings, bool]:
    """The settings of the target, and whether an earlier run began to write to it."""
    marker = _read_marker(folder)
    # What was copied of an earlier model's vectors is of no use.
    if marker is not None and (marker["source"], marker["data"]) == _source(parts):
        begun = dict(marker["store"])
        same_place = begun["backend"] == wanted.backend and begun["uri"] == wanted.uri
        if same_place and (not named or begun["collection"] == wanted.collection):
            return wanted.model_copy(update={"collection": begun["collection"]}), True
    if wanted.uri is not None and not named:
        wanted = wanted.model_copy(update={"collection": new_collection()})
    return wanted, False


def _read_marker(folder: Path) -> dict[str, Any] | None:
    path = folder / MARKER
    try:
        found = json.loads(path.read_text("utf-8"))
        # A second library's folder may have been moved along; the rest must be there.
        return {
            "source": str(found["source"]),
            "data": str(found.get("data", TOP)),
            "store": dict(found["store"]),
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LibraryError(
            f"cannot use {path}: {error}",
            remedy="delete it; the library is not touched by an unfinished migration",
        ) from error


def _source(parts: Parts) -> tuple[str, str]:
    """Which vectors are copied: of which library, and of which model."""
    return str(parts.folder), TOP if parts.data == parts.folder else parts.data.name


def _note(folder: Path, parts: Parts, settings: StoreSettings) -> None:
    source, data = _source(parts)
    found = {"source": source, "data": data, "store": stamped_store(settings)}
    write_json(folder / MARKER, found)


def _open_target(folder: Path, settings: StoreSettings, *, dim: int) -> Store:
    try:
        return open_store(folder, settings, dim=dim)
    except DimensionError as error:
        raise StoreError(
            f"the target holds other data: {error.problem}",
            remedy="name another store or collection, or remove what is there",
        ) from error


def _check_empty(target: Store, settings: StoreSettings, folder: Path, *, overwrite: bool) -> None:
    count = target.count()
    if count and not overwrite:
        raise StoreError(
            f"the target holds {count} records already: {where(folder, settings)}; another "
            "library, or an earlier copy, may be there",
            remedy="name another store or collection, or replace what is there with --overwrite",
        )


def _copy_beside(parts: Parts, folder: Path) -> None:
    """The catalog, as of now, and what was learned; the rest is derived."""
    path = folder / CATALOG_FILE
    with replacing(path) as temporary:
        old, new = sqlite3.connect(parts.catalog.path), sqlite3.connect(temporary)
        try:
            old.backup(new)
            # The word index is another one, which has to take in everything.
            names = new.execute(
                "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'reworded%'"
            ).fetchall()
            for (name,) in names:
                new.execute(f"DROP TRIGGER {name}")
            new.commit()
        finally:
            old.close()
            new.close()
    for name in COPIED_BESIDE:
        if (parts.folder / name).is_file():
            shutil.copy2(parts.folder / name, folder / name)


def _overridden() -> list[str]:
    names = [f"SECONDGLANCE_STORE__{key}" for key in ("BACKEND", "URI", "COLLECTION")]
    there = [name for name in names if name in os.environ]
    if not there:
        return []
    return [f"{', '.join(there)} of the environment goes above the library's new store; unset it"]
