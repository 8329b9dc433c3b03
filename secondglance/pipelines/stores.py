"""The vector store that settings name: where it lies, how its server is reached, and opening it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from secondglance.sections import StoreSettings

if TYPE_CHECKING:
    from secondglance.retrieve.milvus_server import Tls
    from secondglance.retrieve.store import Store

DEFAULT_COLLECTION = "secondglance"


def open_store(folder: Path, settings: StoreSettings, *, dim: int) -> Store:
    """The vector store that the settings name.

    Raises:
        StoreError: It cannot be reached or opened.
    """
    if settings.backend == "faiss":
        from secondglance.retrieve.faiss_store import FaissStore

        return FaissStore(
            folder / "faiss",
            dim=dim,
            index=settings.index,
            hnsw_threshold=settings.hnsw_threshold,
        )
    if settings.backend == "exact":
        from secondglance.retrieve.exact import ExactStore

        return ExactStore(folder / "exact", dim=dim)
    from secondglance.retrieve.milvus_store import MilvusStore

    return MilvusStore(
        settings.uri or folder / "vectors.db",
        dim=dim,
        collection=settings.collection or DEFAULT_COLLECTION,
        token=settings.token.get_secret_value() if settings.token else None,
        timeout_s=settings.timeout_s,
        retry_s=settings.retry_s,
        consistency=settings.consistency,
        index=settings.server_index,
        tls=tls_of(settings),
    )


def tls_of(settings: StoreSettings) -> Tls:
    """The files of an encrypted connection that the settings name."""
    from secondglance.retrieve.milvus_server import Tls

    return Tls(
        ca=settings.tls_ca,
        cert=settings.tls_cert,
        key=settings.tls_key,
        name=settings.tls_name,
    )
