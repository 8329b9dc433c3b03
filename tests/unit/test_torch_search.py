"""Exact search in torch, against NumPy in float64."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from secondglance.errors import InputError, StoreError
from secondglance.retrieve import torch_search
from secondglance.retrieve.torch_search import TorchSearch

DIM = 32


def unit(count: int, seed: int) -> Any:
    made = np.random.default_rng(seed).standard_normal((count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def best(vectors: Any, queries: Any, limit: int) -> tuple[Any, Any]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    at = np.argsort(-scores, axis=1)[:, :limit]
    return np.take_along_axis(scores, at, 1), at


@pytest.mark.parametrize("count", [1, 7, 64, 5000, 20_011])
@pytest.mark.parametrize("limit", [1, 50])
@pytest.mark.parametrize("at_once", [256, 1 << 28])
def test_values(monkeypatch: pytest.MonkeyPatch, count: int, limit: int, at_once: int) -> None:
    monkeypatch.setattr(torch_search, "_SCORES_AT_ONCE", at_once * 3)
    vectors, queries = unit(count, 1), unit(3, 2)
    search = TorchSearch(dim=DIM, device="cpu")
    for start in range(0, count, 1999):
        search.add(vectors[start : start + 1999])
    assert len(search) == count
    scores, at = search.search(queries, limit)
    wanted, places = best(vectors, queries, limit)
    assert at.tolist() == places.tolist()
    np.testing.assert_allclose(scores.numpy(), wanted, atol=search.error)


def test_half_precision_scores_again_in_float32() -> None:
    # All near one direction: float16 products would tie by the hundred.
    vectors = unit(4000, 3) * 0.1 + unit(1, 4)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[:4] + 0.02 * unit(4, 5)
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    kind: Literal["float16"] = "float16"
    search = TorchSearch(dim=DIM, device="cpu", precision=kind)
    search.add(vectors)
    assert search.vectors.dtype == torch.float16
    scores, at = search.search(queries, 50)
    wanted, places = best(vectors, queries, 50)
    assert np.abs(scores.numpy() - wanted).max() < search.error
    same = [len(set(a) & set(b)) for a, b in zip(at.tolist(), places.tolist(), strict=True)]
    assert min(same) >= 48
    exactly = torch.from_numpy(queries) @ search.vectors.float().T
    np.testing.assert_allclose(scores.numpy(), exactly.topk(50).values.numpy(), atol=2e-5)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_a_mask(precision: Literal["float16", "float32"]) -> None:
    vectors, queries = unit(3000, 6), unit(2, 7)
    search = TorchSearch(dim=DIM, device="cpu", precision=precision)
    search.add(vectors)
    mask = np.arange(3000) % 500 == 3
    scores, at = search.search(queries, 10, mask=mask)
    real = scores.isfinite()
    assert real.sum(dim=1).tolist() == [6, 6]
    assert mask[at[real].numpy()].all()


def test_keeping_some_closes_the_gaps() -> None:
    vectors = unit(1000, 8)
    search = TorchSearch(dim=DIM, device="cpu")
    search.add(vectors)
    mask = np.random.default_rng(9).random(1000) < 0.4
    search.keep(mask)
    np.testing.assert_array_equal(search.vectors.numpy(), vectors[mask])
    search.add(vectors[:5])
    np.testing.assert_array_equal(search.vectors[-5:].numpy(), vectors[:5])


def test_bad_arguments() -> None:
    search = TorchSearch(dim=DIM, device="cpu")
    assert search.search(unit(2, 1), 5)[1].shape == (2, 0)
    with pytest.raises(InputError, match=r"\(2, 31\); \(n, 32\)"):
        search.add(np.zeros((2, 31), dtype=np.float32))
    with pytest.raises(InputError, match=r"\(q, 32\)"):
        search.search(np.zeros(32, dtype=np.float32), 5)
    with pytest.raises(InputError, match="limit is 0"):
        search.search(unit(1, 1), 0)
    with pytest.raises(InputError, match="dim is 0"):
        TorchSearch(dim=0)
    with pytest.raises(StoreError, match="'nonsense' cannot be used"):
        TorchSearch(dim=DIM, device="nonsense")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_said() -> None:
    with pytest.raises(StoreError, match="'cuda' cannot be used"):
        TorchSearch(dim=DIM, device="cuda")
