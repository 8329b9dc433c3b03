"""Every error that secondglance raises on purpose.

SecondGlanceError            one line for the user: what is wrong, and the remedy
|-- ConfigError              a setting is unknown or has a value that is not allowed
|-- InputError               the caller's arguments: missing path, empty query, bad filter
|   `-- MediaError           one file or one candidate cannot be read; the job goes on
|-- MissingExtraError        a package is not installed that an optional part needs
|-- ModelError               a checkpoint is missing, incomplete or of the wrong kind
|-- LibraryError             the library folder as a whole cannot be used
|   |-- CatalogError         catalog.sqlite is damaged or cannot be written
|   |-- EmbedderMismatchError the vectors were made by another embedder
|   `-- LibraryBusyError     another process is writing to the library
|-- StoreError               the vector store is unreachable or refuses an operation
|   `-- DimensionError       a vector's length is not the store's
|-- ClusterError             a Ray cluster cannot be started or reached, or was lost
|-- RerankError              the second pass as a whole failed; recall order is still good
`-- StoppedError             whoever asked went away; nothing failed
"""

from __future__ import annotations


class SecondGlanceError(Exception):
    """Base of all deliberate errors.

    Args:
        problem: What is wrong, naming the bad value and what is allowed.
        remedy: What the user can do about it.
    """

    def __init__(self, problem: str, *, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem} ({self.remedy})" if self.remedy else self.problem

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments would be lost on the way back from a decode worker.
        return (_rebuild, (type(self), self.problem, self.remedy))


def _rebuild(cls: type[SecondGlanceError], problem: str, remedy: str | None) -> SecondGlanceError:
    return cls(problem, remedy=remedy)


class ConfigError(SecondGlanceError):
    """A setting is unknown or has a value that is not allowed."""


class InputError(SecondGlanceError):
    """The caller's arguments cannot be used."""


class MediaError(InputError):
    """One file or one candidate cannot be read. Never stops a job."""


class MissingExtraError(SecondGlanceError, ImportError):
    """A package is not installed that an optional part needs."""


class ModelError(SecondGlanceError):
    """A checkpoint is missing, incomplete or of the wrong kind."""


class LibraryError(SecondGlanceError):
    """The library folder as a whole cannot be used."""


class CatalogError(LibraryError):
    """The catalog is damaged or cannot be written."""


class EmbedderMismatchError(LibraryError):
    """The library's vectors were made by another embedder."""


class LibraryBusyError(LibraryError):
    """Another process is writing to the library."""


class StoreError(SecondGlanceError):
    """The vector store is unreachable or refuses an operation."""


class DimensionError(StoreError):
    """A vector's length is not the store's."""


class ClusterError(SecondGlanceError):
    """A Ray cluster cannot be started or reached, or was lost while it worked."""


class RerankError(SecondGlanceError):
    """The second pass as a whole failed."""


class StoppedError(SecondGlanceError):
    """Work was given up because whoever asked for it went away."""
