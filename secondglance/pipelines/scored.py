"""Rerankers in memory, which weights they have, and the cache of scores in front of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secondglance.pipelines.builtin import reranker_folder
from secondglance.sections import RerankSettings

if TYPE_CHECKING:
    from secondglance.rerank.base import Reranker
    from secondglance.rerank.score_cache import ScoreCache

logger = logging.getLogger(__name__)

ALIKE_FOR_SCORES = {
    "model",
    "revision",
    "sha256",
    "batch_tokens",
    "replicas",
    "score_cache_mb",
    "pixel_cache_mb",
    "url",
    "api_key",
    "dialect",
    "timeout_s",
    "retries",
}
"""Settings of the second pass that leave scores as they are, given the same weights."""
NOT_OF_THE_MODEL = {
    "score_cache_mb",
    "url",
    "api_key",
    "dialect",
    "timeout_s",
    "retries",
    "hedge_share",
}
"""Settings of the second pass on which a model in memory does not depend."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedReranker:
    """A reranker in memory.

    Attributes:
        reranker: The model.
        weights: Digest of the files that it was read from; None where that is not known.
    """

    reranker: Reranker
    weights: str | None = None


def load_reranker(
    settings: RerankSettings, cache: ScoreCache | None, *, make: Callable[[], Reranker]
) -> LoadedReranker:
    """The reranker that the settings name, and which weights it has.

    Args:
        settings: Of the second pass.
        cache: Remembers digests of files; None: no digest is needed.
        make: Loads it.

    Raises:
        ModelError: Its checkpoint cannot be found, fetched or loaded.
    """
    if settings.backend != "qwen3vl" or cache is None:
        return LoadedReranker(make())
    from secondglance.rerank import checkpoint
    from secondglance.rerank.digests import checkpoint_digest

    folder = checkpoint.find(reranker_folder(settings.model), revision=settings.revision)

    def digest() -> str | None:
        try:
            return checkpoint_digest(folder, cache)
        except OSError as error:
            logger.warning("scores are not kept, for the checkpoint cannot be hashed: %s", error)
            return None

    before = digest()
    reranker = make()
    if before is not None and digest() != before:  # which weights were loaded is not known
        logger.warning("scores are not kept: the files in %s changed while they were read", folder)
        before = None
    return LoadedReranker(reranker, before)


def with_scores(
    loaded: LoadedReranker, settings: RerankSettings, cache: ScoreCache | None
) -> Reranker:
    """A reranker behind a cache of its scores, where it is known which weights it has."""
    reranker, weights = loaded.reranker, loaded.weights
    if cache is None or weights is None:
        return reranker
    from secondglance.rerank.digests import fingerprint
    from secondglance.rerank.qwen3vl import Qwen3VLReranker
    from secondglance.rerank.score_cache import CachedReranker

    if not isinstance(reranker, Qwen3VLReranker):
        return reranker

    chosen = settings.model_dump(mode="json", exclude=ALIKE_FOR_SCORES)
    # What "auto" came to.
    chosen |= {"dtype": str(reranker.model.dtype), "device": reranker.device.type}
    return CachedReranker(
        reranker, cache, fingerprint=fingerprint(weights, chosen), weights=weights
    )
