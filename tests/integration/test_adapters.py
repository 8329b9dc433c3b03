"""The adapters, with the starter reranker here and behind a socket."""

from __future__ import annotations

import asyncio
import base64
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secondglance.adapters.common import content_of, rank
from secondglance.errors import InputError, MediaError, MissingExtraError, RerankError
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker, RemoteReranker
from secondglance.rerank.base import Reranker
from secondglance.types import Content, VideoClip
from tests.libraries import Open
from tests.media import picture, write_pictures
from tests.rerank_server import answering, closed_url, serving

QUERY = "a red ball"


@pytest.fixture(scope="module")
def starter() -> Qwen3VLReranker:
    return Qwen3VLReranker(starter_folder("reranker"), device="cpu")


@pytest.fixture(params=["local", "remote"])
def reranker(request: pytest.FixtureRequest, starter: Qwen3VLReranker) -> Iterator[Reranker]:
    if request.param == "local":
        yield starter
        return
    with serving(answering(starter)) as server:
        yield RemoteReranker(server.url)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    picture(1).save(path)
    return path


def expected(starter: Qwen3VLReranker, contents: list[Content]) -> list[float]:
    scores = [pair.score for pair in starter.score(Content(texts=(QUERY,)), contents)]
    return [score for score in scores if score is not None]


def order(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


TEXTS = ["two green cubes", "a red ball on the grass", "a blue boat"]


def test_langchain_compressor(reranker: Reranker, starter: Qwen3VLReranker, image: Path) -> None:
    pytest.importorskip("langchain_core", reason="the langchain extra is not installed")
    from langchain_core.documents import Document

    from secondglance.adapters.langchain import SecondGlanceCompressor

    data = "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()
    given = [Document(page_content=text, metadata={"source": text}) for text in TEXTS]
    given += [Document(page_content="", metadata={"image": str(image)}),
              Document(page_content="a caption", metadata={"image_path": image}),
              Document(page_content="", metadata={"image": image.with_name("gone.png")}),
              Document(page_content=" ")]  # fmt: skip
    contents = [*(Content(texts=(text,)) for text in TEXTS), Content(images=(image,)),
                Content(texts=("a caption",), images=(image,))]  # fmt: skip
    scores = expected(starter, contents)
    found = SecondGlanceCompressor(reranker=reranker, top_n=None).compress_documents(given, QUERY)
    right = [given[place].page_content for place in order(scores)]
    assert [d.page_content for d in found] == [*right, "", " "]
    assert [d.metadata["rerank_score"] for d in found[:5]] == pytest.approx(
        sorted(scores, reverse=True), abs=1e-3
    )
    assert found[0].metadata["source"] == "a red ball on the grass"
    assert "gone.png" in found[5].metadata["rerank_error"]
    assert "no words" in found[6].metadata["rerank_error"]
    assert all("rerank_score" not in d.metadata for d in given)  # copies
    best = SecondGlanceCompressor(reranker=reranker, top_n=2)
    again = asyncio.run(best.acompress_documents(given[:3], QUERY))
    assert [d.page_content for d in again] == [TEXTS[i] for i in order(scores[:3])[:2]]
    same = best.compress_documents([Document(page_content="", metadata={"image": data})], QUERY)
    assert same[0].metadata["rerank_score"] == pytest.approx(scores[3], abs=0.05)


def test_langchain_retriever(open_library: Open, tmp_path: Path) -> None:
    pytest.importorskip("langchain_core", reason="the langchain extra is not installed")
    from secondglance.adapters.langchain import SecondGlanceCompressor, SecondGlanceRetriever

    write_pictures(tmp_path / "media", 3)
    (tmp_path / "media" / "notes.txt").write_text("A dog on a beach.")
    library = open_library()
    library.index([tmp_path / "media"])
    retriever = SecondGlanceRetriever(library=library, k=3, options={"kind": "image"})
    found = retriever.invoke(QUERY)
    hits = library.search(QUERY, k=3, kind="image").hits
    assert [d.metadata["path"] for d in found] == [hit.path for hit in hits]
    assert [d.metadata["rerank_score"] for d in found] == [hit.rerank_score for hit in hits]
    [text] = SecondGlanceRetriever(library=library, k=1, options={"kind": "text"}).invoke("dog")
    assert text.page_content == "A dog on a beach."
    compressor = SecondGlanceCompressor(reranker=library._parts.reranker())
    again = compressor.compress_documents(found, QUERY)
    by_score = sorted(hits, key=lambda hit: -(hit.rerank_score or 0.0))
    assert [d.metadata["path"] for d in again] == [hit.path for hit in by_score]
    assert [d.metadata["rerank_score"] for d in again] == pytest.approx(
        [hit.rerank_score for hit in by_score]
    )


def test_llamaindex_postprocessor(
    reranker: Reranker, starter: Qwen3VLReranker, image: Path
) -> None:
    pytest.importorskip("llama_index.core", reason="the llamaindex extra is not installed")
    from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode

    from secondglance.adapters.llamaindex import SecondGlanceRerank

    encoded = base64.b64encode(image.read_bytes()).decode()
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text in TEXTS]
    nodes += [NodeWithScore(node=each, score=0.2) for each in (
        ImageNode(image_path=str(image)), ImageNode(image=encoded, text="a caption"),
        ImageNode(image_url="https://example.org/x.png"), ImageNode(image="***"))]  # fmt: skip
    contents = [*(Content(texts=(text,)) for text in TEXTS), Content(images=(image,)),
                Content(texts=("a caption",), images=(picture(1),))]  # fmt: skip
    scores = expected(starter, contents)
    rerank = SecondGlanceRerank(reranker=reranker, top_n=None)
    found = rerank.postprocess_nodes(nodes, query_str=QUERY)
    right = [nodes[place].node.node_id for place in order(scores)]
    assert [each.node.node_id for each in found[:5]] == right
    assert [each.score for each in found[:5]] == pytest.approx(
        sorted(scores, reverse=True), abs=0.02
    )
    assert found[0].node.metadata["retrieval_score"] == 0.1
    assert found[0].node.metadata["rerank_score"] == found[0].score
    assert found[0].node.get_content("llm") == TEXTS[1]  # scores are not put before the words
    assert [each.score for each in found[5:]] == [None, None]
    assert "is not fetched" in found[5].node.metadata["rerank_error"]
    assert "not base64" in found[6].node.metadata["rerank_error"]
    assert nodes[0].node.metadata == {}
    [best] = SecondGlanceRerank(reranker=reranker, top_n=1).postprocess_nodes(
        nodes, QueryBundle(query_str="", image_path=str(image))
    )
    assert best.score is not None
    with pytest.raises(InputError, match="no query"):
        rerank.postprocess_nodes(nodes)


def test_haystack_ranker(reranker: Reranker, starter: Qwen3VLReranker, image: Path) -> None:
    pytest.importorskip("haystack", reason="the haystack extra is not installed")
    from haystack import Document, Pipeline
    from haystack.dataclasses import ByteStream

    from secondglance.adapters.haystack import SecondGlanceRanker

    blob = ByteStream(data=image.read_bytes(), mime_type="image/png")
    broken = ByteStream(data=b"no picture", mime_type="image/png")
    given = [Document(content=text, score=0.3) for text in TEXTS]
    given += [Document(content=None, meta={"file_path": str(image)}),
              Document(content="a caption", blob=blob), Document(blob=broken)]  # fmt: skip
    contents = [*(Content(texts=(text,)) for text in TEXTS), Content(images=(image,)),
                Content(texts=("a caption",), images=(picture(1),))]  # fmt: skip
    scores = expected(starter, contents)
    pipeline = Pipeline()
    pipeline.add_component("ranker", SecondGlanceRanker(reranker, top_n=None))
    found = pipeline.run({"ranker": {"query": QUERY, "documents": given}})["ranker"]["documents"]
    assert [each.id for each in found[:5]] == [given[place].id for place in order(scores)]
    assert [each.score for each in found[:5]] == pytest.approx(
        sorted(scores, reverse=True), abs=0.02
    )
    assert found[0].meta["retrieval_score"] == 0.3
    assert found[0].meta["rerank_score"] == found[0].score
    assert "no picture" in found[5].meta["rerank_error"]
    assert found[5].score is None
    assert given[0].meta == {}
    ranker = SecondGlanceRanker(reranker)
    assert len(ranker.run(query=QUERY, documents=given, top_n=2)["documents"]) == 2
    with pytest.raises(InputError, match="top_n is 0"):
        SecondGlanceRanker(reranker, top_n=0)


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"image": "http://169.254.169.254/x.png"}, "is not fetched"),
        ({"image": "data:image/png;base64,***"}, "cannot be decoded"),
        ({"image": "data:image/png"}, "cannot be decoded"),
        ({"image": b"GIF89a"}, "no picture"),
        ({"image": 7}, "neither a path nor a picture"),
        ({"video": "x.mp4", "start_s": "1"}, "start_s is '1'"),
        ({"file_path": "notes.txt"}, "no words, no picture"),
    ],
)
def test_documents_that_cannot_be_used(metadata: dict[str, Any], problem: str) -> None:
    found = content_of("", metadata)
    assert isinstance(found, MediaError)
    assert problem in str(found)


def test_a_clip_and_its_stretch() -> None:
    found = content_of("words", {"video": "clip.mp4", "start_s": 1, "end_s": 2.5})
    clip = VideoClip(path=Path("clip.mp4"), start_s=1.0, end_s=2.5)
    assert found == Content(texts=("words",), videos=(clip,))


def test_mistakes_and_failures_are_raised() -> None:
    dead = RemoteReranker(closed_url(), retries=0)
    words = Content(texts=("x",))
    with pytest.raises(RerankError, match="cannot be reached"):
        rank(dead, words, [words], top_n=None, instruction=None)
    with pytest.raises(InputError, match="query is empty"):
        rank(dead, Content(texts=("",)), [words], top_n=None, instruction=None)
    with pytest.raises(InputError, match="top_n is 0"):
        rank(dead, words, [words], top_n=0, instruction=None)
    # Nothing that can be read: nobody is asked.
    [only] = rank(dead, words, [MediaError("broken")], top_n=3, instruction=None)
    assert only.metadata == {"rerank_score": None, "rerank_error": "broken"}


@pytest.mark.parametrize(
    ("module", "framework"),
    [("langchain", "langchain_core"), ("llamaindex", "llama_index"), ("haystack", "haystack")],
)
def test_a_missing_package_names_its_extra(
    module: str, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == framework]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, framework, None)
    monkeypatch.delitem(sys.modules, f"secondglance.adapters.{module}", raising=False)
    with pytest.raises(MissingExtraError) as caught:
        importlib.import_module(f"secondglance.adapters.{module}")
    assert f'pip install "secondglance[{module}]"' in str(caught.value)
    assert isinstance(caught.value, ImportError)
