"""Where does the time of a query go? Per stage, for each store, at two sizes.

A few hundred real records and random ones up to the size; the untrained starter models, so this
measures the machinery, not the models. The exact store is the baseline.

    python benchmarks/search.py [--sizes 2000 50000] [--candidates 20]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import console, report
from PIL import Image

from secondglance import Library
from secondglance.types import Record

STORES = ("exact", "faiss", "milvus")
STAGES = ("embed", "recall", "rerank", "total")
WORDS = ("red", "blue", "dog", "car", "night", "beach", "two", "small", "old", "house")


def fill(library: Library, photos: Path, size: int) -> None:
    """Indexes the photographs, then adds random vectors that point to them."""
    library.index([photos])
    store = library._parts.store()
    catalog = library._parts.catalog
    real = store.get([id_ for c in _contents(library) for id_ in catalog.record_ids(c)])
    random = np.random.default_rng(0)
    for start in range(len(real), size, 5000):
        vectors = random.standard_normal((min(5000, size - start), store.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        store.upsert(
            [
                Record(id=f"random-{start + i}", vector=v, payload=real[i % len(real)].payload)
                for i, v in enumerate(vectors)
            ]
        )
    store.flush()


def _contents(library: Library) -> list[str]:
    catalog = library._parts.catalog
    files = (catalog.file(path) for path in catalog.paths())
    return sorted({file.hash for file in files if file is not None and file.hash})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 50_000])
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--queries", type=int, default=40)
    options = parser.parse_args()
    queries = [" ".join(pair) for pair in itertools.permutations(WORDS, 2)][: options.queries]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        photos.mkdir()
        random = np.random.default_rng(1)
        for number in range(200):
            small = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            small.resize((256, 192)).save(photos / f"{number}.jpg")
        for size, store in itertools.product(options.sizes, STORES):
            console.print(f"{store} with {size} vectors")
            folder = Path(temporary) / f"{store}-{size}"
            settings = {
                "store": {"backend": store, "hnsw_threshold": 50_000},
                "rerank": {"score_cache_mb": 0},
            }
            with Library.open(folder, preset="starter", settings=settings) as library:
                fill(library, photos, size)
                for query in queries[:3]:
                    library.search(query, recall=options.candidates)
                spent = [
                    library.search(query, recall=options.candidates).timings_ms for query in queries
                ]
                row: dict[str, Any] = {"store": store, "vectors": size}
                for stage in STAGES:
                    values = [timings[stage] for timings in spent]
                    row[f"{stage} p50 ms"] = float(np.percentile(values, 50))
                    row[f"{stage} p95 ms"] = float(np.percentile(values, 95))
                rows.append(row)
    report("search", rows, candidates=options.candidates, models="untrained starter models")


if __name__ == "__main__":
    main()
