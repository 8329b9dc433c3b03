"""Folders by name: what the interface says of them, and what it lets callers name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from secondglance.errors import InputError
from secondglance.server.problems import not_found, without_paths
from secondglance.types import utf8_text

if TYPE_CHECKING:
    from secondglance.library import Library

MAX_SHOWN = 20
"""Names that an error lists."""


class Roots:
    """The folders of a library and those from which jobs may index, by name.

    A name is the last part of the path. Where two are the same, the folder above is said, too:
    `photos (2023)`; and where that does not help, a number. It is made anew for each use: a job
    may add folders.

    Args:
        library: Whose folders.
        more: Further ones that the operator allows; they need not have been indexed.
    """

    def __init__(self, library: Library, more: Sequence[Path] = ()) -> None:
        allowed = [os.path.abspath(path.expanduser()) for path in more]  # noqa: PTH100 - keeps links
        self.by_name = _named(sorted({*library.roots(), *allowed}))
        # Longest first: a root may lie in another.
        self._by_length = sorted(
            self.by_name.items(), key=lambda item: len(str(item[1])), reverse=True
        )

    def name(self, root: str) -> str:
        """Of one of the roots."""
        return next(name for name, path in self.by_name.items() if str(path) == root)

    def shown(self, path: str) -> str:
        """A path from the name of its root down; its last part if it lies in none."""
        pure = PurePath(path)
        for name, root in self._by_length:
            if pure.is_relative_to(root):
                return (PurePosixPath(name) / pure.relative_to(root).as_posix()).as_posix()
        return pure.name

    def in_text(self, text: str) -> str:
        """A message with the roots by name, and only the last part of other absolute paths."""
        for name, root in self._by_length:
            if root != Path(root.anchor):
                text = text.replace(f"{root}{os.sep}", f"{name}/").replace(str(root), name)
        return without_paths(text)

    def path(self, asked: str) -> Path:
        """The folder or file that a caller names: a root, or what lies below one.

        Args:
            asked: `NAME` or `NAME/sub/folder`.

        Raises:
            InputError: It is absolute, has `..` in it, or cannot be a path.
            ApiError: 404: there is no such root, or nothing of this name that lies in it, with
                all links followed.
        """
        first, _, rest = asked.partition("/")
        below = PurePosixPath(rest)
        if "\0" in asked or "\\" in asked or below.is_absolute() or ".." in below.parts:
            raise InputError(
                f"{asked[:200]!r} is no path below a folder of the library",
                remedy="name a folder as GET /v1/library does, and what is in it: NAME/sub/folder",
            )
        root = self.by_name.get(first)
        if root is None:
            names = ", ".join(sorted(self.by_name)[:MAX_SHOWN]) or "none"
            raise not_found(f"there is no folder {first[:200]!r} in the library; it has: {names}")
        if not below.parts:
            return root
        nothing = not_found(f"there is no {rest[:200]!r} in {first}")
        if any(part.startswith(".") for part in below.parts):
            raise nothing  # hidden: a scan passes over them, too
        try:
            if not (root / below).resolve(strict=True).is_relative_to(root.resolve(strict=True)):
                raise nothing
        except (OSError, RuntimeError, ValueError):  # gone, a loop of links, or half a character
            raise nothing from None
        return root / below


def _named(paths: Sequence[str]) -> dict[str, Path]:
    roots = [Path(path) for path in paths]
    count = Counter(_last(root) for root in roots)
    found: dict[str, Path] = {}
    for root in roots:
        name = _last(root)
        if count[name] > 1 and root.parent.name:
            name = f"{name} ({root.parent.name})"
        unique, number = name, 2
        while unique in found:
            unique, number = f"{name} {number}", number + 1
        found[unique] = root
    return found


def _last(root: Path) -> str:
    # A name that is no UTF-8 could not be said in JSON.
    return utf8_text(root.name or "root")
