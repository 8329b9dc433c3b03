"""Which store is fast enough at which size, and what does approximation cost?

    python benchmarks/stores.py --sizes 2000 50000 --dim 512 --queries 100 --out stores.json

Vectors form clusters, as embeddings of media do, and queries are noisy members. Each store is built
in batches of 500, closed, opened again, and asked one query at a time; the baseline is the exact
store. The filter `kind == "video"` keeps one record in ten.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from secondglance.retrieve.exact import ExactStore
from secondglance.retrieve.faiss_store import FaissStore
from secondglance.retrieve.filters import Filter, kind_is
from secondglance.retrieve.milvus_store import MilvusStore
from secondglance.retrieve.store import Store
from secondglance.types import Payload, Record

if TYPE_CHECKING:
    from secondglance.types import Vector

LIMIT = 100
BATCH = 500
STORES: dict[str, Callable[[Path, int], Store]] = {
    "exact": lambda folder, dim: ExactStore(folder, dim=dim),
    "faiss-flat": lambda folder, dim: FaissStore(folder, dim=dim, index="flat"),
    "faiss-hnsw": lambda folder, dim: FaissStore(folder, dim=dim, index="hnsw"),
    "milvus-lite": lambda folder, dim: MilvusStore(folder / "vectors.db", dim=dim),
}


def main() -> None:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2_000, 50_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    stores = ["exact", *(name for name in arguments.stores if name != "exact")]
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes:
        vectors, queries = clustered(size, arguments.queries, arguments.dim)
        truth: list[list[list[str]]] = []
        for name in stores:
            row, found = measure(name, vectors, queries)
            truth = truth or found
            row["recall_at_100"] = recall(found[0], truth[0])
            row["filtered_recall_at_100"] = recall(found[1], truth[1])
            rows.append(row)
            baseline = next(each for each in rows if each["size"] == size)
            for key in ("p50_ms", "filtered_p50_ms"):
                row[f"{key}_ratio"] = row[key] / baseline[key]
            Console(stderr=True).print(f"{name} at {size:,} done")
    Console(width=150).print(table(rows))
    if arguments.out:
        report = {"environment": environment(), "dim": arguments.dim, "limit": LIMIT, "rows": rows}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def clustered(size: int, queries: int, dim: int) -> tuple[Vector, Vector]:
    """Unit vectors around one centre per hundred, and queries near some of them."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, size // 100), dim), dtype=np.float32)
    vectors = centres[random.integers(len(centres), size=size)]
    vectors += random.standard_normal((size, dim), dtype=np.float32)
    asked = vectors[random.integers(size, size=queries)]
    asked += random.standard_normal((queries, dim), dtype=np.float32) / np.float32(2)
    return normalised(vectors), normalised(asked)


def normalised(vectors: Vector) -> Vector:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Vector = np.divide(vectors, lengths, dtype=np.float32)
    return units


def measure(
    name: str, vectors: Vector, queries: Vector
) -> tuple[dict[str, Any], list[list[list[str]]]]:
    """Figures of one store at one size, and the ids it found without and with the filter."""
    folder = Path(tempfile.mkdtemp())
    size, dim = vectors.shape
    try:
        start = time.perf_counter()
        store = STORES[name](folder, dim)
        for low in range(0, size, BATCH):
            store.upsert([record(n, vectors[n]) for n in range(low, min(low + BATCH, size))])
        store.close()
        build_s = time.perf_counter() - start
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        start = time.perf_counter()
        store = STORES[name](folder, dim)
        store.search(queries[0], limit=LIMIT)
        open_s = time.perf_counter() - start
        row: dict[str, Any] = {"store": name, "size": size, "index": store.capabilities.index}
        row |= {"build_s": build_s, "open_s": open_s, "disk_mb": disk / 1e6}
        found = []
        filters: dict[str, Filter | None] = {"": None, "filtered_": kind_is("video")}
        for prefix, filter in filters.items():
            times, ids = ask(store, queries, filter)
            found.append(ids)
            row[f"{prefix}p50_ms"] = statistics.median(times)
            row[f"{prefix}p95_ms"] = float(np.percentile(times, 95))
        store.close()
    finally:
        shutil.rmtree(folder)
        gc.collect()
    return row, found


def record(number: int, vector: Vector) -> Record:
    kind = "video" if number % 10 == 0 else "image"
    payload: Payload = {
        "kind": kind,
        "path": f"album{number % 97}/picture_{number}.jpg",
        "size": number,
    }
    return Record(id=f"{number:032x}", vector=vector, payload=payload)


def ask(
    store: Store, queries: Vector, filter: Filter | None
) -> tuple[list[float], list[list[str]]]:
    store.search(queries[0], limit=LIMIT, filter=filter)
    times, ids = [], []
    for query in queries:
        start = time.perf_counter()
        matches = store.search(query, limit=LIMIT, filter=filter)
        times.append(1e3 * (time.perf_counter() - start))
        ids.append([match.id for match in matches])
    return times, ids


def recall(found: list[list[str]], truth: list[list[str]]) -> float:
    pairs = zip(found, truth, strict=True)
    return statistics.mean(len(set(a) & set(b)) / len(b) for a, b in pairs)


def environment() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    packages = ("numpy", "faiss-cpu", "pymilvus", "milvus-lite")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table(title=f"Stores, limit {LIMIT}; ratio to exact in brackets")
    for title in ("size", "store", "build s", "open s", "disk MB"):
        made.add_column(title, justify="left" if title == "store" else "right")
    for title in (
        "p50 ms",
        "p95 ms",
        "filtered p50 ms",
        "filtered p95 ms",
        "recall",
        "filtered recall",
    ):
        made.add_column(title, justify="right")
    for row in rows:
        made.add_row(
            f"{row['size']:,}",
            row["store"],
            f"{row['build_s']:.1f}",
            f"{row['open_s']:.2f}",
            f"{row['disk_mb']:.0f}",
            f"{row['p50_ms']:.1f} ({row['p50_ms_ratio']:.2f}x)",
            f"{row['p95_ms']:.1f}",
            f"{row['filtered_p50_ms']:.1f} ({row['filtered_p50_ms_ratio']:.2f}x)",
            f"{row['filtered_p95_ms']:.1f}",
            f"{row['recall_at_100']:.3f}",
            f"{row['filtered_recall_at_100']:.3f}",
        )
    return made


if __name__ == "__main__":
    main()
