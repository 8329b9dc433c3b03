"""The code of the guides, as it stands there, against real servers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from secondglance.ingest.embedder import ClipEmbedder
from secondglance.library import Library
from secondglance.pipelines.build import open_embedder
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.sections import RecallSettings
from secondglance.types import Content
from tests.media import picture, write_pictures
from tests.rerank_server import Json, Reply, RerankServer, answering, serving

DOCS = Path(__file__).parents[2] / "docs"
RERANKER, ELASTIC = "http://localhost:7860", "http://localhost:9200"
QUERY = "a red ball"


@pytest.fixture(scope="module")
def starter() -> Qwen3VLReranker:
    return Qwen3VLReranker(starter_folder("reranker"), device="cpu")


@pytest.fixture
def server(starter: Qwen3VLReranker) -> Iterator[RerankServer]:
    with serving(answering(starter)) as made:
        yield made


def blocks(page: str, **addresses: str) -> list[str]:
    """The Python of a page, with other addresses."""
    code = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.M | re.S)
    assert code
    for name, address in addresses.items():
        known = {"reranker": RERANKER, "elastic": ELASTIC}[name]
        assert any(known in block for block in code)
        code = [block.replace(known, address) for block in code]
    return code


def run(block: str, names: dict[str, Any]) -> None:
    exec(compile(block, "guide", "exec"), names)


def best_first(starter: Qwen3VLReranker, contents: list[Content]) -> list[int]:
    scores = [pair.score or 0.0 for pair in starter.score(Content(texts=(QUERY,)), contents)]
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def test_behind_milvus(
    server: RerankServer,
    starter: Qwen3VLReranker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pymilvus import MilvusClient

    monkeypatch.chdir(tmp_path)
    paths = write_pictures(tmp_path / "photos", 6)
    clip: ClipEmbedder = open_embedder(RecallSettings(device="cpu"))
    client = MilvusClient("photos.db")
    client.create_collection("photos", dimension=clip.dim, metric_type="COSINE")
    vectors = clip.embed_pictures([picture(seed) for seed in range(6)])
    client.insert(
        "photos",
        [
            {"id": i, "vector": list(map(float, vectors[i])), "path": str(paths[i])}
            for i in range(6)
        ],
    )
    names: dict[str, Any] = {"embed": lambda words: clip.embed_texts([words])[0].tolist()}
    with_python, without = blocks("rerank-behind-milvus.md", reranker=server.origin)
    run(with_python, names)
    try:
        found = names["search"](QUERY, k=3)
        contents = [Content(images=(path,)) for path in paths]
        right = [str(paths[place]) for place in best_first(starter, contents)]
        assert [path for path, _ in found] == right[:3]
        assert all(0 <= score <= 1 for _, score in found)
        run(without, names)
        lines = capsys.readouterr().out.splitlines()
        assert sorted(line.split()[0] for line in lines) == ["0", "1"]
        server.faults = [Reply(b"", status=500)]
        fallen = names["search"](QUERY, k=3)
        [recalled] = client.search(
            "photos", data=[names["embed"](QUERY)], limit=3, output_fields=["path"]
        )
        assert fallen == [(hit["entity"]["path"], None) for hit in recalled]
        assert "not reranked: the reranker" in capsys.readouterr().out
    finally:
        names["milvus"].close()
        client.close()


def test_behind_elasticsearch(
    server: RerankServer,
    starter: Qwen3VLReranker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    [first, second] = write_pictures(tmp_path, 2)
    sources: list[Json] = [
        {"path": str(first)},
        {"caption": "two green cubes"},
        {"caption": "a red ball on the grass"},
        {"path": str(second), "caption": "a caption"},
        {"path": str(tmp_path / "gone.jpg")},
    ]
    contents = [
        Content(images=(first,)),
        Content(texts=("two green cubes",)),
        Content(texts=("a red ball on the grass",)),
        Content(texts=("a caption",), images=(second,)),
    ]

    def elastic(body: Json) -> Reply:
        assert body["size"] == 50
        assert body["query"]["multi_match"]["query"] == QUERY
        hits = [{"_id": str(i), "_score": 9 - i, "_source": s} for i, s in enumerate(sources)]
        return Reply({"hits": {"total": {"value": len(hits)}, "hits": hits}})

    with serving(elastic) as index:
        names: dict[str, Any] = {}
        [block] = blocks(
            "rerank-behind-elasticsearch.md", reranker=server.origin, elastic=index.origin
        )
        run(block, names)
        with names["elastic"]:
            found = names["search"](QUERY, k=5)
            right = [str(place) for place in best_first(starter, contents)]
            assert [hit["_id"] for hit in found] == [*right, "4"]
            assert "gone.jpg" in found[-1]["rerank_error"]
            server.faults = [Reply(b"<html>", content_type="text/html")]
            fallen = names["search"](QUERY, k=2)
        assert [hit["_id"] for hit in fallen] == ["0", "1"]
        assert index.seen[0].path == "/photos/_search"
    assert "not reranked" in capsys.readouterr().out


def test_adapters(
    server: RerankServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ("langchain_core", "llama_index.core", "haystack"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    picture(1).save("photo.jpg")
    with Library.open(
        "my.library", preset="starter", settings={"store": {"backend": "exact"}}
    ) as it:
        it.index(["photo.jpg"])
    names: dict[str, Any] = {}
    for block in blocks("adapters.md", reranker=server.origin):
        run(block, names)
    names["library"].close()
    ranked, retrieved, nodes, documents = capsys.readouterr().out.splitlines()
    assert ranked.startswith("[('a red ball on the grass', 0.")
    assert "photo.jpg" in retrieved
    assert {old for _, old in eval(nodes)} == {0.4, 0.6}
    assert eval(documents)[0][1] == "a red ball on the grass"
