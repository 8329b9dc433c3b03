"""The official script's own answers, pair by pair: token ids equal, log-odds within 1e-4."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from secondglance.rerank import Qwen3VLReranker
from secondglance.types import Content, VideoClip

TOLERANCE = 1e-4
"""Log-odds in float32: other kernels and batch shapes round differently."""

SHARED = Path(os.environ.get("SECONDGLANCE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
GOLDEN = SHARED / "golden" / "golden.json"
CASES = (
    "text-text",
    "text-image",
    "zh-image",
    "mixed",
    "image-image",
    "frames",
    "multi-image",
    "long-text",
)

pytestmark = pytest.mark.skipif(
    not GOLDEN.is_file(), reason=f"no reference scores at {GOLDEN}; set SECONDGLANCE_SHARED"
)


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    listed = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
    return {case["name"]: case for case in listed}


@pytest.fixture(scope="module")
def reranker() -> Qwen3VLReranker:
    folder = GOLDEN.parent / "qwen3-vl-reranker-tiny-random"
    return Qwen3VLReranker(folder, device="cpu", dtype="float32")


def content(part: dict[str, Any]) -> Content:
    def media(name: str) -> list[Path]:
        value = part.get(name, [])
        names = value if isinstance(value, list) else [value]
        return [GOLDEN.parent / "media" / name for name in names]

    texts = [part["text"]] if "text" in part else []
    if "text_repeat" in part:
        word, count = part["text_repeat"]
        texts = [word * count]
    videos = [VideoClip(frames=media("video"))] if "video" in part else []
    return Content(texts=texts, images=media("image"), videos=videos)


def test_every_case_is_tested(cases: dict[str, dict[str, Any]]) -> None:
    assert set(cases) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_token_ids(name: str, cases: dict[str, dict[str, Any]], reranker: Qwen3VLReranker) -> None:
    case = cases[name]
    for document, expected in zip(case["documents"], case["inputs"], strict=True):
        encoded = reranker.encode(
            content(case["query"]), content(document), instruction=case["instruction"]
        )
        ids = encoded.ids.tolist()
        assert len(ids) == expected["length"]
        assert ids[: len(expected["head"])] == expected["head"]
        assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == expected["sha256"]


@pytest.mark.parametrize("name", CASES)
def test_log_odds_in_one_batch(
    name: str,
    cases: dict[str, dict[str, Any]],
    reranker: Qwen3VLReranker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reranker, "batch_tokens", 1 << 20)
    case = cases[name]
    log_odds = reranker.log_odds(
        content(case["query"]),
        [content(document) for document in case["documents"]],
        instruction=case["instruction"],
    )
    assert log_odds == pytest.approx(case["log_odds"], abs=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_log_odds_and_scores_one_by_one(
    name: str, cases: dict[str, dict[str, Any]], reranker: Qwen3VLReranker
) -> None:
    case = cases[name]
    for document, log_odds, score in zip(
        case["documents"], case["log_odds"], case["scores"], strict=True
    ):
        [answer] = reranker.score(
            content(case["query"]), [content(document)], instruction=case["instruction"]
        )
        assert answer.error is None
        assert answer.log_odds == pytest.approx(log_odds, abs=TOLERANCE)
        assert answer.score == pytest.approx(score, abs=TOLERANCE)


def test_the_official_call(cases: dict[str, dict[str, Any]], reranker: Qwen3VLReranker) -> None:
    case = cases["frames"]
    media = GOLDEN.parent / "media"
    documents = [
        {**document, "video": [str(media / frame) for frame in document["video"]]}
        for document in case["documents"]
    ]
    scores = reranker.process({"query": case["query"], "documents": documents, "fps": 1.0})
    assert scores == pytest.approx(case["scores"], abs=TOLERANCE)
