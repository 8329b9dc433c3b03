"""Which libraries a server has: named by their folders, or by a TOML file with a table for each."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secondglance.config import read_toml
from secondglance.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What stands in addresses as it is."""
ALLOWED = "letters a-z, digits, '.', '_' and '-', at most 64, a letter or digit first"
MAX_LIBRARIES = 200
KEYS = ("path", "title", "roots", "api_key_file", "reports", "config", "settings")
MAX_TITLE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class LibrarySpec:
    """A library as the operator names it.

    Attributes:
        name: In addresses.
        path: The library folder.
        title: For people; empty for the name.
        roots: Folders from which its jobs may index besides its own.
        api_key_file: With keys of its own; None for those of the server.
        reports: Folders of `evaluate` reports.
        config: A TOML file of settings; None for the server's.
        settings: Overrides, nested like the sections of the settings.
    """

    name: str
    path: Path
    title: str = ""
    roots: tuple[Path, ...] = ()
    api_key_file: Path | None = None
    reports: tuple[Path, ...] = ()
    config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def specs_of_folders(folders: Sequence[Path]) -> list[LibrarySpec]:
    """Libraries by the stems of their folders' names.

    Raises:
        InputError: Two folders have the same stem or are the same, or a stem makes no name.
    """
    found = []
    for folder in folders:
        # Without links: `~/current` may be one.
        stem = Path(os.path.abspath(folder.expanduser())).stem  # noqa: PTH100
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:64]
        if not name:
            raise InputError(
                f"the folder {folder} makes no name for an address",
                remedy="name its library in a file: serve --libraries FILE.toml",
            )
        title = "" if name == stem else stem
        found.append(LibrarySpec(name=name, path=folder.expanduser(), title=title))
    _check_apart(found, remedy="name them in a file: serve --libraries FILE.toml")
    return found


def read_libraries_file(file: Path) -> list[LibrarySpec]:
    """Libraries of a TOML file, in its order; its paths are relative to it.

    A table `[library.NAME]` for each has `path`, and may have `title`, `roots`, `api_key_file`,
    `reports`, `config` and `settings`.

    Raises:
        ConfigError: The file is missing or is not TOML.
        InputError: A key is unknown, a value cannot be used, a name is not allowed, or two tables
            name the same folder.
    """
    file = file.expanduser()
    tables = read_toml(file)
    for key in tables:
        if key != "library":
            raise InputError(
                f"unknown key {key!r} in {file}",
                remedy="write a table for each library: [library.NAME]",
            )
    libraries = tables.get("library")
    if not isinstance(libraries, dict) or not libraries:
        raise InputError(
            f"{file} names no library",
            remedy='write a table for each: [library.photos] with path = "photos.library"',
        )
    if len(libraries) > MAX_LIBRARIES:
        raise InputError(f"{file} names {len(libraries)} libraries; {MAX_LIBRARIES} are allowed")
    found = [_spec(name, table, file) for name, table in libraries.items()]
    _check_apart(found, remedy=f"change {file}")
    return found


def _spec(name: str, table: Any, file: Path) -> LibrarySpec:
    where = f"[library.{name}] of {file}"
    if not NAME.fullmatch(name):
        raise InputError(
            f"{name!r} in {file} cannot be the name of a library", remedy=f"allowed are {ALLOWED}"
        )
    if not isinstance(table, dict):
        raise InputError(f"library.{name} in {file} is no table", remedy=f"write [library.{name}]")
    for key in table:
        if key in ("keys", "key", "api_keys", "api_key"):
            raise InputError(
                f"{key} in {where}: keys do not belong into this file",
                remedy="write them to a file that only you can read, and name it: api_key_file",
            )
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(KEYS)}"
            raise InputError(f"unknown key {key!r} in {where}; {hint}")
    read = _Table(table, where, file.absolute().parent)
    path = read.path("path")
    if path is None:
        raise InputError(f"there is no path in {where}", remedy='write path = "FOLDER"')
    settings = table.get("settings", {})
    if not isinstance(settings, dict):
        raise InputError(
            f"settings in {where} is no table",
            remedy="write for instance settings.search.recall = 100",
        )
    title = read.text("title")
    if len(title) > MAX_TITLE or not title.isprintable():
        raise InputError(f"title in {where} has more than {MAX_TITLE} characters, or a line break")
    return LibrarySpec(
        name=name,
        path=path,
        title=title,
        roots=read.folders("roots"),
        api_key_file=read.path("api_key_file"),
        reports=read.folders("reports"),
        config=read.path("config"),
        settings=settings,
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """Values of a table, checked."""

    values: Mapping[str, Any]
    where: str
    folder: Path

    def text(self, key: str) -> str:
        value = self.values.get(key, "")
        if not isinstance(value, str):
            raise InputError(f"{key} = {value!r} in {self.where} is no text")
        return value

    def path(self, key: str) -> Path | None:
        if key not in self.values:
            return None
        return self._placed(self.text(key), key)

    def folders(self, key: str) -> tuple[Path, ...]:
        given = self.values.get(key, [])
        if not isinstance(given, list) or not all(isinstance(path, str) for path in given):
            raise InputError(
                f"{key} in {self.where} is no list of folders", remedy=f'write {key} = ["FOLDER"]'
            )
        found = tuple(self._placed(path, key) for path in given)
        for path in found:
            if not path.is_dir():
                raise InputError(
                    f"{key} in {self.where}: {path} is not a folder", remedy="check the path"
                )
        return found

    def _placed(self, path: str, key: str) -> Path:
        if not path or "\0" in path:
            raise InputError(f"{key} = {path!r} in {self.where} is no path")
        return self.folder / Path(path).expanduser()


def _check_apart(specs: Sequence[LibrarySpec], *, remedy: str) -> None:
    # Addresses differ by case, and people do not.
    names = Counter(spec.name.casefold() for spec in specs)
    twice = [spec for spec in specs if names[spec.name.casefold()] > 1]
    if twice:
        shown = ", ".join(str(spec.path) for spec in twice[:5])
        raise InputError(
            f"{len(twice)} libraries would be called {twice[0].name!r}: {shown}", remedy=remedy
        )
    folders: dict[Path, LibrarySpec] = {}
    for spec in specs:
        other = folders.setdefault(spec.path.resolve(), spec)
        if other is not spec:
            raise InputError(
                f"{other.name} and {spec.name} are the same library folder: {spec.path}",
                remedy=remedy,
            )
