"""What does a filter cost inside the store, and what does filtering afterwards miss?

    python benchmarks/filters.py --size 100000 --dim 256

Random unit vectors with the metadata of a photo library, in each store; every query asks for the
nearest 10 under no filter and under filters that keep 50 %, 1 % and 0.01 % of the records.
"pushdown" is the store's own filter. "post, 1,000" searches the nearest 1,000 and filters in
Python; "post, deep" goes on to four times as many, until it has 10 or has seen 16,384, where Milvus
ends. Recall is the share of the exact store's answers. This measures speed and completeness, not
how well anything is found: the vectors mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import console, report
from stores import STORES

from secondglance.retrieve.filters import Filter, parse_filter
from secondglance.retrieve.store import Store
from secondglance.types import Payload, Record, join_tags

if TYPE_CHECKING:
    from secondglance.types import Vector

LIMIT = 10
BATCH = 1000
POST = ("50 %", "1 %", "0.01 %")
POST_QUERIES = 3
"""Filtering afterwards takes seconds a query on large stores."""

DEEPEST = 16_384
EXPRESSIONS = {
    "none": "",
    "50 %": "taken >= 2020-01-01",
    "1 %": 'tags has "beach"',
    "1 %, near": "near(47.37, 8.54, 10)",
    "0.01 %": 'camera == "Leica M6" and rating >= 4',
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument(
        "--stores", nargs="+", choices=STORES, default=["exact", "faiss-hnsw", "milvus-lite"]
    )
    arguments = parser.parse_args()
    vectors = random_units(arguments.size, arguments.dim, seed=0)
    queries = random_units(arguments.queries, arguments.dim, seed=1)
    truth: dict[str, list[list[str]]] = {}
    rows: list[dict[str, Any]] = []
    for name in ["exact", *(name for name in arguments.stores if name != "exact")]:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(name, Path(folder), vectors, queries, truth)
        gc.collect()
        # After each store, so that a run that is cut short has told something.
        report(
            "filters",
            rows,
            what="speed of filters on random vectors; not quality",
            size=arguments.size,
            dim=arguments.dim,
            queries=arguments.queries,
            limit=LIMIT,
            load_average=os.getloadavg(),
            filters=EXPRESSIONS,
        )


def measure(
    name: str, folder: Path, vectors: Vector, queries: Vector, truth: dict[str, list[list[str]]]
) -> list[dict[str, Any]]:
    """Rows of one store; the first store's answers become the truth."""
    store = STORES[name](folder, vectors.shape[1])
    started = time.perf_counter()
    for low in range(0, len(vectors), BATCH):
        batch = range(low, min(low + BATCH, len(vectors)))
        store.upsert([Record(id=f"{n:08}", vector=vectors[n], payload=payload(n)) for n in batch])
    store.flush()
    console.print(
        f"{name}: {len(vectors) / (time.perf_counter() - started):,.0f} records/s written"
    )
    store.search(queries[0], limit=LIMIT)
    rows = []
    for label, expression in EXPRESSIONS.items():
        condition = parse_filter(expression) if expression else None
        ways: dict[str, Callable[[Vector], list[str]]] = {
            "pushdown": lambda query, c=condition: _ids(store, query, LIMIT, c),  # type: ignore[misc]
        }
        if condition is not None and label in POST:
            ways["post, 1,000"] = lambda query, c=condition: after(store, query, c, deep=False)  # type: ignore[misc]
            ways["post, deep"] = lambda query, c=condition: after(store, query, c, deep=True)  # type: ignore[misc]
        kept = store.count(filter=condition)
        for way, ask in ways.items():
            if way == "pushdown":
                ask(queries[0])
            times, found = [], []
            asked = queries if way == "pushdown" else queries[:POST_QUERIES]
            for query in asked:
                started = time.perf_counter()
                found.append(ask(query))
                times.append(1e3 * (time.perf_counter() - started))
            truth.setdefault(label, found)
            wanted = truth[label][: len(found)]
            rows.append(
                {
                    "store": name,
                    "filter": label,
                    "records kept": kept,
                    "way": way,
                    "p50_ms": round(statistics.median(times), 2),
                    "p95_ms": round(float(np.percentile(times, 95)), 2),
                    "recall": round(recall(found, wanted), 4),
                }
            )
    store.close()
    return rows


def after(store: Store, query: Vector, condition: Filter, *, deep: bool) -> list[str]:
    """The baseline: search without the filter, then filter."""
    depth = 1000
    while True:
        matches = store.search(query, limit=depth)
        kept = [match.id for match in matches if condition.matches(match.payload)]
        if len(kept) >= LIMIT or not deep or depth == DEEPEST or len(matches) < depth:
            return kept[:LIMIT]
        depth = min(4 * depth, DEEPEST)


def _ids(store: Store, query: Vector, limit: int, condition: Filter | None) -> list[str]:
    return [match.id for match in store.search(query, limit=limit, filter=condition)]


def recall(found: list[list[str]], truth: list[list[str]]) -> float:
    pairs = zip(found, truth, strict=True)
    return statistics.mean(len(set(a) & set(b)) / max(1, len(b)) for a, b in pairs)


def random_units(count: int, dim: int, *, seed: int) -> Vector:
    vectors = np.random.default_rng(seed).standard_normal((count, dim), dtype=np.float32)
    units: Vector = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def payload(number: int) -> Payload:
    """As a photo has it; one in a hundred has the tag and the place, one in 10,000 the camera."""
    random = np.random.default_rng(number)
    near, tagged = number % 100 == 1, number % 100 == 2
    leica = number % 10_000 == 3
    return {
        "kind": "image",
        "item": f"{number:032x}",
        "root": "/photos",
        "path": f"album{number % 97}/picture_{number}.jpg",
        "name": f"picture_{number}.jpg",
        "size": 1_000_000 + number,
        "modified": 1.7e9 + number,
        "width": 4032,
        "height": 3024,
        # Half of them before 2020.
        "taken": 1577836800.0 + (1 if number % 2 else -1) * float(random.integers(1, 10**8)),
        "camera": "Leica M6" if leica else f"Camera {number % 23}",
        "iso_speed": int(random.integers(1, 64)) * 100,
        "lat": 47.37 + random.uniform(-0.03, 0.03) if near else random.uniform(-60, 40),
        "lon": 8.54 + random.uniform(-0.03, 0.03) if near else random.uniform(-180, 180),
        "tags": join_tags([f"word{number % 53}", "Beach" if tagged else "inland"]),
        "rating": 5 if leica else int(random.integers(0, 6)),
        "format": "jpeg",
    }


if __name__ == "__main__":
    main()
