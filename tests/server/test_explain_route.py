"""Why a result matched, over HTTP."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest

from secondglance.library import Library
from secondglance.types import Content


def hit(http: httpx.Client, kind: str) -> str:
    answer = http.post("/v1/search", json={"query": "a dog", "kind": kind, "k": 1, "rerank": False})
    found: str = answer.json()["hits"][0]["id"]
    return found


def test_words_of_a_text_in_the_library(http: httpx.Client, library: Library) -> None:
    id = hit(http, "text")
    answer = http.post("/v1/explain", json={"query": "a dog", "id": id, "query_words": True})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    expected = library.explain("a dog", id, query_words=True)
    assert found["kind"] == "text"
    assert [word["effect"] for word in found["words"]] == pytest.approx(
        [word.effect for word in expected.words], abs=1e-4
    )
    for word in found["words"]:
        assert found["texts"][word["part"]][word["start"] : word["end"]] == word["text"]
    assert [word["text"] for word in found["query_words"]] == ["a", "dog"]
    assert found["regions"] is None


@pytest.mark.parametrize("kind", ["image", "video"])
def test_regions_of_a_picture_and_of_a_frame(http: httpx.Client, kind: str) -> None:
    found = http.post("/v1/explain", json={"query": "a dog", "id": hit(http, kind)}).json()
    regions = found["regions"]
    assert len(regions["effects"]) == regions["rows"]
    assert {len(row) for row in regions["effects"]} == {regions["cols"]}
    assert (found["at_s"] is None) == (kind == "image")
    assert set(found["timings_ms"]) == {"queue", "explain", "total"}


def test_a_document_that_the_caller_brings(
    http: httpx.Client, library: Library, media: Path
) -> None:
    picture = next((media / "photos").iterdir())
    data = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    asked = {"query": "a dog", "document": {"image": data}}
    found = http.post("/v1/explain", json=asked).json()
    expected = library.explain("a dog", Content(images=(picture,)))
    assert expected.regions is not None
    assert found["regions"]["effects"] == pytest.approx(
        [pytest.approx(list(row), abs=1e-3) for row in expected.regions.effects]
    )
    assert found["id"] == ""


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"query": "a dog"}, 400),
        ({"query": "a dog", "id": "0" * 32}, 404),
        ({"query": "a dog", "id": "../../etc/passwd"}, 404),
        ({"query": "", "document": "x"}, 400),
        ({"query": "a dog", "document": {}}, 400),
    ],
)
def test_what_cannot_be_explained(
    http: httpx.Client, asked: dict[str, object], status: int
) -> None:
    answer = http.post("/v1/explain", json=asked)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
