"""What a library holds and how it is set up."""

from __future__ import annotations

from typing import Any

from secondglance.ingest.presence import absence
from secondglance.pipelines import fitting, generations
from secondglance.pipelines.build import Parts


def library_status(parts: Parts) -> dict[str, Any]:
    """The JSON form of `secondglance status`; opens no model."""
    catalog, settings = parts.catalog, parts.settings
    store = parts.store() if catalog.get_meta("dim") is not None else None
    return {
        "library": str(parts.folder),
        "preset": settings.preset,
        "embedder": catalog.get_meta("embedder"),
        "reranker": settings.rerank.model,
        "store": settings.store.backend,
        "index": store.capabilities.index if store else None,
        "vectors": store.count() if store else 0,
        "counts": catalog.counts(),
        "fit": fitting.describe_fit(parts),
        "beside": generations.describe(parts.folder),
        "roots": [
            {"path": root, "present": away is None, "absence": away, "files": files}
            for root, files in catalog.roots().items()
            for away in (absence(root),)
        ],
        "failures": [{"path": f.path, "reason": f.reason} for f in catalog.failures()],
    }
