"""Documents by any of their names."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote


class Resolver:
    """Finds the one canonical id of a document by any of its names.

    A name is taken, in this order, for a canonical id, for an alias, and for the end of a path: a
    file name, or a few folders and a file name. The first of these that anything fits decides; if
    it fits several documents, the name stands for none of them. Dots and doubled slashes in paths
    and the composition of accents do not matter; percent-encoded names and ones with backslashes
    are tried last.

    Args:
        documents: The canonical id of each, then its aliases: absolute paths, content hash, record
            ids, paths of copies.
    """

    def __init__(self, documents: Iterable[Sequence[str]]) -> None:
        self._exact: list[dict[str, set[str]]] = [{}, {}]
        self._ends: dict[str, list[tuple[str, str]]] = {}
        self._ambiguous: dict[str, tuple[str, ...]] = {}
        self._ids: list[str] = []
        for id, *aliases in documents:
            self._ids.append(id)
            self._exact[0].setdefault(_key(id), set()).add(id)
            for alias in aliases:
                self._exact[1].setdefault(_key(alias), set()).add(id)
            for path in {_key(name) for name in (id, *aliases)}:
                self._ends.setdefault(posixpath.basename(path), []).append((path, id))

    @property
    def ids(self) -> tuple[str, ...]:
        """All canonical ids."""
        return tuple(self._ids)

    @property
    def ambiguous(self) -> Mapping[str, tuple[str, ...]]:
        """Names asked for that fit several documents, and the ids of these."""
        return self._ambiguous

    def resolve(self, name: str) -> str | None:
        """The canonical id of the document that has this name; None if none or several have."""
        decoded = unquote(name, errors="surrogateescape")
        for written in dict.fromkeys((name, decoded, name.replace("\\", "/"))):
            found = self._named(_key(written))
            if len(found) == 1:
                return next(iter(found))
            if found:
                self._ambiguous[name] = tuple(sorted(found))
                return None
        return None

    def _named(self, key: str) -> set[str]:
        for names in self._exact:
            if key in names:
                return names[key]
        ends = self._ends.get(posixpath.basename(key), ())
        return {id for path, id in ends if path == key or path.endswith(f"/{key}")}


def _key(name: str) -> str:
    return posixpath.normpath(unicodedata.normalize("NFC", name)) if name else name
