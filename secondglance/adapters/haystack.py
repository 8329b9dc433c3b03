"""Haystack: a ranker component.

Needs the extra: `pip install "secondglance[haystack]"`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from secondglance.adapters.common import check_top_n, content_of, missing, opened, rank
from secondglance.errors import MediaError
from secondglance.rerank.base import Reranker
from secondglance.types import Content

try:
    from haystack import Document, component
except ImportError as error:
    raise missing("haystack-ai", "haystack") from error


@component
class SecondGlanceRanker:
    """Reorders documents, and keeps the best.

    A picture is a document's blob of an image type, or stands in its meta (`image`, `image_path`,
    `file_path`; clips as `video` or `video_path`; see `adapters.common.content_of`); it is judged
    together with the words. Each document comes back as a copy whose score is the reranker's, with
    `rerank_score` and the former score as `retrieval_score` in its meta. One that cannot be read
    has the score None, `rerank_error` in its meta, and comes last.

    Args:
        reranker: A `Qwen3VLReranker`, a `RemoteReranker`, or any `Reranker`.
        top_n: Documents that are kept; None for all.
        instruction: Replaces the reranker's default.

    Raises:
        InputError: `top_n` is below 1.
    """

    def __init__(
        self, reranker: Reranker, *, top_n: int | None = 10, instruction: str | None = None
    ) -> None:
        check_top_n(top_n)
        self.reranker = reranker
        self.top_n = top_n
        self.instruction = instruction

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]
    def run(
        self, query: str, documents: list[Document], top_n: int | None = None
    ) -> dict[str, Any]:
        """The best documents, best first, as `{"documents": [...]}`.

        Args:
            query: What is looked for.
            documents: The candidates.
            top_n: Replaces the component's own.

        Raises:
            InputError: The query is empty, or `top_n` is below 1.
            RerankError: The reranker failed as a whole.
        """
        found = rank(
            self.reranker,
            Content(texts=(query,)),
            [_content(document) for document in documents],
            top_n=self.top_n if top_n is None else top_n,
            instruction=self.instruction,
        )
        ranked = []
        for each in found:
            given = documents[each.index]
            meta = {**given.meta, "retrieval_score": given.score, **each.metadata}
            ranked.append(dataclasses.replace(given, score=each.pair.score, meta=meta))
        return {"documents": ranked}


def _content(document: Document) -> Content | MediaError:
    blob = document.blob
    if blob is None or not (blob.mime_type or "").startswith("image/"):
        return content_of(document.content, document.meta)
    try:
        return content_of(document.content, document.meta, images=[opened(blob.data)])
    except MediaError as error:
        return error
