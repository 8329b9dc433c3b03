"""The vector store that settings name: where it lies, how its server is reached, and opening it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from secondglance.sections import StoreSettings

if TYPE_CHECKING:
    from secondglance.retrieve.milvus_server import Tls
    from secondglance.retrieve.store import Store

DEFAULT_COLLECTION = "secondglance"


class ServerAccess(TypedDict):
    """What a connection to a Milvus server takes besides its address."""

    token: str | None
    tls: Tls
    timeout_s: float


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
        retry_s=settings.retry_s,
        consistency=settings.consistency,
        index=settings.server_index,
        **server_access(settings),
    )


def server_access(settings: StoreSettings) -> ServerAccess:
    """What the settings say of a Milvus server, its token in clear."""
    from secondglance.retrieve.milvus_server import Tls

    return {
        "token": settings.token.get_secret_value() if settings.token else None,
        "tls": Tls(
            ca=settings.tls_ca,
            cert=settings.tls_cert,
            key=settings.tls_key,
            name=settings.tls_name,
        ),
        "timeout_s": settings.timeout_s,
    }
