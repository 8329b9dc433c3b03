"""Opens the libraries of a server; one that fails keeps no other from being served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.config import merged
from secondglance.errors import InputError, LibraryError, SecondGlanceError
from secondglance.pipelines.sharing import SharedModels
from secondglance.server import problems
from secondglance.server.keys import keys_of_file
from secondglance.server.libraries_file import LibrarySpec
from secondglance.server.options import ServerOptions
from secondglance.server.several import Member

if TYPE_CHECKING:
    from secondglance.library import Library


def own_keys(specs: Sequence[LibrarySpec], common: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The keys of each library: its own, or else those of the server.

    Args:
        specs: The libraries.
        common: Keys of the server.

    Raises:
        InputError: A key file cannot be read, is readable by others, or holds no usable key.
    """
    return {
        spec.name: common if spec.api_key_file is None else keys_of_file(spec.api_key_file)
        for spec in specs
    }


def check_keys(
    keys: Mapping[str, tuple[str, ...]], *, host: str, share: bool, open_to_all: bool
) -> None:
    """Checks that nobody can reach a library without a key whom the operator did not let in.

    Args:
        keys: Of each library, by name.
        host: Address to listen on.
        share: Whether there is a public link.
        open_to_all: Whether the operator lets everybody in.

    Raises:
        InputError: A library can be reached by others, and has no key; names it.
    """
    for name, own in keys.items():
        try:
            ServerOptions(host=host, share=share, open_to_all=open_to_all, api_keys=own)
        except InputError as error:
            raise InputError(f"library {name}: {error.problem}", remedy=error.remedy) from None


def open_members(
    specs: Sequence[LibrarySpec],
    *,
    keys: Mapping[str, tuple[str, ...]],
    stack: ExitStack,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[list[Member], list[str]]:
    """Opens libraries, which share models that are the same.

    Args:
        specs: The libraries.
        keys: Of each, by name.
        stack: Closes them.
        config: A TOML file of settings for those that name none.
        settings: Overrides for all, below those of each.

    Returns:
        The libraries in their order, and warnings for the operator.

    Raises:
        LibraryError: None can be opened.
    """
    from secondglance.library import Library

    models = SharedModels()
    members, warnings, failures = [], [], []
    for spec in specs:
        library: Library | None = None
        reason = ""
        try:
            library = stack.enter_context(
                Library.open(
                    spec.path,
                    config=spec.config or config,
                    create=False,
                    settings=merged(settings or {}, spec.settings),
                    models=models,
                )
            )
            warnings += [f"{spec.name}: {warning}" for warning in library.warnings]
        except SecondGlanceError as error:
            # Others are told without paths; whoever runs the server may read them.
            reason = problems.without_paths(error.problem)
            failures.append(f"{spec.name} is unavailable: {error}")
        except OSError as error:
            reason = f"its folder cannot be used: {error.strerror or 'I/O error'}"
            failures.append(f"{spec.name} is unavailable: {error}")
        members.append(
            Member(
                name=spec.name,
                title=spec.title,
                library=library,
                reason=reason,
                api_keys=keys[spec.name],
                index_roots=spec.roots,
                reports=spec.reports or own_reports(spec.path),
            )
        )
    if len(failures) == len(specs):
        raise LibraryError(
            "no library can be opened: " + "; ".join(failures[:5]),
            remedy="check the folders; make a library with: secondglance index FOLDER",
        )
    return members, warnings + failures


def own_reports(library: Path) -> tuple[Path, ...]:
    """The folder of `evaluate` reports that a library has itself, if it has one."""
    own = library / "reports"
    return (own,) if own.is_dir() else ()
