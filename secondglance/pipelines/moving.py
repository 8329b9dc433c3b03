"""What a library does with its vectors as a whole: move them, give them away, take some in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.pipelines.build import Parts
from secondglance.pipelines.locking import writing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from secondglance.pipelines.export import Exported, ExportOptions
    from secondglance.pipelines.import_rows import Imported
    from secondglance.pipelines.importing import ImportOptions
    from secondglance.pipelines.migrate import MigrateOptions, Migration


class Moving:
    """The part of `Library` that moves vectors."""

    folder: Path
    _parts: Parts
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

        with writing(self.folder, wait=False):
            return migrate(self._parts, to, **options)

    def export(self, out: str | Path, **options: Unpack[ExportOptions]) -> Exported:
        """Writes vectors and metadata to Parquet files; see `pipelines.export`.

        Raises:
            InputError: The folder holds something, or an option is out of range.
            LibraryBusyError: Another process indexes into this library.
        """
        from secondglance.pipelines.export import export

        may_change = self._parts.writable
        with writing(self.folder, wait=False) if may_change else contextlib.nullcontext():
            return export(self._parts, out, **options)

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
        with writing(self.folder, wait=False):
            done = import_embeddings(self._parts, folder, **options)
        self._unwanted = False
        return done

    def close(self) -> None:
        """Lets go of files and connections. May be called twice."""
        if self._unwanted:
            from secondglance.pipelines.importing import discard_if_empty

            discard_if_empty(self._parts)
            self._unwanted = False
        self._parts.close()
