"""Documents of a library by the names that judgments may have for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from secondglance.evaluation.judgments import Resolver, Unknown, matched
from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.ingest.catalog import CHUNK, Catalog
from secondglance.pipelines.records import content_hash, path_below


class Documents:
    """Every content is one document, whatever number of files holds it.

    It is named by the path of its first file below the folder that was indexed, or by the whole
    path where two folders have a file of that name. Judgments may also name it by the path of a
    copy, by its hash, or by one of its records.

    Args:
        catalog: Of the library.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        files: dict[str, list[tuple[str, str]]] = {}
        with catalog.transaction() as db:
            rows = db.execute(
                "SELECT DISTINCT files.hash, path, root FROM files "
                "JOIN records ON records.hash = files.hash "
                "WHERE files.hash IS NOT NULL ORDER BY path"
            )
            for content, path, root in rows:
                files.setdefault(content, []).append((path, path_below(path, root)))
        named = Counter(below for (_, below), *_ in files.values())
        self._names = {
            content: paths[0][0] if named[paths[0][1]] > 1 else paths[0][1]
            for content, paths in files.items()
        }
        self._contents = {name: content for content, name in self._names.items()}
        self._aliases = {
            content: [content, *(name for both in paths for name in both)]
            for content, paths in files.items()
        }
        self._resolver = self._knowing(())

    def name(self, content: str) -> str:
        """The judgments' name of a content; the content itself if no file has it."""
        return self._names.get(content, content)

    def content(self, document: str) -> str | None:
        """The content that a document of this canonical name is."""
        return self._contents.get(document)

    def same_as(self, files: Iterable[Path]) -> list[str]:
        """The documents whose bytes are those of files, by canonical name.

        Raises:
            OSError: A file cannot be read.
        """
        contents = (content_hash(file, manifest=False) for file in files)
        return [self._names[content] for content in contents if content in self._names]

    def canonical(self, name: str) -> str | None:
        """The canonical name of a document by any of its names; None if none or several fit."""
        return self._resolver.resolve(name)

    def matched(
        self, queries: Sequence[EvaluationQuery], qrels: Qrels, *, unknown: Unknown = "missed"
    ) -> tuple[dict[str, EvaluationQuery], Qrels, list[str]]:
        """Queries with their judgments by canonical names, and warnings; see `judgments.matched`.

        Raises:
            InputError: No query has judgments, or no judged document is in the library.
        """
        self._resolver = self._knowing(
            {document for grades in qrels.values() for document in grades}
        )
        kept, judged, warnings = matched(queries, qrels, self._resolver, unknown=unknown)
        return {query.id: query for query in kept}, judged, warnings

    def _knowing(self, names: Iterable[str]) -> Resolver:
        """A resolver that also knows those of the names that are ids of records.

        All ids would be very many: a video has one a stretch, a text one a passage.
        """
        records: dict[str, list[str]] = {}
        wanted = list(names)
        with self._catalog.transaction() as db:
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                marks = ",".join("?" * len(some))
                rows = db.execute(f"SELECT hash, id FROM records WHERE id IN ({marks})", some)
                for content, record in rows:
                    records.setdefault(content, []).append(record)
        return Resolver(
            (name, *self._aliases[content], *records.get(content, ()))
            for content, name in self._names.items()
        )
