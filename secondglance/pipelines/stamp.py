"""What a library folder was made with: `library.json`, replaced whole when a library moves."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from secondglance.config import Settings
from secondglance.errors import EmbedderMismatchError, LibraryError
from secondglance.ingest.catalog import SCHEMA_VERSION
from secondglance.pipelines.replacing import write_json
from secondglance.pipelines.stores import DEFAULT_COLLECTION
from secondglance.sections import RecallSettings, RerankSettings, StoreSettings

STAMP_FILE = "library.json"

TOP = "."
"""Where the data of a library lies that never changed its model: in the library's own folder."""

_GENERATION = re.compile("generation-[0-9a-f]{8}")

IDENTITY = ("model", "pretrained", "revision")
"""What makes a first pass's model another one."""

STAMP_VERSION = 2
"""Of a stamp that says where the data lies; one without is of version 1, as ever."""


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """The settings that a library was made with; None if there is no library."""
    path = folder / STAMP_FILE
    try:
        stamp: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = int(stamp.pop("schema_version"))
        if not is_data_name(str(stamp.get("data", TOP))):
            raise ValueError(f"data = {stamp['data']!r} names no folder of a library")
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise LibraryError(f"{folder} is a file, not a folder", remedy="name a folder") from None
    except OSError as error:
        raise LibraryError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LibraryError(
            f"{path} is damaged: {error}",
            remedy="restore it from a backup; catalog and vectors beside it are untouched",
        ) from error
    if version > STAMP_VERSION:
        raise LibraryError(
            f"{folder} has schema {version}, this program knows {STAMP_VERSION}",
            remedy="update secondglance",
        )
    return stamp


def is_data_name(name: str) -> bool:
    """Whether this can name where a library's data lies, below its folder."""
    return name == TOP or _GENERATION.fullmatch(name) is not None


def data_folder(folder: Path, stamp: Mapping[str, Any]) -> Path:
    """Where catalog, words and store of a library lie, unless the store is a server."""
    name = stamp.get("data", TOP)
    return folder if name == TOP else folder / name


def new_data_name() -> str:
    """A name for the data of another model, that none had before."""
    return f"generation-{secrets.token_hex(4)}"


def identity_of(recall: RecallSettings) -> dict[str, Any]:
    """Which model a first pass is, as a stamp says it."""
    return recall.model_dump(include=set(IDENTITY))


def differs_in(stamp: Mapping[str, Any], recall: RecallSettings) -> str | None:
    """The first key of `IDENTITY` by which settings name another model than a stamp.

    Returns:
        None if they name the same one; what a stamp does not say differs from nothing.
    """
    made_with = stamp.get("recall", {})
    differing = (
        key for key in IDENTITY if key in made_with and made_with[key] != getattr(recall, key)
    )
    return next(differing, None)


def check_recall(folder: Path, stamp: Mapping[str, Any], resolved: Settings) -> None:
    """Refuses settings that name another embedder than the library's.

    Raises:
        EmbedderMismatchError: They do.
    """
    name = differs_in(stamp, resolved.recall)
    if name is None:
        return
    variable = f"SECONDGLANCE_RECALL__{name.upper()}"
    raise EmbedderMismatchError(
        f"the library {folder} was made with recall.{name} = {stamp['recall'][name]!r}, "
        f"not {getattr(resolved.recall, name)!r}",
        remedy=f"unset {variable}"
        if variable in os.environ
        else "leave that setting out; or change the model of the library, which is "
        f"searched meanwhile: secondglance index --library {folder} --preset NAME, or "
        "--set recall.model=...",
    )


def with_collection(settings: Settings) -> Settings:
    """Two libraries on one server must not share a collection by accident."""
    store = settings.store
    if store.uri is None or store.collection is not None:
        return settings
    named = store.model_copy(update={"collection": new_collection()})
    return settings.model_copy(update={"store": named})


def new_collection() -> str:
    """A name that no other library has."""
    return f"{DEFAULT_COLLECTION}_{secrets.token_hex(4)}"


def write_stamp(folder: Path, stamp: Mapping[str, Any]) -> None:
    """Replaces the stamp in one rename: who opens the library sees the old one or the new one.

    Raises:
        LibraryError: It cannot be written; the old one stands.
    """
    path = folder / STAMP_FILE
    version = STAMP_VERSION if stamp.get("data", TOP) != TOP else SCHEMA_VERSION
    try:
        write_json(path, {"schema_version": version, **stamp})
    except OSError as error:
        raise LibraryError(
            f"cannot write {path}: {error.strerror}", remedy="check that the disk has room"
        ) from error


def _of_reranker(settings: RerankSettings) -> set[str]:
    where = {"url", "dialect"} if settings.backend == "remote" else set()
    return {"backend", "model", "revision"} | where


def stamp_of(settings: Settings) -> dict[str, Any]:
    """What a library made with these settings is stamped with."""
    return {
        "preset": settings.preset,
        "recall": identity_of(settings.recall),
        # An API key is a secret, too.
        "rerank": settings.rerank.model_dump(include=_of_reranker(settings.rerank)),
        "store": stamped_store(settings.store),
    }


def stamped_store(settings: StoreSettings) -> dict[str, Any]:
    """What is kept of a store's settings. A token is a secret, and comes from the environment."""
    return settings.model_dump(mode="json", exclude={"token", "timeout_s", "retry_s"})


def with_stamped_store(settings: StoreSettings, stamp: Mapping[str, Any]) -> StoreSettings:
    """These settings, but for what a stamp says of the store."""
    return StoreSettings(**{**settings.model_dump(), **stamp.get("store", {})})


def make_folder(folder: Path, settings: Settings) -> None:
    """Makes the folder of a new library, with its stamp.

    Raises:
        LibraryError: It holds other files, or cannot be written.
    """
    make_empty(folder)
    write_stamp(folder, stamp_of(settings))


def make_empty(folder: Path, *, begun: bool = False) -> None:
    """Makes a folder for a library.

    Args:
        folder: May be there.
        begun: Whether what lies in it belongs to the library already.

    Raises:
        LibraryError: It holds other files, or cannot be written.
    """
    try:
        if not begun and folder.is_dir() and any(folder.iterdir()):
            raise LibraryError(
                f"{folder} holds other files", remedy="name a new or empty folder for the library"
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryError(
            f"cannot make a library in {folder}: {error.strerror}",
            remedy="choose a folder that may be written, on a disk with room",
        ) from error
