"""The public door: open a library folder, index into it, search it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secondglance.config import Settings
from secondglance.ingest.scan import check_paths
from secondglance.pipelines import duplicates as duplicates_pipeline
from secondglance.pipelines import index as index_pipeline
from secondglance.pipelines import judge as judge_pipeline
from secondglance.pipelines import locate
from secondglance.pipelines import search as search_pipeline
from secondglance.pipelines import verify as verify_pipeline
from secondglance.pipelines.build import Parts
from secondglance.pipelines.judge import POOL_SYSTEMS, Pool, PoolSystem
from secondglance.pipelines.locate import Located
from secondglance.pipelines.moving import Moving
from secondglance.pipelines.near import SAME_SHARE
from secondglance.pipelines.opening import Said, open_parts
from secondglance.pipelines.removal import Confirm
from secondglance.pipelines.sharing import SharedModels
from secondglance.pipelines.status import library_status
from secondglance.sections import Engine
from secondglance.types import Content, IndexReport, Kind, PairScore, Query, SearchResult

if TYPE_CHECKING:
    from PIL import Image
    from typing_extensions import Unpack

    from secondglance.evaluation.types import Evaluation, EvaluationQuery, Qrels
    from secondglance.pipelines.evaluate_run import EvaluateOptions
    from secondglance.pipelines.explain_hit import ExplainOptions
    from secondglance.pipelines.explanation import Explanation
    from secondglance.retrieve.filters import Filter


class Library(Moving):
    """A library folder: what was indexed, with which models, and how to search it.

    >>> library = Library.open("my.library", preset="starter")   # doctest: +SKIP
    >>> library.index(["photos"])                                # doctest: +SKIP
    >>> library.search("two dogs on a beach", k=5).hits          # doctest: +SKIP
    """

    def __init__(
        self, folder: Path, parts: Parts, said: Said, *, warnings: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, parts, said)
        self.warnings = tuple(warnings)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        preset: str | None = None,
        config: str | Path | None = None,
        create: bool = True,
        settings: Mapping[str, Any] | None = None,
        models: SharedModels | None = None,
    ) -> Library:
        """Opens a library, or makes a new one.

        Args:
            folder: The library folder.
            preset: For a new library; `auto` or None takes the best that this machine can run.
                An existing library keeps its models.
            config: A TOML file of settings.
            create: Whether a folder without a library becomes one.
            settings: Overrides, nested like the sections of the settings.
            models: Given to several libraries, those with the same models load them once. What a
                library has of them it lets go when it is closed.

        Raises:
            LibraryError: There is no library and `create` is off, or the folder cannot be used.
            EmbedderMismatchError: The settings name another CLIP model than the library's.
            ConfigError: A setting is unknown or not allowed.
        """
        file = Path(config).expanduser() if config is not None else None
        said = Said(preset=preset, config=file, settings=settings)
        root, parts, warnings = open_parts(folder, said, create=create, models=models)
        return cls(root, parts, said, warnings=warnings)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        with self._reading() as parts:
            return parts.settings

    def index(
        self,
        paths: Sequence[str | Path],
        *,
        prune: bool = False,
        confirm: Confirm | None = None,
        wait: bool = False,
        retry_failed: bool = False,
        engine: Engine | None = None,
        address: str | None = None,
        on_progress: Callable[[index_pipeline.Progress], None] = lambda _: None,
    ) -> IndexReport:
        """Brings the library up to date with folders and files; see `pipelines.index.index`.

        Another thread can end it, see `rerank.stopping`: nothing that was indexed is lost.

        Args:
            paths: Folders and files.
            prune: Also remove files elsewhere that are gone.
            confirm: Asked before a prune removes more than a tenth of the files; None refuses.
            wait: For another process that indexes into this library, instead of an error.
            retry_failed: Try files again that failed before and did not change.
            engine: What decodes and embeds: this machine, or a Ray cluster; None: the settings'.
            address: Of the cluster; None: `ingest.ray_address`.
            on_progress: Called often.

        Raises:
            ClusterError: Ray cannot be started or reached, or was lost; see `pipelines.index`.
            InputError: A path does not exist, or there is none.
            LibraryBusyError: Another process indexes into this library.
            LibraryError: The folder cannot be written.
            IndexStoppedError: It was told to stop; its report says what was done.
        """
        with self._changing(wait=wait) as parts:
            report = index_pipeline.index(
                parts,
                paths,
                prune=prune,
                confirm=confirm,
                retry_failed=retry_failed,
                engine=engine,
                address=address,
                on_progress=on_progress,
            )
            return self._with_others(parts, report)

    def watch(
        self,
        paths: Sequence[str | Path],
        *,
        settle_s: float = 2.0,
        stop: threading.Event | None = None,
        on_report: Callable[[IndexReport], None] = lambda _: None,
        on_progress: Callable[[index_pipeline.Progress], None] = lambda _: None,
    ) -> IndexReport:
        """Indexes, and again whenever something changed, until told to stop.

        Between runs other processes may search the library, and index into it.

        Args:
            paths: Folders and files.
            settle_s: How long a file must stay as it is before it counts as written.
            stop: Set it to end the watch; the sum of all runs is returned then.
            on_report: Called after each run that changed something or has something new to say.
            on_progress: Called often during a run.

        Raises:
            IndexInterruptedError: Ctrl-C; its report is the sum of all runs.
            InputError: There is no path, or one does not exist.
        """
        from secondglance.pipelines.watch import watch

        def index(roots: Sequence[Path], postponed: Set[Path]) -> IndexReport:
            with self._changing(wait=True) as parts:
                try:
                    return index_pipeline.index(
                        parts, roots, postponed=postponed, on_progress=on_progress
                    )
                finally:
                    parts.close_store()

        with self._reading() as parts:
            checked = check_paths(paths, is_known=parts.catalog.knows)
        return watch(
            checked,
            index,
            exclude=self.folder,
            settle_s=settle_s,
            stop=stop or threading.Event(),
            on_report=on_report,
        )

    def search(
        self,
        query: str | Query,
        *,
        k: int | None = None,
        recall: int | None = None,
        rerank: bool | None = None,
        filter: str | Filter | None = None,
        kind: Kind | None = None,
        min_score: float | None = None,
        budget_ms: float | None = None,
        group: bool = True,
        group_duplicates: bool | None = None,
        words: bool | None = None,
        on_recall: Callable[[SearchResult], None] | None = None,
    ) -> SearchResult:
        """Answers a query in two passes; see `pipelines.search.search`.

        Raises:
            InputError: The query, the filter or a number cannot be used.
        """
        found = self._retrying(
            lambda parts: search_pipeline.search(
                parts,
                Query(text=query) if isinstance(query, str) else query,
                k=k,
                recall=recall,
                rerank=rerank,
                filter=filter,
                kind=kind,
                min_score=min_score,
                budget_ms=budget_ms,
                group=group,
                group_duplicates=group_duplicates,
                words=words,
                on_recall=on_recall,
            )
        )
        if self._trouble is None:
            return found
        return dataclasses.replace(found, warnings=(*found.warnings, self._trouble))

    def rerank(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """Scores candidates that the caller brings with the library's reranker, in their order.

        Raises:
            MediaError: The query cannot be read.
            ModelError: The reranker cannot be loaded.
            RerankError: The second pass as a whole failed.
        """
        with self._reading() as parts:
            return parts.reranker().score(query, documents, instruction=instruction)

    def explain(
        self, query: str | Query, candidate: str | Content, **options: Unpack[ExplainOptions]
    ) -> Explanation:
        """What the second pass's score of a hit depends on; see `pipelines.explain_hit.explain`.

        >>> hit = library.search("two dogs").hits[0]         # doctest: +SKIP
        >>> library.explain("two dogs", hit.id).regions      # doctest: +SKIP

        Raises:
            InputError: The query is empty, no record has this id, or there is no second pass.
            MediaError: A file is absent or cannot be read.
            StoppedError: Whoever asked went away; see `rerank.stopping`.
        """
        from secondglance.pipelines.explain_hit import explain

        asked = Query(text=query) if isinstance(query, str) else query
        with self._reading() as parts:
            return explain(parts, asked, candidate, **options)

    def shown_picture(self, record_id: str) -> Image.Image | None:
        """The picture of a record in full size, of a video its keyframe; None for a text.

        `pipelines.explanation.overlay` draws an explanation over it.

        Raises:
            InputError: No record has this id.
            MediaError: The file is absent or cannot be read.
        """
        from secondglance.pipelines.explain_hit import shown_picture

        with self._reading() as parts:
            return shown_picture(parts, record_id)

    def evaluate(
        self, queries: Sequence[EvaluationQuery], qrels: Qrels, **options: Unpack[EvaluateOptions]
    ) -> Evaluation:
        """Compares systems on judged queries; see `pipelines.evaluate.evaluate`.

        Raises:
            InputError: Queries, judgments or an option cannot be used.
        """
        from secondglance.pipelines.evaluate import evaluate

        with self._reading() as parts:
            return evaluate(parts, queries, qrels, **options)

    def load(self) -> None:
        """Loads both models now, so that the first search does not wait for them.

        Raises:
            ModelError: A checkpoint cannot be found, fetched or loaded.
        """
        with self._reading() as parts:
            parts.embedder()
            parts.reranker()

    def loaded(self) -> dict[Literal["recall", "rerank"], int]:
        """Bytes of memory of the models that are loaded; loads none."""
        return self._parts.loaded()

    def unload(self) -> None:
        """Frees the memory of both models, after what they work on; the next search loads them."""
        with self._reading() as parts:
            parts.unload()

    def duplicates(
        self,
        *,
        threshold: float | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> duplicates_pipeline.Duplicates:
        """Copies, and pictures that look alike; see `pipelines.duplicates.find_duplicates`.

        Raises:
            InputError: The threshold is out of range.
        """
        with self._reading() as parts:
            return duplicates_pipeline.find_duplicates(
                parts,
                threshold=SAME_SHARE if threshold is None else threshold,
                on_progress=on_progress,
            )

    def pool(
        self,
        queries: Sequence[EvaluationQuery],
        *,
        systems: Sequence[PoolSystem] = POOL_SYSTEMS,
        depth: int = 10,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Pool:
        """Collects what is to be judged: top results of systems; see `pipelines.judge.pool`.

        Raises:
            InputError: A system or the depth is not allowed, or there is nothing to judge.
        """
        with self._reading() as parts:
            return judge_pipeline.pool(
                parts, queries, systems=systems, depth=depth, on_progress=on_progress
            )

    def unknown_documents(self, documents: Sequence[str]) -> list[str]:
        """Those ids of documents in judgments that name no file of the library."""
        with self._reading() as parts:
            return judge_pipeline.unknown_documents(parts, documents)

    def verify(self, *, repair: bool = False) -> verify_pipeline.Verification:
        """Compares catalog and store, id by id; see `pipelines.verify.verify`.

        Raises:
            LibraryBusyError: Another process indexes into this library.
        """
        if not self._parts.writable:
            with self._reading() as parts:
                return verify_pipeline.verify(parts)
        with self._changing() as parts:
            return verify_pipeline.verify(parts, repair=repair)

    def located(self, id: str) -> Located | None:
        """What a record is and where its file is, inside the indexed folders; see `locate`."""
        return self._retrying(lambda parts: locate.locate(parts, id))

    def roots(self) -> tuple[str, ...]:
        """The folders that were indexed."""
        with self._reading() as parts:
            return tuple(parts.catalog.roots())

    def counts(self) -> dict[str, int]:
        """What the library holds, once its store has answered; opens no model.

        Raises:
            StoreError: The store cannot be reached or opened.
        """
        with self._reading() as parts:
            if parts.catalog.get_meta("dim") is not None:
                parts.store().count()
            return parts.catalog.counts()

    def status(self) -> dict[str, Any]:
        """What the library holds and how it is set up; opens no model."""
        with self._reading() as parts:
            return library_status(parts)

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
