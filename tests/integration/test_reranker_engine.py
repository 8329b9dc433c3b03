"""The engine's forward pass: what it shares, and that scores stay those of transformers."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from secondglance.errors import ModelError, RerankError
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.rerank.forward import Forward
from secondglance.rerank.replica import PlainForward
from secondglance.types import Content, VideoClip
from tests.media import picture

TOLERANCE = 1e-4
"""Log-odds in float32 (DESIGN: a batch must score as its members do alone)."""


@pytest.fixture(scope="module")
def reranker() -> Qwen3VLReranker:
    return Qwen3VLReranker(starter_folder("reranker"), device="cpu", max_pixels=128 * 128)


@pytest.fixture(scope="module")
def plain() -> Qwen3VLReranker:
    return Qwen3VLReranker(
        starter_folder("reranker"), device="cpu", max_pixels=128 * 128, attn_implementation="sdpa"
    )


def clip(seed: int, frames: int, width: int = 160, height: int = 128) -> VideoClip:
    shown = [picture(seed + number, width=width, height=height) for number in range(frames)]
    times_s = [0.0, 0.4, 1.7, 1.9, 3.3, 5.0, 5.1, 8.0][:frames]
    return VideoClip(frames=shown, times_s=times_s)


QUERIES = {
    "words": Content(texts=["a red dog to the left of two cats on a beach at night"]),
    "picture": Content(images=[picture(50, width=180, height=120)]),
    "clip": Content(videos=[clip(60, 4)]),
    "all": Content(
        texts=["like this"], images=[picture(51), picture(52, width=96)], videos=[clip(61, 3)]
    ),
}
DOCUMENTS = [
    Content(texts=["two dogs"]),
    Content(texts=["一只红色的狗在海滩上" * 6]),
    Content(images=[picture(1, width=300, height=200)]),
    Content(images=[picture(2, width=200, height=300)]),
    Content(images=[picture(3, width=300, height=200), picture(4, width=64, height=64)]),
    Content(videos=[clip(5, 4)]),
    Content(videos=[clip(7, 5)], images=[picture(9)], texts=["a clip and a picture"]),
]


def counted(reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Vision patches and tokens of each run through the two towers."""
    forward = reranker._engine.forward
    assert isinstance(forward, Forward)
    seen: dict[str, list[int]] = {"frames": [], "tokens": []}
    tower, embedded = forward._tower, forward._embedded

    def frames(pixels: torch.Tensor, height: int, width: int) -> list[torch.Tensor]:
        seen["frames"].append(len(pixels))
        return tower(pixels, height, width)

    def tokens(ids: Any, images: Sequence[Any], videos: Sequence[Any]) -> Any:
        seen["tokens"].append(int(ids.size))
        return embedded(ids, images, videos)

    monkeypatch.setattr(forward, "_tower", frames)
    monkeypatch.setattr(forward, "_embedded", tokens)
    return seen


@pytest.mark.parametrize("name", list(QUERIES))
def test_scores_are_those_of_transformers(
    name: str, reranker: Qwen3VLReranker, plain: Qwen3VLReranker
) -> None:
    assert isinstance(reranker._engine.forward, Forward)
    assert isinstance(plain._engine.forward, PlainForward)
    expected = plain.log_odds(QUERIES[name], DOCUMENTS)
    assert reranker.log_odds(QUERIES[name], DOCUMENTS) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("name", list(QUERIES))
def test_what_is_shared_changes_no_score(name: str, reranker: Qwen3VLReranker) -> None:
    alone = [reranker.log_odds(QUERIES[name], [document])[0] for document in DOCUMENTS]
    assert reranker.log_odds(QUERIES[name], DOCUMENTS) == pytest.approx(alone, abs=TOLERANCE)
    backwards = reranker.log_odds(QUERIES[name], DOCUMENTS[::-1])
    assert backwards[::-1] == pytest.approx(alone, abs=TOLERANCE)


def test_a_query_is_read_once(reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(reranker, monkeypatch)
    documents = [Content(texts=[f"text number {number}"]) for number in range(6)]
    reranker.log_odds(QUERIES["clip"], documents)
    assert seen["frames"] == [2]  # four frames, two by two
    prefix, rest = seen["tokens"]
    [whole] = {len(reranker.encode(QUERIES["clip"], documents[0]).ids)}
    assert prefix + rest < 2 * whole
    seen["frames"].clear()
    reranker.log_odds(QUERIES["clip"], documents[:1])
    assert seen["frames"] == [2]


def test_pictures_of_one_size_go_through_the_tower_together(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(reranker, monkeypatch)
    sizes = [(192, 192), (128, 224), (192, 192), (128, 224), (192, 192)]
    documents = [
        Content(images=[picture(number, width=width, height=height)])
        for number, (width, height) in enumerate(sizes)
    ]
    reranker.log_odds(QUERIES["words"], documents)
    assert sorted(seen["frames"]) == [2, 3]


def test_candidates_like_the_query_are_not_taken_for_it(reranker: Qwen3VLReranker) -> None:
    # Placeholders look alike; what is shared must end before the candidates' own pictures.
    query = Content(images=[picture(1, width=192, height=192)])
    documents = [Content(images=[picture(n, width=192, height=192)]) for n in (1, 2, 3)]
    odds = reranker.log_odds(query, documents)
    assert len({round(value, 3) for value in odds}) == 3
    alone = [reranker.log_odds(query, [document])[0] for document in documents]
    assert odds == pytest.approx(alone, abs=TOLERANCE)


def test_candidates_alike_share_all_but_the_end(reranker: Qwen3VLReranker) -> None:
    documents = [Content(texts=["the very same text"])] * 3
    odds = reranker.log_odds(QUERIES["words"], documents)
    [alone] = reranker.log_odds(QUERIES["words"], documents[:1])
    assert odds == pytest.approx([alone] * 3, abs=TOLERANCE)


def test_cut_candidates_score_as_alone(tmp_path: Path) -> None:
    short = Qwen3VLReranker(starter_folder("reranker"), device="cpu", max_length=120)
    documents = [Content(texts=["word " * count]) for count in (3, 60, 400)]
    query = Content(texts=["a word"])
    alone = [short.log_odds(query, [document])[0] for document in documents]
    assert short.log_odds(query, documents) == pytest.approx(alone, abs=TOLERANCE)


def test_repeated_runs_are_identical(reranker: Qwen3VLReranker) -> None:
    first = reranker.log_odds(QUERIES["all"], DOCUMENTS)
    assert reranker.log_odds(QUERIES["all"], DOCUMENTS) == first


def test_running_out_of_memory_while_sharing_costs_no_score(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reranker.log_odds(QUERIES["picture"], DOCUMENTS)

    def full(first: Any, tokens: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(reranker._engine.forward, "begin", full)
    assert reranker.log_odds(QUERIES["picture"], DOCUMENTS) == pytest.approx(
        expected, abs=TOLERANCE
    )


def test_prepared_candidates_are_kept_until_their_file_changes(tmp_path: Path) -> None:
    kept = Qwen3VLReranker(starter_folder("reranker"), device="cpu", pixel_cache_mb=8)
    path = tmp_path / "a.png"
    picture(1, width=192, height=192).save(path)
    documents = [Content(images=[path])]
    first = kept.log_odds(QUERIES["words"], documents)
    held = kept._prepared.held_bytes
    assert held >= 3 * 192 * 192
    assert kept.log_odds(QUERIES["words"], documents) == first
    assert kept._prepared.held_bytes == held
    picture(2, width=192, height=192).save(path)
    assert kept.log_odds(QUERIES["words"], documents) != first


def test_eight_bits_without_a_gpu_are_one_error() -> None:
    with pytest.raises(ModelError, match="cannot compute in fp8"):
        Qwen3VLReranker(starter_folder("reranker"), device="cpu", fp8=True)


def test_small_calls_of_several_threads_share_batches(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [Content(texts=[f"query number {number}"]) for number in range(8)]
    document = Content(texts=["two dogs"])
    expected = [reranker.log_odds(query, [document])[0] for query in queries]
    forward = reranker._engine.forward
    log_odds, sizes, held = forward.log_odds, [], threading.Event()

    def counted(pairs: Sequence[Any], prefix: Any = None) -> torch.Tensor:
        sizes.append(len(pairs))
        assert held.wait(20)  # until all have asked
        return log_odds(pairs, prefix)

    monkeypatch.setattr(forward, "log_odds", counted)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(reranker.log_odds, query, [document]) for query in queries]
        waiting = reranker._engine._scheduler._queue
        deadline_s = time.monotonic() + 20
        while sum(sizes) + sum(
            len(job._waiting) for lane in waiting._lanes.values() for job in lane.jobs
        ) < len(queries):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        held.set()
        found = [call.result(20)[0] for call in asked]
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert len(sizes) <= 3  # not eight


def test_a_call_that_takes_too_long_is_an_error(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = reranker._engine.forward
    log_odds, held = forward.log_odds, threading.Event()

    def slow(pairs: Sequence[Any], prefix: Any = None) -> torch.Tensor:
        assert held.wait(20)
        return log_odds(pairs, prefix)

    monkeypatch.setattr(forward, "log_odds", slow)
    with pytest.raises(RerankError, match=r"no score after 0\.05 s"):
        reranker.score(QUERIES["words"], DOCUMENTS[:1], timeout_s=0.05)
    held.set()
    assert reranker.score(QUERIES["words"], DOCUMENTS[:1])[0].score is not None


def test_grey_and_transparent_pictures_pass(reranker: Qwen3VLReranker) -> None:
    grey = Image.new("L", (100, 80), 120)
    clear = Image.new("RGBA", (100, 80), (200, 30, 30, 128))
    odds = reranker.log_odds(QUERIES["words"], [Content(images=[grey]), Content(images=[clear])])
    assert all(value == value for value in odds)
