"""Fine ordering: rerankers that read query and candidate together."""

from typing import TYPE_CHECKING, Any

from secondglance.rerank.pool import ModelPool

if TYPE_CHECKING:
    from secondglance.rerank.qwen3vl import Qwen3VLReranker
    from secondglance.rerank.remote import RemoteReranker

__all__ = ["ModelPool", "Qwen3VLReranker", "RemoteReranker"]


def __getattr__(name: str) -> Any:
    # torch and transformers load only when the engine is asked for.
    if name == "Qwen3VLReranker":
        from secondglance.rerank.qwen3vl import Qwen3VLReranker

        return Qwen3VLReranker
    if name == "RemoteReranker":
        from secondglance.rerank.remote import RemoteReranker

        return RemoteReranker
    raise AttributeError(f"module 'secondglance.rerank' has no attribute {name!r}")
