"""Finding the files: a recursive walk that reads no media."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from secondglance.errors import InputError, MediaError
from secondglance.ingest import media_types, sidecars, text
from secondglance.types import FileFailure, MediaItem

# Files that systems leave behind in every folder.
JUNK = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(slots=True)
class Scan:
    """What a walk came across besides the items it yields.

    Attributes:
        failures: Folders and names that could not be read, and rows of manifests without a file.
        unreadable: Folders whose files are unknown now; nothing below them counts as deleted.
        sidecars: Files that describe others, and are no items of their own.
    """

    failures: list[FileFailure] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)
    sidecars: set[str] = field(default_factory=set)


def check_paths(
    paths: Sequence[str | Path], *, is_known: Callable[[Path], bool] = lambda _: False
) -> list[Path]:
    """Absolute paths of what a user named, without repeats or paths inside one another.

    Args:
        paths: Files and folders.
        is_known: Whether a path that does not exist was there before: a drive that is away.

    Raises:
        InputError: One does not exist, and never did.
    """
    absolute: list[Path] = []
    for path in paths:
        full = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - keeps links
        if not full.exists() and not is_known(full):
            raise InputError(
                f"there is no file or folder {str(path)!r}",
                remedy="check the path; if it is on a drive, connect it. Nothing was changed",
            )
        absolute.append(full)
    unique = sorted(set(absolute))
    return [p for p in unique if not any(other in p.parents for other in unique)]


def walk(
    root: Path, *, exclude: Path, scan: Scan, within: Path | None = None
) -> Iterator[MediaItem]:
    """The files below a folder (or the file itself), in a stable order.

    Hidden files and folders are passed over. Links to files are followed, links to folders are
    not, so a loop cannot trap the walk. Captions are those of manifests found on the way.

    Args:
        root: Absolute.
        exclude: The library's own folder.
        scan: Collects what went wrong.
        within: A folder above that was indexed before: items belong to it.
    """
    folder = root if root.is_dir() else root.parent
    base = within or folder
    found = list(_files(root, exclude, scan)) if root.is_dir() else [root]
    captions = _captions(found, base, scan)
    if not root.is_dir() and media_types.kind_by_extension(root) == "manifest":
        # A manifest named by itself stands for the files that it lists.
        found += [path for path in sorted(captions) if path.is_file()]
    beside = sidecars.match(found if root.is_dir() else [*siblings(folder), *found])
    # A sidecar that is named by itself is wanted for its own sake.
    owned = {path for each in beside.values() for path in each} - {root}
    scan.sidecars.update(map(str, owned))
    for path in found:
        if path in owned:
            continue
        try:
            status = path.stat()
        except OSError as error:
            scan.failures.append(FileFailure(path=_shown(path), reason=_reason(error)))
            continue
        if not stat.S_ISREG(status.st_mode):
            continue  # sockets, pipes and devices: reading one may never end
        yield MediaItem(
            path=path,
            root=base,
            kind=media_types.kind_by_extension(path),
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            caption=captions.get(path, ""),
            sidecars=beside.get(path, ()),
            sidecar_stamp=sidecars.stamp(beside[path]) if path in beside else "",
        )


def _files(folder: Path, exclude: Path, scan: Scan) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        scan.unreadable.append(folder)
        scan.failures.append(FileFailure(path=_shown(folder), reason=_reason(error)))
        return
    for entry in ordered:
        if entry.name.startswith(".") or entry.name.lower() in JUNK:
            continue
        path = folder / entry.name
        if _shown(path) != str(path):
            reason = "the name is not valid UTF-8; rename it"
            scan.failures.append(FileFailure(path=_shown(path), reason=reason))
        elif entry.is_dir(follow_symlinks=False):
            if path != exclude:
                yield from _files(path, exclude, scan)
        elif not entry.is_dir():
            yield path


def siblings(folder: Path) -> list[Path]:
    """What stands beside a file that is named by itself: its sidecars are among them.

    Nothing hidden, in a stable order; empty where the folder cannot be read.
    """
    try:
        return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    except OSError:
        return []


def _captions(files: Sequence[Path], base: Path, scan: Scan) -> dict[Path, str]:
    """Words for media files, from every manifest among `files`."""
    captions: dict[Path, list[str]] = {}
    for manifest in files:
        if media_types.kind_by_extension(manifest) != "manifest":
            continue
        try:
            rows = list(text.manifest_rows(manifest, max_bytes=1 << 30))
        except (MediaError, OSError):
            continue  # reported when the manifest itself is decoded
        for row in rows:
            if not row.media:
                continue
            media = Path(os.path.normpath(manifest.parent / row.media))
            where = f"{manifest}:{row.number}"
            if base not in media.parents:
                reason = f"{row.media!r} is outside {base}; index its folder as well"
                scan.failures.append(FileFailure(path=where, reason=reason))
            elif not media.is_file():
                reason = f"there is no file {row.media!r}"
                scan.failures.append(FileFailure(path=where, reason=reason))
            else:
                words = captions.setdefault(media, [])
                words += [line for line in row.text.split("\n") if line and line not in words]
    return {path: "\n".join(words) for path, words in captions.items()}


def _shown(path: Path) -> str:
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
