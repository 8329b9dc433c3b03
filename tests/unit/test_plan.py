"""`secondglance plan`, by value: what it says follows from the rates it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.config import PRESET_NAMES, Settings, load_settings, read_preset
from secondglance.errors import InputError
from secondglance.pipelines.plan import Plan, plan, read_rates

ROOT = Path(__file__).parents[2]


def settings(preset: str = "gpu", **sections: Any) -> Settings:
    return load_settings(base={**read_preset(preset), "preset": preset}, flags=sections)


def reckon(chosen: Settings | None = None, **numbers: Any) -> Plan:
    given = {"images": 0, "video_hours": 0.0, "queries_per_second": 0.0, "cores": 2,
             "memory_bytes": 32 * 10**9, **numbers}  # fmt: skip
    return plan(chosen or settings(), **given)


def test_vectors_and_bytes() -> None:
    found = reckon(images=100_000, video_hours=10)
    assert found.vectors == 100_000 + 10_680
    assert reckon(video_hours=10, segments_per_hour=60).vectors == 600
    assert found.dimension == 1152
    by_name = {index.name: index for index in found.indexes}
    assert {name: index.bytes_per_vector for name, index in by_name.items()} == {
        # 32 links, twice in the lowest layer; 9 bytes say what a position holds.
        "HNSW, float32": 4 * 1152 + 276 + 9,
        "flat, float32": 4 * 1152 + 9,
        "flat, float16, on a GPU": 2 * 1152 + 9,
        "HNSW, 8 bits": 1152 + 276 + 9,
        "IVF_SQ8 of Milvus": 1152 + 8,
        # Four numbers a byte, an id, and the rotation and 1,330 centres, which 110,680 share.
        "IVF-PQ": 1152 // 4 + 8 + 9 + (4 * 1152 * 1330 + 4 * 1152**2) // 110_680,
    }
    flat = by_name["flat, float32"]
    assert flat.memory_bytes == 110_680 * (4617 + 650)
    assert flat.disk_bytes == 110_680 * (4617 + 4608 + 444)


def test_hours_to_ingest() -> None:
    model_as_measured = read_rates()
    model_as_measured["recall"]["ViT-SO400M-16-SigLIP2-384"]["gflop"] = 8.4
    # Large photographs, as fast as they were measured; twice as fast with twice the cores.
    found = reckon(images=92 * 3600, rates=model_as_measured)
    assert found.ingest_hours_here == pytest.approx(10.0)
    found = reckon(images=92 * 3600, rates=model_as_measured, cores=4)
    assert found.ingest_hours_here == pytest.approx(5.0)
    # On a GPU: decoding is the wall with a small model, embedding with a large one.
    assert reckon(settings("laptop"), images=5_728 * 3600).ingest_hours_gpu == pytest.approx(10.0)
    large = reckon(images=1_000_000).ingest_hours_gpu
    assert large == pytest.approx(1e6 / (5226.6 * 45.9 / 514.9 * 0.797) / 3600)
    # Video: 16 cores watch it at 11.95 times real time each.
    watched = reckon(settings("laptop"), video_hours=11.95 * 16 * 7).ingest_hours_gpu
    assert watched == pytest.approx(7.0)


def test_gpus_and_costs() -> None:
    found = reckon(images=1000, queries_per_second=5, gpu_hour_price=3.0)
    assert found.candidates == 100
    assert found.candidates_per_s == pytest.approx(17.5)
    assert found.gpu_seconds_per_query == pytest.approx(100 / 17.5)
    assert found.gpus == 41  # 5 * 5.71 / 0.7 = 40.8
    assert found.cost_per_million_queries == pytest.approx(1e6 * 100 / 17.5 / 0.7 / 3600 * 3)
    assert found.cost_to_ingest == pytest.approx(3 * (found.ingest_hours_gpu or 0))
    # Clips and pictures, half of each.
    half = reckon(images=10_680, video_hours=10, queries_per_second=1)
    assert half.candidates_per_s == pytest.approx(1 / (0.5 / 17.5 + 0.5 / 20.3))
    quick = reckon(settings(rerank={"fp8": True}), images=1000)
    assert quick.candidates_per_s == pytest.approx(26.8)
    assert reckon(settings("laptop"), images=1000).candidates == 30
    assert reckon(images=7).candidates == 7
    assert reckon(images=7).gpus == 0
    assert reckon(images=7).cost_per_million_queries is None
    without = reckon(settings(search={"rerank": False}), images=1000, queries_per_second=9)
    assert (without.candidates, without.gpus) == (0, 0)


def test_what_was_not_measured_is_said() -> None:
    found = reckon(settings("starter"), images=56_800 * 36, queries_per_second=5, gpu_hour_price=1)
    assert found.ingest_hours_here == pytest.approx(10.0)
    assert found.ingest_hours_gpu is found.gpus is found.cost_per_million_queries is None
    assert any("no rate on a GPU was measured" in source for source in found.sources)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (20_000, ("67 ms", "No need to quantise", "One machine holds this")),
        (5_000_000, ("16,740 ms", "HNSW, 8 bits fits", "One machine holds this")),
        (1_000_000_000, ("ms", "no variant fits", "Cluster: 1,000,000,000 vectors")),
    ],
)
def test_advice(images: int, expected: tuple[str, str, str]) -> None:
    advice = reckon(images=images).advice
    assert [part in said for part, said in zip(expected, advice, strict=True)] == [True] * 3
    assert "Beyond 29,868 vectors" in advice[0]


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ({}, "nothing to plan for"),
        ({"images": -1}, "images: -1"),
        ({"video_hours": float("nan")}, "video hours: nan"),
        ({"video_hours": float("inf")}, "video hours: inf"),
        ({"images": 1, "queries_per_second": -2.0}, "queries per second: -2"),
        ({"images": 1, "gpu_hour_price": -1.0}, "price"),
        ({"images": 1, "segments_per_hour": 0.0}, "segments per hour: 0"),
        ({"images": 1, "memory_bytes": 0}, "memory: 0"),
    ],
)
def test_impossible_numbers(numbers: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        reckon(**numbers)


def test_a_recall_model_that_nobody_measured() -> None:
    with pytest.raises(InputError, match="nothing was measured for the recall model 'other'"):
        reckon(settings(recall={"model": "other"}), images=1)


def test_the_rates_are_those_of_the_results() -> None:
    """A benchmark that is run again and differs must reach the plan."""
    rates = read_rates()

    def rows(name: str) -> list[dict[str, Any]]:
        found = json.loads((ROOT / "benchmarks/results" / name).read_text("utf-8"))["rows"]
        return list(found)

    ways = {"engine": None, "engine, fused": "compiled", "engine, fp8, fused": "fp8"}
    checked = 0
    for row in rows("rerank-h200.json"):
        case, way = row.get("case"), row.get("way")
        if way not in ways or case not in ("text, 1200 tokens", "text, clip of 16 frames"):
            continue
        known = rates["rerank"][f"Qwen/Qwen3-VL-Reranker-{row['model']}"]
        known = known[ways[way]] if ways[way] else known
        key = "clips_per_s" if "clip" in case else "pictures_per_s"
        assert known[key] == row["pairs/s"], (row, known)
        checked += 1
    assert checked == 12
    stages = {r["stage"]: r for r in rows("ingest-stages-h200-1600x1200.json")}
    gpu = rates["gpu"]
    assert gpu["index_per_s"] == stages["index"]["images/s"]
    assert gpu["embed_per_s"] == stages["embedding alone"]["images/s"]
    assert gpu["of_slowest_stage"] == stages["index"]["of the slowest stage"]
    video = rows("video.json")[0]
    assert rates["processor"]["video"]["times_real_time_per_core"] == pytest.approx(
        video["both x"], abs=0.01
    )
    assert rates["segments"]["per_hour"] == round(video["segments"] * 3600 / video["seconds"])
    [ours] = [row for row in rows("ingest.json") if row["way"] == "secondglance"]
    assert rates["processor"]["pictures_per_s"] == pytest.approx(ours["images/s"], abs=0.05)
    [lite] = [r for r in rows("stores.json") if r["store"] == "milvus-lite" and r["size"] == 50_000]
    assert rates["store"]["milvus_lite_ms"] == pytest.approx(lite["p50_ms"], abs=0.05)
    starter = rows("starter-speed.json")[0]
    assert rates["recall"]["builtin:starter"]["pictures_per_s"] == starter["median"]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_the_models_of_every_preset_are_known(preset: str) -> None:
    import open_clip

    found = reckon(settings(preset), images=1)
    model = settings(preset).recall.model
    if not model.startswith("builtin:"):
        assert found.dimension == open_clip.get_model_config(model)["embed_dim"]


def test_the_command() -> None:
    given = ["plan", "--images", "1000", "--video-hours", "2", "--queries-per-second", "3",
             "--gpu-hour-price", "2.5", "--memory-gb", "16", "--cores", "8"]  # fmt: skip
    told = CliRunner().invoke(app, [*given, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["vectors"] == 3136
    assert (found["cores"], found["memory_bytes"], found["preset"]) == (8, 16 * 10**9, "gpu")
    assert found["gpus"] == reckon(images=1000, video_hours=2.0, queries_per_second=3.0).gpus
    assert found["indexes"][0]["name"] == "HNSW, float32"
    shown = CliRunner().invoke(app, [*given, "--preset", "laptop"])
    assert shown.exit_code == 0, shown.output
    assert "3,136 of 768 numbers" in shown.stdout
    assert "cost of a million queries" in shown.stdout
    assert "benchmarks/results/rerank-h200.json" in shown.stdout
