"""The public door: open a library folder, index into it, search it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secondglance.config import Settings
from secondglance.ingest.presence import absence
from secondglance.ingest.scan import check_paths
from secondglance.pipelines import duplicates as duplicates_pipeline
from secondglance.pipelines import fitting, locate
from secondglance.pipelines import index as index_pipeline
from secondglance.pipelines import judge as judge_pipeline
from secondglance.pipelines import search as search_pipeline
from secondglance.pipelines import verify as verify_pipeline
from secondglance.pipelines.build import Parts
from secondglance.pipelines.judge import POOL_SYSTEMS, Pool, PoolSystem
from secondglance.pipelines.locate import Located
from secondglance.pipelines.locking import writing
from secondglance.pipelines.moving import Moving
from secondglance.pipelines.near import SAME_SHARE
from secondglance.pipelines.opening import follow_stamp, open_parts, stamp_state
from secondglance.pipelines.removal import Confirm
from secondglance.pipelines.sharing import SharedModels
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

    def __init__(self, folder: Path, parts: Parts, *, warnings: Sequence[str] = ()) -> None:
        self.folder = folder
        self.warnings = tuple(warnings)
        self._parts = parts
        self._stamped = stamp_state(folder)

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
        root, parts, warnings = open_parts(
            folder, preset=preset, config=config, create=create, settings=settings, models=models
        )
        return cls(root, parts, warnings=warnings)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._parts.settings

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
        with self._writing(wait=wait):
            return index_pipeline.index(
                self._parts,
                paths,
                prune=prune,
                confirm=confirm,
                retry_failed=retry_failed,
                engine=engine,
                address=address,
                on_progress=on_progress,
            )

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
            with self._writing(wait=True):
                try:
                    return index_pipeline.index(
                        self._parts, roots, postponed=postponed, on_progress=on_progress
                    )
                finally:
                    self._parts.close_store()

        return watch(
            check_paths(paths, is_known=self._parts.catalog.knows),
            index,
            exclude=self.folder,
            settle_s=settle_s,
            stop=stop or threading.Event(),
            on_report=on_report,
        )

    def _writing(self, *, wait: bool) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes from writing to the library."""
        return writing(self.folder, wait=wait)

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
        self._follow()
        return search_pipeline.search(
            self._parts,
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

    def _follow(self) -> None:
        """Another process may have moved the library to another store."""
        stamped = stamp_state(self.folder)
        if stamped != self._stamped:
            follow_stamp(self.folder, self._parts)
            self._stamped = stamped

    def rerank(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        """Scores candidates that the caller brings with the library's reranker, in their order.

        Raises:
            MediaError: The query cannot be read.
            ModelError: The reranker cannot be loaded.
            RerankError: The second pass as a whole failed.
        """
        return self._parts.reranker().score(query, documents, instruction=instruction)

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
        return explain(self._parts, asked, candidate, **options)

    def shown_picture(self, record_id: str) -> Image.Image | None:
        """The picture of a record in full size, of a video its keyframe; None for a text.

        `pipelines.explanation.overlay` draws an explanation over it.

        Raises:
            InputError: No record has this id.
            MediaError: The file is absent or cannot be read.
        """
        from secondglance.pipelines.explain_hit import shown_picture

        return shown_picture(self._parts, record_id)

    def evaluate(
        self, queries: Sequence[EvaluationQuery], qrels: Qrels, **options: Unpack[EvaluateOptions]
    ) -> Evaluation:
        """Compares systems on judged queries; see `pipelines.evaluate.evaluate`.

        Raises:
            InputError: Queries, judgments or an option cannot be used.
        """
        from secondglance.pipelines.evaluate import evaluate

        return evaluate(self._parts, queries, qrels, **options)

    def load(self) -> None:
        """Loads both models now, so that the first search does not wait for them.

        Raises:
            ModelError: A checkpoint cannot be found, fetched or loaded.
        """
        self._parts.embedder()
        self._parts.reranker()

    def loaded(self) -> dict[Literal["recall", "rerank"], int]:
        """Bytes of memory of the models that are loaded; loads none."""
        return self._parts.loaded()

    def unload(self) -> None:
        """Frees the memory of both models, after what they work on; the next search loads them."""
        self._parts.unload()

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
        return duplicates_pipeline.find_duplicates(
            self._parts,
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
        return judge_pipeline.pool(
            self._parts, queries, systems=systems, depth=depth, on_progress=on_progress
        )

    def unknown_documents(self, documents: Sequence[str]) -> list[str]:
        """Those ids of documents in judgments that name no file of the library."""
        return judge_pipeline.unknown_documents(self._parts, documents)

    def verify(self, *, repair: bool = False) -> verify_pipeline.Verification:
        """Compares catalog and store, id by id; see `pipelines.verify.verify`.

        Raises:
            LibraryBusyError: Another process indexes into this library.
        """
        if not self._parts.writable:
            return verify_pipeline.verify(self._parts)
        with self._writing(wait=False):
            return verify_pipeline.verify(self._parts, repair=repair)

    def located(self, id: str) -> Located | None:
        """What a record is and where its file is, inside the indexed folders; see `locate`."""
        return locate.locate(self._parts, id)

    def roots(self) -> tuple[str, ...]:
        """The folders that were indexed."""
        return tuple(self._parts.catalog.roots())

    def counts(self) -> dict[str, int]:
        """What the library holds, once its store has answered; opens no model.

        Raises:
            StoreError: The store cannot be reached or opened.
        """
        self._follow()
        if self._parts.catalog.get_meta("dim") is not None:
            self._parts.store().count()
        return self._parts.catalog.counts()

    def status(self) -> dict[str, Any]:
        """What the library holds and how it is set up; opens no model."""
        catalog = self._parts.catalog
        store = self._parts.store() if catalog.get_meta("dim") is not None else None
        return {
            "library": str(self.folder),
            "preset": self.settings.preset,
            "embedder": catalog.get_meta("embedder"),
            "reranker": self.settings.rerank.model,
            "store": self.settings.store.backend,
            "index": store.capabilities.index if store else None,
            "vectors": store.count() if store else 0,
            "counts": catalog.counts(),
            "fit": fitting.describe_fit(self._parts),
            "roots": [
                {"path": root, "present": away is None, "absence": away, "files": files}
                for root, files in catalog.roots().items()
                for away in (absence(root),)
            ],
            "failures": [{"path": f.path, "reason": f.reason} for f in catalog.failures()],
        }

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
