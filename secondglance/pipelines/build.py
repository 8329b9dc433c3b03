"""Wires settings into stages. Parts are made on first use: an unchanged re-index loads no model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from secondglance.config import Settings
from secondglance.errors import EmbedderMismatchError
from secondglance.ingest.catalog import Catalog
from secondglance.ingest.decode import Limits
from secondglance.pipelines.builtin import (
    STARTER,
    UNTRAINED,
    clip_folder,
    reranker_folder,
    shipped_sha256,
)
from secondglance.pipelines.leases import Lease
from secondglance.pipelines.scored import (
    NOT_OF_THE_MODEL,
    LoadedReranker,
    load_reranker,
    with_scores,
)
from secondglance.pipelines.sharing import SharedModels
from secondglance.pipelines.store_slot import StoreSlot
from secondglance.pipelines.stores import open_store
from secondglance.sections import RecallSettings, RerankSettings

if TYPE_CHECKING:
    from secondglance.ingest.embedder import ClipEmbedder
    from secondglance.ingest.workers import DecodePool
    from secondglance.pipelines.words import Words
    from secondglance.rerank.base import Reranker
    from secondglance.rerank.score_cache import ScoreCache
    from secondglance.retrieve.store import Store

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Parts:
    """The parts of one library: catalog, store, embedder, reranker.

    Args:
        folder: The library folder.
        settings: How to make the parts.
        catalog: Already open.
        models: Where other libraries of the process find the same models; None: nowhere.
        lease: Says to others that the store is in use; released with the parts.
        embedder: The first pass's model, if it is loaded.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        catalog: Catalog,
        *,
        lease: Lease | None = None,
        embedder: ClipEmbedder | None = None,
        models: SharedModels | None = None,
    ) -> None:
        self.folder = folder
        self.data = catalog.path.parent
        self.settings = settings
        self.catalog = catalog
        self.is_new = False
        self.stamped = (0, 0)
        self._lease = lease
        self._given = embedder
        self._making = threading.RLock()
        self._is_sharing = models is not None
        self._models = SharedModels() if models is None else models
        self._lent: LoadedReranker | None = None
        self._slot = StoreSlot()
        self._scores: ScoreCache | None = None
        self._words: Words | None = None

    @property
    def writable(self) -> bool:
        """Whether the library folder may be written."""
        return os.access(self.folder, os.W_OK)

    @property
    def leased(self) -> bool:
        """Whether nobody can remove the vectors while these parts are open."""
        return self._lease is not None and self._lease.holds

    @cached_property
    def limits(self) -> Limits:
        """What one file may cost."""
        ingest = self.settings.ingest
        return Limits(
            max_pixels=ingest.max_pixels,
            max_memory_mb=ingest.max_memory_mb,
            max_segment_s=ingest.max_segment_s,
            fps=ingest.fps,
            video_decoder=ingest.video_decoder,
            portion_s=ingest.timeout_s / 6,
            max_segments=ingest.max_segments,
            max_text_mb=ingest.max_text_mb,
            passage_chars=ingest.passage_chars,
        )

    def decode_pool(self) -> DecodePool:
        """New decode workers, within the limits of the settings."""
        from secondglance.ingest.workers import DecodePool

        ingest = self.settings.ingest
        return DecodePool(
            workers=ingest.workers,
            timeout_s=ingest.timeout_s,
            max_memory_mb=ingest.max_memory_mb,
        )

    def embedder(self) -> ClipEmbedder:
        """The first pass's model.

        Raises:
            EmbedderMismatchError: The library's vectors were made by another one.
        """
        return self._once(lambda: self._embedder)

    def store(self) -> Store:
        """The vector store; opening it needs the embedder's dimension once."""
        return self._once(lambda: self._slot.get(self._open_store))

    def hand_over(self, to: Parts) -> None:
        """Lets other parts use the models that are loaded, where they have the same settings.

        Each frees them when it is closed, unless the other one still uses them.
        """
        with self._making:
            to._models = self._models
            self._is_sharing = to._is_sharing = True
            if self.settings.rerank != to.settings.rerank or "_reranker" not in self.__dict__:
                return
            if self._lent is None:
                # Of a server. Whoever has it goes on with it.
                to.__dict__["_reranker"] = self.__dict__.pop("_reranker")
            else:
                to.reranker()

    def words(self) -> Words:
        """The word index, which may have to take in changes yet; see `Words.sync`."""
        return self._once(self._open_words)

    def reranker(self) -> Reranker:
        """The second pass."""
        return self._once(lambda: self._reranker)

    def loaded(self) -> dict[Literal["recall", "rerank"], int]:
        """Bytes of memory of the models that are loaded; loads none, and waits for none."""
        found: dict[Literal["recall", "rerank"], int] = {}
        embedder, reranker = (self.__dict__.get(name) for name in ("_embedder", "_reranker"))
        if embedder is not None:
            found["recall"] = embedder.memory_bytes
        if reranker is not None:
            found["rerank"] = getattr(getattr(reranker, "inner", reranker), "memory_bytes", 0)
        return found

    def unload(self) -> None:
        """Frees the memory of both models; the next use loads them again."""
        with self._making:
            self._models.give_back(self.__dict__.pop("_embedder", None))
            self._given = None
            reranker = self.__dict__.pop("_reranker", None)
            lent, self._lent = self._lent, None
            if self._models.give_back(lent):
                close_reranker(reranker)
            if self._scores is not None:
                self._scores.close()
                self._scores = None

    def _once(self, make: Callable[[], T]) -> T:
        # Two threads that search a fresh library must not load a model twice.
        with self._making:
            return make()

    @cached_property
    def _embedder(self) -> ClipEmbedder:
        recall = self.settings.recall
        name = "/".join(filter(None, (recall.model, recall.pretrained)))
        key = ("recall", recall.model_dump_json())
        embedder = self._models.take(key, lambda: self._given or open_embedder(recall))
        try:
            self._check_embedder(embedder, name)
        except BaseException:
            self._models.give_back(embedder)
            raise
        return embedder

    def _check_embedder(self, embedder: ClipEmbedder, name: str) -> None:
        """The library's vectors belong to one model; of a new library this one."""
        stamped = self.catalog.get_meta("fingerprint")
        if stamped is None:
            self.catalog.set_meta("dim", str(embedder.dim))
            self.catalog.set_meta("fingerprint", embedder.fingerprint)
        elif stamped != embedder.fingerprint:
            raise EmbedderMismatchError(
                f"the library {self.folder} was made with the embedder "
                f"{self.catalog.get_meta('embedder') or stamped}, not with {name}",
                remedy="leave out --preset and recall.model to keep the library's own model; if "
                "the files of that model were replaced, put them back, or name the new ones by "
                f"another path: secondglance index --library {self.folder} --set recall.model=...",
            )
        if self.catalog.get_meta("embedder") != name and self.writable:
            self.catalog.set_meta("embedder", name)

    def _open_store(self) -> Store:
        dim = self.catalog.get_meta("dim")
        dimension = int(dim) if dim is not None else self._embedder.dim
        return open_store(self.data, self.settings.store, dim=dimension)

    def _open_words(self) -> Words:
        if self._words is None:
            from secondglance.pipelines.words import Words, open_index

            index = open_index(self.data, self.settings)
            self._words = Words(self.data, self.catalog.path, index)
        return self._words

    @cached_property
    def _reranker(self) -> Reranker:
        settings = self.settings.rerank
        if settings.backend != "qwen3vl":
            return open_reranker(settings)
        if settings.score_cache_mb:
            from secondglance.rerank.score_cache import FILE_NAME, ScoreCache

            self._scores = ScoreCache(self.folder / FILE_NAME, max_mb=settings.score_cache_mb)
        # Who keeps scores needs to know which weights were loaded, and others do not look.
        chosen = settings.model_dump_json(exclude=NOT_OF_THE_MODEL)
        self._lent = self._models.take(
            ("rerank", chosen, self._scores is not None),
            lambda: load_reranker(settings, self._scores, make=lambda: open_reranker(settings)),
        )
        return with_scores(self._lent, settings, self._scores)

    def close_store(self) -> None:
        """Lets go of the store until it is asked for again; others may open it meanwhile."""
        self._slot.close()

    def close(self) -> None:
        """Lets go of the store, the catalog, the words and the scores. May be called twice."""
        if self._words is not None:
            self._words.close()
            self._words = None
        if self._scores is not None:
            self._scores.close()
        if self._is_sharing or self.settings.rerank.backend == "remote":
            self.unload()
        try:
            self.close_store()
        finally:
            self.catalog.close()
            if self._lease is not None:
                self._lease.release()


def open_embedder(settings: RecallSettings) -> ClipEmbedder:
    """The CLIP model that the settings name.

    Raises:
        ModelError: Its checkpoint cannot be found, fetched, verified or loaded.
    """
    from secondglance.ingest.embedder import ClipEmbedder

    return ClipEmbedder(
        clip_folder(settings.model),
        pretrained=settings.pretrained,
        revision=settings.revision,
        sha256=settings.sha256 or shipped_sha256(settings.model, "clip"),
        device=settings.device,
        precision=settings.precision,
        batch_size=settings.batch_size,
        compiled=settings.compiled,
    )


def open_reranker(settings: RerankSettings) -> Reranker:
    """The reranker that the settings name.

    Raises:
        ModelError: Its checkpoint cannot be found, fetched or loaded.
        InputError: The URL, key or model of a remote one cannot be used.
    """
    if settings.backend == "passthrough":
        from secondglance.rerank.passthrough import PassthroughReranker

        return PassthroughReranker()
    if settings.backend == "remote":
        return _open_remote(settings)
    from secondglance.rerank.qwen3vl import Qwen3VLReranker

    model_options: dict[str, Any] = {}
    if settings.dtype != "auto":
        model_options["dtype"] = settings.dtype
    if settings.attention != "auto":
        model_options["attn_implementation"] = settings.attention
    instruction: dict[str, Any] = (
        {"default_instruction": settings.instruction} if settings.instruction else {}
    )
    return Qwen3VLReranker(
        reranker_folder(settings.model),
        max_length=settings.max_length,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        total_pixels=settings.total_pixels,
        fps=settings.fps,
        max_frames=settings.max_frames,
        device=None if settings.device == "auto" else settings.device,
        revision=settings.revision,
        sha256=settings.sha256 or shipped_sha256(settings.model, "reranker"),
        batch_tokens=settings.batch_tokens,
        replicas=settings.replicas,
        compiled=settings.compiled,
        fp8=settings.fp8,
        pixel_cache_mb=settings.pixel_cache_mb,
        **instruction,
        **model_options,
    )


def close_reranker(reranker: object) -> None:
    """Frees the memory of a reranker, also behind its cache of scores."""
    inner = getattr(reranker, "inner", reranker)
    if hasattr(inner, "close"):
        inner.close()


def _open_remote(settings: RerankSettings) -> Reranker:
    from secondglance.rerank.remote import RemoteReranker

    return RemoteReranker(
        settings.url or [],
        # A checkpoint that this package brings is no name that a server knows.
        model=None if settings.model in (STARTER, UNTRAINED) else settings.model,
        dialect=settings.dialect,
        api_key=settings.api_key,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        hedge_share=settings.hedge_share,
        default_instruction=settings.instruction,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        total_pixels=settings.total_pixels,
        fps=settings.fps,
        max_frames=settings.max_frames,
    )


def open_cached_reranker(settings: RerankSettings, cache: ScoreCache) -> Reranker:
    """The reranker that the settings name, behind a cache of its scores.

    Scores of a remote one are not kept: which weights it has is not known, and may change.

    Raises:
        ModelError: Its checkpoint cannot be found, fetched or loaded.
    """
    loaded = load_reranker(settings, cache, make=lambda: open_reranker(settings))
    return with_scores(loaded, settings, cache)
