"""Vectors of a library that are not in use: being built, kept, or to be removed.

`generations.json` lists them. What `library.json` names is in use, whatever the list says of it; so
the list is written first, and replacing the stamp turns all its entries at once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from secondglance.config import PRESET_NAMES, read_preset
from secondglance.errors import LibraryError
from secondglance.ingest.catalog import FILE_NAME as CATALOG_FILE
from secondglance.media.sqlite import database_uri
from secondglance.pipelines.leases import Lease, lock_file
from secondglance.pipelines.locking import writing
from secondglance.pipelines.replacing import write_json
from secondglance.pipelines.stamp import TOP, data_folder, is_data_name, read_stamp
from secondglance.pipelines.stores import NAMES, collection_of, server_access
from secondglance.retrieve.lexical import FILE_NAME as WORDS_FILE
from secondglance.retrieve.lexical import STORE_MARKER
from secondglance.sections import RecallSettings, StoreSettings

LIST_FILE = "generations.json"

State = Literal["building", "kept", "leaving"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Vectors of one model in one store.

    Attributes:
        state: `building` is unfinished, `kept` can be gone back to, `leaving` goes once nobody
            uses it.
        stamp: As `library.json` would say it.
        paths: Folders and files that were named when it was begun, besides those of the library.
    """

    state: State
    stamp: dict[str, Any]
    paths: tuple[str, ...] = ()

    @property
    def store(self) -> StoreSettings:
        """Where its vectors are, without secrets."""
        return StoreSettings(**self.stamp["store"])

    def folder(self, library: Path) -> Path:
        """Where its catalog lies."""
        return data_folder(library, self.stamp)

    def is_at(self, stamp: dict[str, Any]) -> bool:
        """Whether it is the data that a stamp names."""
        return _place(self.stamp) == _place(stamp)


def _place(stamp: dict[str, Any]) -> tuple[Any, ...]:
    store = StoreSettings(**stamp.get("store", {}))
    return stamp.get("data", TOP), store.backend, store.uri, store.collection


def model_name(stamp: dict[str, Any]) -> str:
    """The first pass's model of a stamp, for people."""
    recall = stamp.get("recall", {})
    return "/".join(filter(None, (recall.get("model"), recall.get("pretrained"))))


def how_to_finish(library: Path, entry: Generation) -> str:
    """Commands that finish an unfinished change of the model, or give it up."""
    preset, recall = entry.stamp.get("preset"), entry.stamp["recall"]
    said = ""
    if preset in PRESET_NAMES:
        said = f" --preset {preset}"
        usual = read_preset(preset).get("recall", {})
    if not said or any(value != usual.get(key, _default(key)) for key, value in recall.items()):
        said += "".join(f" --set recall.{key}={value}" for key, value in recall.items() if value)
    start = f"secondglance index --library {library}"
    return f"{start}{said}; or: {start} --discard"


def _default(key: str) -> Any:
    return RecallSettings.model_fields[key].default


def read_generations(library: Path) -> list[Generation]:
    """What is not in use, in the order in which it came.

    Raises:
        LibraryError: The list is damaged.
    """
    path = library / LIST_FILE
    try:
        listed = [
            Generation(
                state=entry["state"], stamp=dict(entry["stamp"]), paths=tuple(entry["paths"])
            )
            for entry in json.loads(path.read_text("utf-8"))
        ]
        for each in listed:
            # A name that leads elsewhere must never be followed: what is listed may be removed.
            if not is_data_name(str(each.stamp.get("data", TOP))):
                raise ValueError(f"data = {each.stamp['data']!r} names no folder of a library")
            if each.state not in get_args(State) or not isinstance(each.stamp["recall"], dict):
                raise ValueError(f"{each.state!r} is no state, or the model is not said")
            each.is_at({})  # raises where the store makes no sense
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LibraryError(
            f"cannot use {path}: {error}",
            remedy="delete it; the vectors in use are not touched, and folders generation-* that "
            f"{library / 'library.json'} does not name may be deleted with it",
        ) from error
    stamp = read_stamp(library) or {}
    return [each for each in listed if not each.is_at(stamp)]


def write_generations(library: Path, listed: Sequence[Generation]) -> None:
    """Replaces the list; the entry of what is in use may be among them.

    Raises:
        LibraryError: It cannot be written; the old one stands.
    """
    path = library / LIST_FILE
    try:
        if not listed:
            path.unlink(missing_ok=True)
            return
        write_json(path, [asdict(each) for each in listed])
    except OSError as error:
        raise LibraryError(
            f"cannot write {path}: {error.strerror}",
            remedy="check that the disk has room and that the folder may be written; "
            "nothing was changed",
        ) from error


def mark(library: Path, entry: Generation) -> None:
    """Adds an entry, in the place of one for the same vectors."""
    others = [each for each in read_generations(library) if not each.is_at(entry.stamp)]
    write_generations(library, [*others, entry])


def describe(library: Path) -> list[dict[str, Any]]:
    """What is not in use, for `status`."""
    return [
        {
            "model": model_name(each.stamp),
            "preset": each.stamp.get("preset"),
            "state": each.state,
            "files": files_in(each.folder(library)),
            "store": where(each.folder(library), each.store),
        }
        for each in read_generations(library)
    ]


def files_in(data: Path) -> int:
    """How many files have vectors, by a catalog that another process may be writing."""
    path = data / CATALOG_FILE
    if not path.is_file():
        return 0
    query = (
        "SELECT count(*) FROM files f JOIN contents c ON c.hash = f.hash "
        "WHERE c.done AND f.state = 'done'"
    )
    try:
        with contextlib.closing(sqlite3.connect(database_uri(path), uri=True)) as database:
            return int(database.execute(query).fetchone()[0])
    except sqlite3.Error:
        return 0  # made just now


def sweep(library: Path, *, known: Sequence[StoreSettings] = ()) -> list[str]:
    """Removes what is to leave and nobody uses; the caller holds the library's lock.

    Args:
        library: The folder.
        known: Settings that may hold the token of a server.

    Returns:
        What could not be removed and why, for the user; what is in use still is not among it.
    """
    listed = read_generations(library)
    leaving = [each for each in listed if each.state == "leaving"]
    if not leaving:
        return []
    left, problems = [each for each in listed if each.state != "leaving"], []
    for each in leaving:
        gone, problem = _remove(library, each, known)
        if problem is not None:
            problems.append(problem)
        if not gone:
            left.append(each)
    write_generations(library, left)
    return problems


def sweep_if_free(library: Path, *, known: Sequence[StoreSettings] = ()) -> None:
    """As `sweep`, where nobody writes to the library, and it may be written."""
    with contextlib.suppress(LibraryError):
        if any(each.state == "leaving" for each in read_generations(library)):
            with writing(library, wait=False):
                sweep(library, known=known)


def _remove(
    library: Path, entry: Generation, known: Sequence[StoreSettings]
) -> tuple[bool, str | None]:
    """Whether vectors are gone, or nothing more can be done about them; and what to tell."""
    data, store = entry.folder(library), entry.store
    if not data.is_dir():
        return True, None
    lease = Lease.take(lock_file(data, store), alone=True)
    if lease is None:
        return False, None  # somebody searches it; who comes later removes it
    try:
        problem = remove_store(data, _with_token(store, known))
        stamp = read_stamp(library) or {}
        if entry.stamp.get("data", TOP) != stamp.get("data", TOP):
            _remove_data(library, data)
    finally:
        lease.release()
    # What is kept on purpose is told once; what failed is tried again.
    return problem is None or is_shared(store), problem


def _remove_data(library: Path, data: Path) -> None:
    if data != library:
        shutil.rmtree(data, ignore_errors=True)
        return
    for name in (CATALOG_FILE, WORDS_FILE):
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                (data / f"{name}{suffix}").unlink(missing_ok=True)
    (data / STORE_MARKER).unlink(missing_ok=True)


def _with_token(store: StoreSettings, known: Sequence[StoreSettings]) -> StoreSettings:
    for each in known:
        if each.uri == store.uri and each.uri is not None:
            update = {"token": each.token, "timeout_s": each.timeout_s}
            return store.model_copy(update=update)
    return store


def where(data: Path, settings: StoreSettings) -> str:
    """Where a store keeps its vectors, for people; without what an address may keep secret."""
    if settings.uri is None:
        return str(data / NAMES[settings.backend])
    scheme, slashes, rest = settings.uri.rpartition("://")
    place = scheme + slashes + rest.rpartition("@")[2]
    return f"{place}, collection {collection_of(settings)}"


def is_shared(settings: StoreSettings) -> bool:
    """Whether the vectors are in a Milvus Lite folder elsewhere, which is never deleted."""
    return settings.uri is not None and "://" not in settings.uri


def remove_store(data: Path, settings: StoreSettings) -> str | None:
    """Deletes a store that nobody has open; returns why it was kept, if it was."""
    if settings.uri is None:
        place = data / NAMES[settings.backend]
        shutil.rmtree(place, ignore_errors=True)
        return f"{place} could not be removed; delete it by hand" if place.exists() else None
    if is_shared(settings):
        return f"{where(data, settings)} may hold other collections and was kept"
    from secondglance.retrieve.milvus_server import connect
    from secondglance.retrieve.milvus_words import words_collection

    try:
        client, _, _ = connect(settings.uri, **server_access(settings))
        name = collection_of(settings)
        client.drop_collection(name)
        client.drop_collection(words_collection(name))
        client.close()
    except Exception as error:  # the client lets those of gRPC through
        return f"{where(data, settings)} could not be removed: {error}"
    return None


def discard(library: Path, *, known: Sequence[StoreSettings] = ()) -> tuple[int, list[str]]:
    """Gives up what is being built and what was kept; the caller holds the library's lock.

    Returns:
        How many were given up, and what could not be removed.
    """
    listed = read_generations(library)
    given_up = sum(each.state != "leaving" for each in listed)
    write_generations(library, [replace(each, state="leaving") for each in listed])
    return given_up, sweep(library, known=known)
