"""What a library does with its vectors as a whole: move them, give them away, take some in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.pipelines.following import Following

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from typing_extensions import Unpack

    from secondglance.pipelines.beside import ChangeOptions, ModelChange
    from secondglance.pipelines.build import Parts
    from secondglance.pipelines.export import Exported, ExportOptions
    from secondglance.pipelines.import_rows import Imported
    from secondglance.pipelines.importing import ImportOptions
    from secondglance.pipelines.migrate import MigrateOptions, Migration
    from secondglance.sections import StoreSettings
    from secondglance.types import IndexReport


class Moving(Following):
    """The part of `Library` that moves vectors."""

    _unwanted = False

    def migrate(self, to: str, **options: Unpack[MigrateOptions]) -> Migration:
        """Moves the vectors to another store, or makes a second library; see `pipelines.migrate`.

        >>> library.migrate("faiss").records                 # doctest: +SKIP
        >>> library.migrate("http://milvus:19530")           # doctest: +SKIP

        Raises:
            InputError: The target is no store, or the one in use.
            StoreError: A store cannot be reached, the target holds other data, or the copy differs.
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.migrate import migrate

        with self._changing() as parts:
            before = parts.settings.store
            done = migrate(parts, to, **options)
        token, target = options.get("token"), done.settings.uri
        if token is not None and target is not None and options.get("new_library") is None:
            self._said = dataclasses.replace(self._said, token=(target, token))
        if not options.get("remove_old"):
            self._follow(wait=True)
            return done
        return self._without_old(done, before)

    def _without_old(self, done: Migration, before: StoreSettings) -> Migration:
        """Removes the old store, once nobody here or elsewhere uses it."""
        from secondglance.pipelines.generations import read_generations, sweep

        self._follow(wait=True)
        with self._changing() as parts:
            problems = sweep(self.folder, known=(before, parts.settings.store))
        waiting = any(
            each.state == "leaving" and each.store.uri == before.uri
            for each in read_generations(self.folder)
        )
        if waiting and not problems:
            problems = [
                f"{done.old} is still in use by another program, and goes once that has searched "
                "again or ended"
            ]
        old = done.old if problems else None
        return dataclasses.replace(done, old=old, warnings=(*done.warnings, *problems))

    def change_model(
        self,
        paths: Sequence[str | Path] = (),
        *,
        preset: str | None = None,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        wait: bool = False,
        **options: Unpack[ChangeOptions],
    ) -> ModelChange:
        """Builds vectors of another model beside those in use, then switches over.

        Searches go on meanwhile, here and in other processes. See `pipelines.beside`.

        >>> library.change_model(preset="laptop").report     # doctest: +SKIP

        Args:
            paths: Folders and files to index as well; those of the library are taken in anyway.
            preset: Whose models the library is to have.
            config: A TOML file of settings.
            settings: Overrides, nested like the sections of the settings.
            wait: For another process that indexes into this library, instead of an error.
            options: See `pipelines.beside.change_model`.

        Raises:
            InputError: Another change is unfinished, or the settings name no other place.
            ModelError: The new model cannot be loaded; nothing was changed.
            LibraryError: Files that are indexed cannot be embedded again; nothing was switched.
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.beside import change_model
        from secondglance.pipelines.opening import Said

        file = Path(config).expanduser() if config is not None else None
        said = Said(preset=preset, config=file, settings=settings)
        with self._changing(wait=wait) as parts:
            done = change_model(parts, said, paths, **options)
        # What was said at opening was of the old model.
        self._follow(wait=True)
        with self._changing(wait=True) as parts:
            problems = self._sweep(parts)
        return dataclasses.replace(done, warnings=(*done.warnings, *problems))

    def discard(self) -> tuple[int, list[str]]:
        """Gives up vectors of another model that are unfinished, or were kept.

        Returns:
            How many were given up, and what could not be removed and why.

        Raises:
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.generations import discard

        with self._changing() as parts:
            return discard(self.folder, known=(parts.settings.store,))

    def _with_others(self, parts: Parts, report: IndexReport) -> IndexReport:
        """What is to be said of vectors that are not in use, after a run of `index`."""
        from secondglance.pipelines.generations import how_to_finish, model_name, read_generations

        problems = self._sweep(parts)
        unfinished = [each for each in read_generations(self.folder) if each.state == "building"]
        problems += [
            f"vectors for {model_name(each.stamp)} are unfinished; finish or give them up: "
            f"{how_to_finish(self.folder, each)}"
            for each in unfinished
        ]
        return dataclasses.replace(report, warnings=(*report.warnings, *problems))

    def _sweep(self, parts: Parts) -> list[str]:
        """Removes what was in use by somebody when it was to go."""
        from secondglance.pipelines.generations import sweep

        return sweep(self.folder, known=(parts.settings.store,))

    def export(self, out: str | Path, **options: Unpack[ExportOptions]) -> Exported:
        """Writes vectors and metadata to Parquet files; see `pipelines.export`.

        Raises:
            InputError: The folder holds something, or an option is out of range.
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.export import export

        with self._changing() if self._parts.writable else self._reading() as parts:
            return export(parts, out, **options)

    def import_embeddings(self, folder: str | Path, **options: Unpack[ImportOptions]) -> Imported:
        """Takes in embeddings that were made elsewhere; see `pipelines.importing`.

        A library that was made for it goes again when it is closed, if they were unusable.

        Raises:
            InputError: The folder or an option cannot be used.
            EmbedderMismatchError: The vectors come from another model.
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.importing import import_embeddings

        self._unwanted = self._parts.is_new
        with self._changing() as parts:
            done = import_embeddings(parts, folder, **options)
        self._unwanted = False
        return done

    def close(self) -> None:
        """Lets go of files and connections. May be called twice."""
        if self._unwanted:
            from secondglance.pipelines.importing import discard_if_empty

            discard_if_empty(self._parts)
            self._unwanted = False
        self._parts.close()
