"""Memory: batches and candidates that do not fit, models that come and go, several devices."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from secondglance import Library
from secondglance.errors import ModelError, RerankError
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import ModelPool, Qwen3VLReranker
from secondglance.rerank.batching import Pair
from secondglance.rerank.engine import Engine
from secondglance.rerank.forward import Forward
from secondglance.rerank.memory import fitting_tokens, token_bytes, weights_bytes
from secondglance.rerank.options import default_dtype
from secondglance.types import Content, PairScore
from tests.media import picture

TOLERANCE = 1e-4
QUERY = Content(texts=["two dogs on a beach"])
PICTURES = [Content(images=[picture(n, width=256, height=192)]) for n in range(5)]


@pytest.fixture
def reranker() -> Qwen3VLReranker:
    return Qwen3VLReranker(starter_folder("reranker"), device="cpu", max_pixels=256 * 256)


def bounded(reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """A device that cannot hold batches of more tokens; the sizes of those it could."""
    forward = reranker._engine.forward
    log_odds, sizes = forward.log_odds, []

    def on_small_device(pairs: Sequence[Pair], prefix: Any = None) -> torch.Tensor:
        if len(pairs) * max(map(len, pairs)) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(pairs))
        return log_odds(pairs, prefix)

    monkeypatch.setattr(forward, "log_odds", on_small_device)
    return sizes


def test_what_did_not_fit_is_not_tried_again(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reranker.log_odds(QUERY, PICTURES)
    longest = max(len(reranker.encode(QUERY, document).ids) for document in PICTURES)
    before = reranker.batch_tokens
    sizes = bounded(reranker, monkeypatch, 2 * longest)
    assert reranker.log_odds(QUERY, PICTURES) == pytest.approx(expected, abs=TOLERANCE)
    assert reranker.batch_tokens < before
    assert max(sizes) == 2
    forward, tried = reranker._engine.forward, []
    fits = forward.log_odds

    def noting(pairs: Sequence[Pair], prefix: Any = None) -> torch.Tensor:
        tried.append(len(pairs) * max(map(len, pairs)))
        return fits(pairs, prefix)

    monkeypatch.setattr(forward, "log_odds", noting)
    reranker.log_odds(QUERY, PICTURES)
    assert max(tried) <= 3 * longest  # no longer all five


def test_a_candidate_that_is_too_large_is_reduced(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    documents = [PICTURES[0], Content(texts=["two dogs"])]
    small, text = (len(reranker.encode(QUERY, document).ids) for document in documents)
    quarter = Qwen3VLReranker(starter_folder("reranker"), device="cpu", max_pixels=128 * 128)
    [expected] = quarter.log_odds(QUERY, documents[:1])
    limit = len(quarter.encode(QUERY, documents[0]).ids)
    assert text <= limit < small
    bounded(reranker, monkeypatch, limit)
    picture_score, text_score = reranker.score(QUERY, documents)
    assert picture_score.reduced == pytest.approx(0.25)
    assert picture_score.log_odds == pytest.approx(expected, abs=TOLERANCE)
    assert text_score.reduced is None
    assert "25% of its pixels" in caplog.text


def test_a_text_that_is_too_large_is_an_error_of_its_own(
    reranker: Qwen3VLReranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Content(texts=["word " * 300]), Content(texts=["two dogs"])]
    bounded(reranker, monkeypatch, 200)
    long, short = reranker.score(QUERY, documents)
    assert long.score is None
    assert "do not fit in the memory" in str(long.error)
    assert short.score is not None


def test_batches_follow_free_memory(reranker: Qwen3VLReranker) -> None:
    config = reranker.model.config
    one = token_bytes(config, 2)
    assert fitting_tokens(config, 2, free_bytes=10**12, most=32_768) == 32_768
    assert fitting_tokens(config, 2, free_bytes=5_000 * one, most=32_768) == 4_000
    assert fitting_tokens(config, 4, free_bytes=5_000 * one, most=32_768) == 2_000
    assert fitting_tokens(config, 2, free_bytes=0, most=32_768) == 1_024


def test_a_closed_model_is_gone_and_says_so(reranker: Qwen3VLReranker) -> None:
    assert reranker.memory_bytes >= weights_bytes(starter_folder("reranker"))
    reranker.score(QUERY, PICTURES)
    model = weakref.ref(reranker.model)
    reranker.close()
    reranker.close()
    assert model() is None
    assert reranker.memory_bytes == 0
    with pytest.raises(RerankError, match="closed"):
        reranker.score(QUERY, [Content(texts=["two dogs"])])


def test_models_take_turns_within_a_limit() -> None:
    folder = starter_folder("reranker")
    size = weights_bytes(folder)
    documents = [Content(texts=["two dogs"]), Content(texts=["a car"])]

    def load() -> Qwen3VLReranker:
        return Qwen3VLReranker(folder, device="cpu")

    with ModelPool(int(1.5 * size)) as pool:
        with pool.get("first", load, bytes_needed=size) as first:
            expected = first.log_odds(QUERY, documents)
        with pool.get("second", load, bytes_needed=size) as second:
            assert second.log_odds(QUERY, documents) == expected
            assert [name for name, _ in pool.loaded()] == ["second"]
        with pytest.raises(RerankError, match="closed"):
            first.log_odds(QUERY, documents)
        with pool.get("first", load, bytes_needed=size) as again:
            assert again.log_odds(QUERY, documents) == expected


def test_a_library_loads_and_unloads_its_models(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        picture(number).save(photos / f"{number}.png")
    with Library.open(tmp_path / "library", preset="starter") as library:
        library.index([photos])
        library.load()
        parts = library._parts
        model = parts.reranker().inner  # type: ignore[attr-defined]
        first = library.search("a dog")
        library.unload()
        assert model.memory_bytes == 0
        assert not {"_embedder", "_reranker"} & set(vars(parts))
        again = library.search("a dog")
        assert [(hit.id, hit.rerank_score) for hit in again.hits] == [
            (hit.id, hit.rerank_score) for hit in first.hits
        ]


def test_replicas_share_the_work_and_agree(reranker: Qwen3VLReranker) -> None:
    expected = reranker.log_odds(QUERY, PICTURES)
    other = Qwen3VLReranker(starter_folder("reranker"), device="cpu", max_pixels=256 * 256)
    forwards = [reranker._engine.forward, other._engine.forward]
    seen: dict[int, int] = {0: 0, 1: 0}
    both = threading.Barrier(2, timeout=20)

    class Noted:
        """One of the forwards, that waits until the other has work as well."""

        def __init__(self, number: int) -> None:
            self.number = number
            self.inner = forwards[number]
            # Two devices in name: what one computed for all must not be used by the other.
            self.device = torch.device("cpu", number)
            self.begun = 0

        def common(self, pairs: Sequence[Pair]) -> int:
            return self.inner.common(pairs)

        def begin(self, pair: Pair, tokens: int) -> Any:
            self.begun += 1
            return self.inner.begin(pair, tokens)

        def log_odds(self, pairs: Sequence[Pair], prefix: Any = None) -> torch.Tensor:
            if not seen[self.number]:
                both.wait()
            seen[self.number] += len(pairs)
            return self.inner.log_odds(pairs, prefix)

    replicas = [Noted(0), Noted(1)]
    longest = max(len(reranker.encode(QUERY, document).ids) for document in PICTURES)
    engine = Engine(replicas, name="both", batch_tokens=longest)
    pairs = pairs_of(reranker, PICTURES * 2)
    found: dict[int, PairScore] = dict(engine.answers([pairs]))
    engine.close()
    odds = [float(found[place].log_odds or 0) for place in range(10)]
    assert odds == pytest.approx(expected * 2, abs=TOLERANCE)
    assert sum(seen.values()) == 10
    assert [replica.begun for replica in replicas] == [1, 1]


def pairs_of(reranker: Qwen3VLReranker, documents: Sequence[Content]) -> list[Pair]:
    from secondglance.rerank.preprocess import prepare

    limits = reranker._limits()
    asked = prepare(QUERY, limits)
    pieces = reranker._query_pieces(asked, None)
    return [
        reranker._pair(place, pieces, asked, prepare(document, limits))
        for place, document in enumerate(documents)
    ]


def test_replicas_without_gpus_are_one_error() -> None:
    with pytest.raises(ModelError, match="replicas is 2, and cpu is one device"):
        Qwen3VLReranker(starter_folder("reranker"), device="cpu", replicas=2)


def test_flash_attention_that_is_missing_is_replaced_with_a_warning(
    reranker: Qwen3VLReranker,
) -> None:
    with pytest.warns(UserWarning, match="torch's own attention takes its place"):
        asked = Qwen3VLReranker(
            starter_folder("reranker"),
            device="cpu",
            max_pixels=256 * 256,
            attn_implementation="flash_attention_2",
        )
    assert isinstance(asked._engine.forward, Forward)
    assert asked.log_odds(QUERY, PICTURES) == reranker.log_odds(QUERY, PICTURES)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_attention_gives_the_same_scores(attention: str, reranker: Qwen3VLReranker) -> None:
    other = Qwen3VLReranker(
        starter_folder("reranker"),
        device="cpu",
        max_pixels=256 * 256,
        attn_implementation=attention,
    )
    expected = reranker.log_odds(QUERY, PICTURES)
    assert other.log_odds(QUERY, PICTURES) == pytest.approx(expected, abs=TOLERANCE)


def test_the_processor_decides_the_default_type(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"amx_bf16": has})
        assert default_dtype(torch.device("cpu")) == dtype
        assert default_dtype(torch.device("cuda")) == torch.bfloat16
        assert default_dtype(torch.device("mps")) == torch.float32
