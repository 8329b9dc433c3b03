"""The models on a CUDA device say what they say on the processor."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from secondglance.rerank import Qwen3VLReranker
from secondglance.types import Content, VideoClip
from tests.media import picture

pytestmark = pytest.mark.gpu

FLOAT32_TOLERANCE = 1e-3
"""Of log-odds: other kernels add in another order."""
BFLOAT16_TOLERANCE = 1 / 8

QUERY = Content(texts=("two dogs on a beach",))
DOCUMENTS = (
    *(Content(images=(picture(seed, width=320, height=240),)) for seed in range(6)),
    Content(images=(picture(7, width=900, height=500),), texts=("a caption",)),
    Content(
        videos=(
            VideoClip(
                frames=[picture(seed, width=160, height=120) for seed in range(5)],
                times_s=[0.0, 1.0, 2.5, 4.0, 9.0],
            ),
        )
    ),
    Content(texts=("two dogs run along the water",)),
    Content(images=(picture(8), picture(9))),
)


@pytest.fixture(autouse=True, scope="module")
def _exact(cuda: None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="module")
def expected(untrained_reranker: Path) -> list[float]:
    return Qwen3VLReranker(untrained_reranker, device="cpu").log_odds(QUERY, DOCUMENTS)


def test_reranker_in_float32(untrained_reranker: Path, expected: list[float]) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, dtype=torch.float32)
    assert reranker.device.type == "cuda"
    found = reranker.log_odds(QUERY, DOCUMENTS)
    assert np.abs(np.subtract(found, expected)).max() < FLOAT32_TOLERANCE


def test_reranker_in_bfloat16_by_default(untrained_reranker: Path, expected: list[float]) -> None:
    reranker = Qwen3VLReranker(untrained_reranker)
    assert reranker.model.dtype == torch.bfloat16
    found = reranker.log_odds(QUERY, DOCUMENTS)
    assert np.abs(np.subtract(found, expected)).max() < BFLOAT16_TOLERANCE
    alone = [reranker.log_odds(QUERY, [document])[0] for document in DOCUMENTS]
    assert np.abs(np.subtract(alone, found)).max() < BFLOAT16_TOLERANCE


def test_reranker_halves_a_batch_that_does_not_fit(
    untrained_reranker: Path, expected: list[float]
) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, dtype=torch.float32, batch_tokens=10**6)
    many = [DOCUMENTS[index % len(DOCUMENTS)] for index in range(400)]
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    used = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction((used + 300 * 2**20) / total)
    try:
        assert free > 2**30
        found = reranker.log_odds(QUERY, many)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    wanted = [expected[index % len(expected)] for index in range(400)]
    assert np.abs(np.subtract(found, wanted)).max() < FLOAT32_TOLERANCE


def test_reference_scores(untrained_reranker: Path) -> None:
    shared = os.environ.get("SECONDGLANCE_SHARED")
    if not shared:
        pytest.skip("the reference scores are not here: SECONDGLANCE_SHARED is not set")
    golden = Path(shared) / "golden"
    checkpoint, media = golden / "qwen3-vl-reranker-tiny-random", golden / "media"
    documents = [Content(images=(media / name,)) for name in ("a.jpg", "b.png", "huge.jpg")]
    reference = [-1.2148663997650146, -0.6191763281822205, -1.1855463981628418]
    query = Content(texts=("two dogs fighting",))
    exact = Qwen3VLReranker(checkpoint, dtype=torch.float32).log_odds(query, documents)
    assert np.abs(np.subtract(exact, reference)).max() < FLOAT32_TOLERANCE
    rough = Qwen3VLReranker(checkpoint).log_odds(query, documents)
    assert np.abs(np.subtract(rough, reference)).max() < BFLOAT16_TOLERANCE


def test_embedder_agrees_with_the_processor(untrained_clip: Path) -> None:
    from secondglance.ingest.embedder import ClipEmbedder

    pictures = [picture(seed) for seed in range(40)]
    texts = ["a dog", "一只狗", "two red cars"]
    on_cpu = ClipEmbedder(str(untrained_clip), device="cpu")
    for precision, least in (("fp32", 1 - 1e-5), ("auto", 0.999)):
        on_gpu = ClipEmbedder(str(untrained_clip), precision=precision)
        assert on_gpu.device.type == "cuda"
        assert on_gpu.fingerprint == on_cpu.fingerprint
        for ours, theirs in (
            (on_gpu.embed_pictures(pictures), on_cpu.embed_pictures(pictures)),
            (on_gpu.embed_texts(texts), on_cpu.embed_texts(texts)),
        ):
            assert (ours * theirs).sum(axis=1).min() > least


@pytest.mark.filterwarnings("ignore:.*script_method.* is deprecated:DeprecationWarning")
def test_a_compiled_embedder_agrees(untrained_clip: Path) -> None:
    from secondglance.ingest.embedder import ClipEmbedder

    pictures = [picture(seed) for seed in range(11)]
    fused = ClipEmbedder(str(untrained_clip), compiled=True, batch_size=4)
    expected = ClipEmbedder(str(untrained_clip), device="cpu").embed_pictures(pictures)
    assert (fused.embed_pictures(pictures) * expected).sum(axis=1).min() > 0.999
