"""How FAISS indexes are chosen, and how many of the nearest they find."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from secondglance.errors import InputError
from secondglance.retrieve import vector_index
from secondglance.retrieve.vector_index import (
    LEAST_TRAINING,
    FaissIndex,
    GpuIndex,
    Layout,
    Matrix,
    Tuning,
    checked,
    choose,
    describe,
    index_bytes,
    memory_bytes,
)

if TYPE_CHECKING:
    from secondglance.types import Vector

DIM, COUNT = 48, 6000
Made = dict[str, Any]


def unit(vectors: Any) -> Matrix:
    made: Matrix = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def data() -> dict[str, tuple[Matrix, Matrix]]:
    """Vectors and queries, clustered and not."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((60, DIM))
    members = centres[random.integers(60, size=COUNT + 30)]
    clustered = unit(members + 0.7 * random.standard_normal(members.shape))
    plain = unit(random.standard_normal((COUNT + 30, DIM)))
    return {
        "clustered": (clustered[:COUNT], clustered[COUNT:]),
        "random": (plain[:COUNT], plain[COUNT:]),
    }


@pytest.fixture(scope="module")
def built(data: dict[str, tuple[Matrix, Matrix]]) -> Made:
    made: Made = {}
    layouts: list[Layout] = ["flat", "hnsw", "sq8", "ivfpq"]
    for kind, (vectors, _) in data.items():
        for layout in layouts:
            index = FaissIndex(
                layout, dim=DIM, tuning=Tuning(m=8), expected=COUNT, sample=vectors[:2000]
            )
            index.add(vectors)
            made[f"{layout}-{kind}"] = index
    return made


def recall(index: Any, vectors: Matrix, queries: Matrix, *, limit: int, keep: Any = None) -> float:
    """Share of the true nearest among the candidates, once these are compared exactly."""
    found = 0
    for query in queries:
        scores = vectors @ query
        allowed = scores if keep is None else np.where(keep, scores, -2)
        true = set(np.argsort(-allowed)[:limit].tolist())
        positions, _ = index.search(query, limit * index.again + 16, keep)
        found += len(true & set(positions[np.argsort(-scores[positions])][:limit].tolist()))
    return found / limit / len(queries)


@pytest.mark.parametrize("layout", ["flat", "hnsw", "sq8", "ivfpq"])
@pytest.mark.parametrize("kind", ["clustered", "random"])
@pytest.mark.parametrize("limit", [10, 50])
def test_the_nearest_are_found(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], layout: str, kind: str, limit: int
) -> None:
    vectors, queries = data[kind]
    reached = recall(built[f"{layout}-{kind}"], vectors, queries, limit=limit)
    # What a byte says of four random numbers is little; the others compare more closely.
    least = 0.9 if (layout, kind) == ("ivfpq", "random") else 0.97
    assert reached >= (1.0 if layout == "flat" else least)


@pytest.mark.parametrize("layout", ["flat", "hnsw", "sq8", "ivfpq"])
@pytest.mark.parametrize("one_in", [3, 8])
def test_the_nearest_that_a_filter_keeps_are_found(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], layout: str, one_in: int
) -> None:
    vectors, queries = data["random"]
    keep = np.arange(COUNT) % one_in == 0
    index = built[f"{layout}-random"]
    assert recall(index, vectors, queries, limit=10, keep=keep) >= 0.97
    positions, _ = index.search(queries[0], 40, keep)
    assert len(positions) == 40
    assert keep[positions].all()


@pytest.mark.parametrize("layout", ["flat", "hnsw", "sq8", "ivfpq"])
def test_a_scan_sees_all_that_a_filter_keeps(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], layout: str
) -> None:
    vectors, queries = data["random"]
    keep = np.zeros(COUNT, dtype=np.bool_)
    keep[np.random.default_rng(3).choice(COUNT, 25, replace=False)] = True
    for query in queries[:5]:
        positions, scores = built[f"{layout}-random"].scan(query, 25, keep)
        assert set(positions.tolist()) == set(np.flatnonzero(keep).tolist())
        assert scores == pytest.approx(vectors[positions] @ query, abs=0.15)


def test_a_search_widens_where_answers_are_unsettled(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    once = FaissIndex._once

    def watched(self: FaissIndex, *rest: Any, width: int) -> tuple[Any, Any]:
        widths.append(width)
        return once(self, *rest, width=width)

    monkeypatch.setattr(FaissIndex, "_once", watched)
    steps = {}
    for kind in ("clustered", "random"):
        widths.clear()
        for query in data[kind][1]:
            built[f"hnsw-{kind}"].search(query, 10, None)
        steps[kind] = len(widths)
    assert 2 * 30 <= steps["clustered"] < steps["random"]
    widths.clear()
    built["hnsw-random"].search(data["random"][1][0], 300, None)
    # Never fewer candidates than are wanted.
    assert widths[0] == 300


def test_few_lists_are_searched_where_that_is_enough(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    near = FaissIndex._lists_near

    def watched(self: FaissIndex, *rest: Any, probes: int) -> tuple[Any, Any]:
        looked[-1] += probes
        return near(self, *rest, probes=probes)

    monkeypatch.setattr(FaissIndex, "_lists_near", watched)
    share = {}
    for kind in ("clustered", "random"):
        index = built[f"ivfpq-{kind}"]
        for query in data[kind][1]:
            looked.append(0)
            index.search(query, 10, None)
        share[kind] = np.median(looked) / index._inverted().nlist
        looked.clear()
    assert share["clustered"] < 0.06
    assert share["random"] > 2 * share["clustered"]


@pytest.mark.parametrize("layout", ["flat", "hnsw", "sq8", "ivfpq"])
def test_a_mapped_index_answers_as_the_one_in_memory(
    built: Made, data: dict[str, tuple[Matrix, Matrix]], layout: Layout, tmp_path: Path
) -> None:
    index = built[f"{layout}-clustered"]
    path = tmp_path / "index"
    index.write(path)
    for mapped in (True, False):
        again = FaissIndex.read(path, layout, tuning=Tuning(m=8), mapped=mapped)
        assert len(again) == COUNT
        assert again.dim == DIM
        for query in data["clustered"][1][:5]:
            expected, scores = index.search(query, 20, None)
            found, same = again.search(query, 20, None)
            assert found.tolist() == expected.tolist()
            assert same == pytest.approx(scores, abs=1e-6)
    again.add(data["clustered"][0][:3])
    assert len(again) == COUNT + 3


def test_exact_vectors_are_there_unless_quantised(
    built: Made, data: dict[str, tuple[Matrix, Matrix]]
) -> None:
    vectors: Vector = data["clustered"][0]
    for layout in ("flat", "hnsw"):
        np.testing.assert_array_equal(built[f"{layout}-clustered"].vectors(), vectors)
    for layout in ("sq8", "ivfpq"):
        assert built[f"{layout}-clustered"].vectors() is None


@pytest.mark.parametrize(
    ("count", "memory_gb", "wanted"),
    [
        (50_000, 16, "flat"),
        (50_001, 16, "hnsw"),
        (1_000_000, 16, "hnsw"),
        (1_000_000, 4, "sq8"),
        (1_000_000, 1, "ivfpq"),
        (5_000_000, 16, "sq8"),
        (100_000_000, 16, "ivfpq"),
        (50_000, 0.001, "flat"),
    ],
)
def test_size_and_memory_choose(count: int, memory_gb: float, wanted: str) -> None:
    memory = int(memory_gb * 1e9)
    assert choose(count, dim=512, m=32, threshold=50_000, memory=memory) == wanted


def test_a_layout_stays_until_much_less_would_do() -> None:
    def after(count: int, now: Layout) -> Layout:
        return choose(count, dim=512, m=32, threshold=50_000, memory=int(16e9), now=now)

    assert after(49_000, "hnsw") == "hnsw"
    assert after(25_000, "hnsw") == "flat"
    # Up to 3.4 million fit as HNSW, so what was quantised comes back at half of that.
    assert after(3_000_000, "hnsw") == "hnsw"
    assert after(3_000_000, "sq8") == "sq8"
    assert after(1_600_000, "sq8") == "hnsw"
    assert after(25_000, "gpu") == "flat"


def test_the_estimate_is_near_the_file(built: Made, tmp_path: Path) -> None:
    for layout in ("flat", "hnsw", "sq8", "ivfpq"):
        built[f"{layout}-random"].write(tmp_path / layout)
        size = (tmp_path / layout).stat().st_size + 9 * COUNT
        estimate = index_bytes(layout, COUNT, dim=DIM, m=8)
        # Codebooks are left out: here they are as large as the lists.
        assert estimate == pytest.approx(size, rel=0.5 if layout == "ivfpq" else 0.05)


def test_the_reason_is_told() -> None:
    def told(layout: Layout) -> str:
        return describe(layout, 1_000_000, dim=512, tuning=Tuning(), memory=int(16e9))

    assert told("hnsw") == "HNSW (M=32): 1,000,000 vectors, 2.3 GB of 16.0 GB"
    assert told("sq8") == "HNSW over 8-bit vectors (M=32): 1,000,000 vectors, 0.8 GB of 16.0 GB"
    assert told("ivfpq").startswith("IVF-PQ (4,000 lists): 1,000,000 vectors, 0.2 GB")
    assert told("gpu") == "exact on the GPU: 1,000,000 vectors, 1.0 GB"


def test_the_machine_has_memory() -> None:
    assert memory_bytes() > 1 << 28


def test_a_tiny_sample_suffices(capfd: pytest.CaptureFixture[str]) -> None:
    vectors = unit(np.random.default_rng(5).standard_normal((1000, DIM)))
    kinds: tuple[Layout, ...] = ("sq8", "ivfpq")
    for layout in kinds:
        least = vectors[: LEAST_TRAINING[layout]]
        index = FaissIndex(layout, dim=DIM, tuning=Tuning(), expected=3, sample=least)
        index.add(vectors[:3])
        assert sorted(index.search(vectors[0], 3, None)[0].tolist()) == [0, 1, 2]
    # FAISS warns on small samples by printing.
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_lists_are_learnt_on_gpus_where_faiss_has_them(
    monkeypatch: pytest.MonkeyPatch, data: dict[str, tuple[Matrix, Matrix]]
) -> None:
    vectors, queries = data["clustered"]
    moved = []

    def to_gpus(index: Any) -> Any:
        moved.append(index)
        return index

    monkeypatch.setattr(vector_index.faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(vector_index.faiss, "index_cpu_to_all_gpus", to_gpus)
    index = FaissIndex("ivfpq", dim=DIM, tuning=Tuning(), expected=COUNT, sample=vectors)
    # What assigned vectors to centres while they were learnt holds the centres.
    (assigner,) = moved
    assert assigner.ntotal == index._inverted().nlist
    assert index._inverted().clustering_index is None
    index.add(vectors)
    assert len(index.search(queries[0], 10, None)[0]) == 10


def test_the_gpu_index_in_torch_finds_the_same(data: dict[str, tuple[Matrix, Matrix]]) -> None:
    vectors, queries = data["random"]
    index = GpuIndex(dim=DIM, expected=10, device="cpu")
    index.add(vectors)
    keep = np.arange(COUNT) % 7 == 0
    assert recall(index, vectors, queries, limit=10) == 1
    assert recall(index, vectors, queries, limit=10, keep=keep) == 1
    positions, _ = index.search(queries[0], COUNT, keep)
    assert keep[positions].all()
    index.keep(keep)
    assert len(index) == keep.sum()
    assert recall(index, vectors[keep], queries, limit=10) == 1


@pytest.mark.parametrize("choice", ["ivf", "", "HNSW"])
def test_other_layouts_are_refused(choice: str) -> None:
    with pytest.raises(InputError, match="allowed: auto, flat, hnsw, sq8, ivfpq, gpu"):
        checked(choice)
