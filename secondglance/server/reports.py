"""Reports of `secondglance evaluate`, found in the folders that the operator names."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from secondglance.server.library_schemas import EvaluationOut
from secondglance.server.problems import ApiError, not_found
from secondglance.types import utf8_text

PAGE = "report.html"
NUMBERS = "evaluation.json"
MAX_NUMBERS_MB = 64
"""Of the file that title, time and number of queries are read from."""
MAX_PAGE_MB = 128
MAX_REPORTS = 500
MAX_TITLE = 300
MAX_CREATED = 40
MAX_SYSTEMS = 50


def find(folders: Sequence[Path]) -> dict[str, Path]:
    """The reports by name: folders that are one, or hold some one level down."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            inside = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError:
            inside = []
        for path in (folder, *inside):
            if len(found) < MAX_REPORTS and _is_report(path, folder):
                name, number = path.resolve().name or "report", 2
                unique = name
                while unique in found and found[unique] != path:
                    unique, number = f"{name} {number}", number + 1
                found[unique] = path
    return found


def describe(name: str, folder: Path) -> EvaluationOut:
    """What a report is about, as far as its file says."""
    said = _facts(folder)
    library = PurePath(said.library).name
    title = ": ".join(filter(None, (library, ", ".join(said.systems)))) or name
    return EvaluationOut(
        name=name, title=title[:MAX_TITLE], created=said.created, queries=said.queries
    )


def page(folders: Sequence[Path], name: str, hidden: Mapping[str, str]) -> str:
    """The page of a report.

    Args:
        folders: That the operator names.
        name: Of the report, as `find` gives it.
        hidden: Paths of this machine, and what stands for each in the page.

    Raises:
        ApiError: There is no such report, or it cannot be read.
    """
    folder = find(folders).get(name)
    if folder is None:
        raise not_found(f"there is no report {name[:200]!r}")
    try:
        path = folder / PAGE
        if path.stat().st_size > MAX_PAGE_MB << 20:
            raise ApiError(503, "report-too-large", f"the report is larger than {MAX_PAGE_MB} MiB")
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        raise not_found(f"the report {name[:200]!r} cannot be read") from None
    library = _facts(folder).library
    paths = ({library: PurePath(library).name} if library else {}) | dict(hidden)
    for path_, shown in sorted(paths.items(), key=lambda item: -len(item[0])):
        if len(PurePath(path_).parts) > 1:
            for written in dict.fromkeys((path_, html.escape(path_))):
                text = text.replace(written, html.escape(shown))
    return text


def _is_report(path: Path, folder: Path) -> bool:
    """Whether a folder holds a report's page, itself and not by a link that leads elsewhere."""
    try:
        page = (path / PAGE).resolve(strict=True)
        return page.is_file() and page.is_relative_to(folder.resolve(strict=True))
    except (OSError, RuntimeError):
        return False


@dataclass(frozen=True, slots=True)
class _Facts:
    library: str = ""
    systems: tuple[str, ...] = ()
    created: str | None = None
    queries: int | None = None


def _facts(folder: Path) -> _Facts:
    """What the numbers of a report say; nothing where there are none that can be read."""
    path = folder / NUMBERS
    try:
        inside = path.resolve(strict=True).is_relative_to(folder.resolve(strict=True))
        status = path.stat()
    except (OSError, RuntimeError):
        return _Facts()
    if not inside or not path.is_file() or status.st_size > MAX_NUMBERS_MB << 20:
        return _Facts()
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=MAX_REPORTS)
def _read(path: Path, mtime_ns: int, size: int) -> _Facts:
    """Whatever is of the shape that is expected; once for each state of the file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return _Facts()
    said = content.get("evaluation") if isinstance(content, dict) else None
    if not isinstance(said, dict):
        return _Facts()
    library, created, queries = (said.get(name) for name in ("library", "created", "queries"))
    systems = said.get("systems")
    return _Facts(
        library=utf8_text(library) if isinstance(library, str) else "",
        systems=tuple(
            utf8_text(system["name"])[:MAX_TITLE]
            for system in (systems if isinstance(systems, list) else ())[:MAX_SYSTEMS]
            if isinstance(system, dict) and isinstance(system.get("name"), str)
        ),
        created=utf8_text(created)[:MAX_CREATED] if isinstance(created, str) else None,
        queries=len(queries) if isinstance(queries, dict) else None,
    )
