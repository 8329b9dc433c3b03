"""LangChain: a compressor that reranks, and a retriever over a library.

Needs the extra: `pip install "secondglance[langchain]"`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from secondglance.adapters.common import content_of, missing, rank
from secondglance.types import Content, Hit

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.retrievers import BaseRetriever
except ImportError as error:
    raise missing("langchain-core", "langchain") from error

from pydantic import ConfigDict


class SecondGlanceCompressor(BaseDocumentCompressor):  # type: ignore[misc]
    """Reorders retrieved documents, and keeps the best.

    Pictures and clips are found in a document's metadata (`image`, `image_path`, `video`,
    `video_path`, see `adapters.common.content_of`) and judged together with its words. Each
    document comes back as a copy with `rerank_score` in its metadata; one that cannot be read has
    `rerank_error` there and comes last.

    Attributes:
        reranker: A `Qwen3VLReranker`, a `RemoteReranker`, or any `Reranker`.
        top_n: Documents that are kept; None for all.
        instruction: Replaces the reranker's default.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    reranker: Any
    top_n: int | None = 10
    instruction: str | None = None

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents, best first.

        Raises:
            InputError: The query is empty, or `top_n` is below 1.
            RerankError: The reranker failed as a whole.
        """
        found = rank(
            self.reranker,
            Content(texts=(query,)),
            [content_of(document.page_content, document.metadata) for document in documents],
            top_n=self.top_n,
            instruction=self.instruction,
        )
        return [
            documents[each.index].model_copy(
                update={"metadata": {**documents[each.index].metadata, **each.metadata}}
            )
            for each in found
        ]


class SecondGlanceRetriever(BaseRetriever):  # type: ignore[misc]
    """Searches a library, both passes included.

    A document's words are the hit's passage or caption; its metadata has `id`, `path`, `kind`,
    `score`, `rerank_score`, `recall_score`, and of a video the stretch, as `start_s` and `end_s`.
    Pictures and clips also stand under `image` and `video`, where `SecondGlanceCompressor` looks
    for them.

    Attributes:
        library: An open `Library`.
        k: Documents.
        options: Further arguments of `Library.search`, such as `filter`, `kind` or `recall`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    library: Any
    k: int = 10
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        result = self.library.search(query, k=self.k, **self.options)
        for warning in result.warnings:
            run_manager.on_text(warning)
        return [_document(hit) for hit in result.hits]


def _document(hit: Hit) -> Document:
    metadata: dict[str, Any] = {
        "id": hit.id,
        "path": hit.path,
        "kind": hit.kind,
        "score": hit.score,
        "recall_score": hit.recall_score,
        "rerank_score": hit.rerank_score,
    }
    if hit.kind == "image":
        metadata["image"] = hit.path
    if hit.kind == "video":
        metadata |= {"video": hit.path, "start_s": hit.start_s, "end_s": hit.end_s}
    if hit.error is not None:
        metadata["rerank_error"] = hit.error
    return Document(id=hit.id, page_content=hit.text, metadata=metadata)
