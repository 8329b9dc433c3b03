"""The rerank engine on a GPU: 8 bits, fused layers, threads, memory, several devices."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import secondglance
from secondglance.rerank import Qwen3VLReranker
from secondglance.scenes.examples import pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer
from secondglance.types import Content
from tests.media import picture

STARTER = Path(secondglance.__file__).parent / "models" / "starter" / "reranker"
pytestmark = pytest.mark.gpu

BFLOAT16_TOLERANCE = 1 / 8
"""Of probabilities here: the trained model's log-odds are large, and bfloat16 has 8 bits."""
QUERY = Content(texts=("two dogs on a beach",))
PICTURES = [Content(images=(picture(n, width=640, height=480),)) for n in range(24)]


@pytest.fixture(scope="module")
def asked() -> list[tuple[Content, Content]]:
    renderer = Renderer("cpu")
    return [
        (content(pair.query, renderer, picture_px=192, clip_px=128),
         content(pair.document, renderer, picture_px=192, clip_px=128))
        for pair in pairs("text-image", 24, seed=2, split="test", hard=0.9)
    ]  # fmt: skip


def scores(reranker: Qwen3VLReranker, asked: list[tuple[Content, Content]]) -> list[float]:
    return [float(reranker.score(query, [doc])[0].score or 0) for query, doc in asked]


@pytest.fixture(scope="module")
def expected(asked: list[tuple[Content, Content]]) -> list[float]:
    return scores(Qwen3VLReranker(STARTER, device="cpu"), asked)


@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("compiled", "fp8"), [(False, False), (True, False), (True, True)])
def test_a_trained_model_answers_alike(
    compiled: bool, fp8: bool, asked: list[tuple[Content, Content]], expected: list[float]
) -> None:
    reranker = Qwen3VLReranker(STARTER, compiled=compiled, fp8=fp8)
    assert reranker.device.type == "cuda"
    assert (reranker.fp8_drift is not None) == fp8
    found = scores(reranker, asked)
    assert np.abs(np.subtract(found, expected)).max() < (0.5 if fp8 else BFLOAT16_TOLERANCE)
    assert [score > 0.5 for score in found] == [score > 0.5 for score in expected]
    reranker.close()


def test_threads_get_their_own_scores() -> None:
    reranker = Qwen3VLReranker(STARTER, dtype=torch.float32)
    queries = [Content(texts=(f"{n} dogs",)) for n in range(8)]
    alone = [reranker.log_odds(query, PICTURES) for query in queries]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda query: reranker.log_odds(query, PICTURES), queries))
    assert np.abs(np.subtract(alone, together)).max() < 1e-3
    reranker.close()


def test_pixels_wait_where_the_gpu_can_fetch_them() -> None:
    from secondglance.rerank.preprocess import prepare

    reranker = Qwen3VLReranker(STARTER)
    limits = reranker._limits()
    query = prepare(QUERY, limits)
    pair = reranker._pair(
        0, reranker._query_pieces(query, None), query, prepare(PICTURES[0], limits)
    )
    assert all(pixels.is_pinned() for pixels in pair.images)
    reranker.close()


def test_a_candidate_that_does_not_fit_is_reduced() -> None:
    reranker = Qwen3VLReranker(STARTER, max_pixels=1_843_200)
    large = Content(images=(picture(1, width=1600, height=1100),))
    small = Content(images=(picture(2, width=128, height=96),))
    [expected] = reranker.log_odds(QUERY, [small])
    gc.collect()
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 48 * 2**20) / total)
    try:
        found = reranker.score(QUERY, [large, small])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found[0].score is not None
    assert found[0].reduced is not None
    assert found[0].reduced < 1
    assert found[1].reduced is None
    assert found[1].log_odds == pytest.approx(expected, abs=0.5)
    reranker.close()


def test_a_closed_model_gives_its_memory_back() -> None:
    gc.collect()
    before = torch.cuda.memory_allocated()
    reranker = Qwen3VLReranker(STARTER)
    reranker.score(QUERY, PICTURES[:2])
    assert torch.cuda.memory_allocated() > before + reranker.memory_bytes // 2
    reranker.close()
    assert torch.cuda.memory_allocated() <= before + 2**20


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is only one GPU")
def test_replicas_agree() -> None:
    one = Qwen3VLReranker(STARTER, dtype=torch.float32)
    several = Qwen3VLReranker(STARTER, dtype=torch.float32, replicas=0)
    assert len(several._engine._replicas) == torch.cuda.device_count()
    several.batch_tokens = 2_048
    expected = one.log_odds(QUERY, PICTURES)
    assert np.abs(np.subtract(several.log_odds(QUERY, PICTURES), expected)).max() < 1e-3
    one.close()
    several.close()
