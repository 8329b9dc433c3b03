"""LlamaIndex: a node postprocessor that reranks.

Needs the extra: `pip install "secondglance[llamaindex]"`.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from PIL import Image

from secondglance.adapters.common import content_of, missing, opened, rank
from secondglance.errors import InputError, MediaError
from secondglance.types import Content

try:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise missing("llama-index-core", "llamaindex") from error


class SecondGlanceRerank(BaseNodePostprocessor):  # type: ignore[misc]
    """Reorders retrieved nodes, and keeps the best.

    The picture of an `ImageNode`, and pictures and clips in a node's metadata (`image`,
    `image_path`, `video`, `video_path`, see `adapters.common.content_of`) are judged together with
    its words. A node's score becomes the reranker's; metadata gets `rerank_score` and the former
    score as `retrieval_score`. One that cannot be read has the score None, `rerank_error` in its
    metadata, and comes last.

    Attributes:
        reranker: A `Qwen3VLReranker`, a `RemoteReranker`, or any `Reranker`.
        top_n: Nodes that are kept; None for all.
        instruction: Replaces the reranker's default.
    """

    reranker: Any
    top_n: int | None = 10
    instruction: str | None = None

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex' own records."""
        return "SecondGlanceRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("there is no query to rerank by", remedy="pass query_str")
        image = query_bundle.image_path
        words = query_bundle.query_str
        found = rank(
            self.reranker,
            Content(
                texts=(words,) if words.strip() else (),
                images=(Path(image),) if image is not None else (),
            ),
            [_content(each) for each in nodes],
            top_n=self.top_n,
            instruction=self.instruction,
        )
        ranked = []
        for each in found:
            given = nodes[each.index]
            node = given.node.model_copy()
            node.metadata = {**node.metadata, "retrieval_score": given.score, **each.metadata}
            # Scores are not words that an embedder or a language model should read.
            added = [*each.metadata, "retrieval_score"]
            node.excluded_embed_metadata_keys = [*node.excluded_embed_metadata_keys, *added]
            node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, *added]
            ranked.append(NodeWithScore(node=node, score=each.pair.score))
        return ranked


def _content(scored: NodeWithScore) -> Content | MediaError:
    node = scored.node
    images: list[Path | Image.Image] = []
    try:
        if isinstance(node, ImageNode):
            if node.image is not None:
                images.append(opened(_decoded(node.image)))
            elif node.image_path is not None or node.image_url is not None:
                images.append(opened(node.image_path or node.image_url))
    except MediaError as error:
        return error
    return content_of(node.get_content(MetadataMode.NONE), node.metadata, images=images)


def _decoded(encoded: str) -> bytes | str:
    if encoded.startswith("data:"):
        return encoded
    try:
        return base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise MediaError("the picture of a node is not base64") from None
