"""The vector store that settings name: where it lies, how its server is reached, and opening it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from secondglance.sections import StoreSettings

if TYPE_CHECKING:
    from secondglance.retrieve.milvus_server import Tls
    from secondglance.retrieve.store import Store

DEFAULT_COLLECTION = "secondglance"

NAMES = {"faiss": "faiss", "exact": "exact", "milvus": "vectors.db"}
"""What a store is called beside its catalog, by backend."""


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
    place = folder / NAMES[settings.backend]
    if settings.backend == "faiss":
        from secondglance.retrieve.faiss_store import FaissStore

        return FaissStore(
            place,
            dim=dim,
            index=settings.index,
            hnsw_threshold=settings.hnsw_threshold,
        )
    if settings.backend == "exact":
        from secondglance.retrieve.exact import ExactStore

        return ExactStore(place, dim=dim)
    from secondglance.retrieve.milvus_store import MilvusStore

    return MilvusStore(
        settings.uri or place,
        dim=dim,
        collection=collection_of(settings),
        retry_s=settings.retry_s,
        consistency=settings.consistency,
        index=settings.server_index,
        **server_access(settings),
    )


def collection_of(settings: StoreSettings) -> str:
    """The collection of Milvus that the settings name."""
    return settings.collection or DEFAULT_COLLECTION


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
