"""Does a search lose anything when the vectors are spread over shards?

Each of S shards is asked for its best K', and the best K of all answers are taken. Measured against
one exact index: recall@K for several S and K', with exact shards and with a graph (HNSW) in each;
with vectors spread at random and spread by content (neighbours in the same shard, as when each
shard holds one collection). Beside the first, what the binomial distribution predicts: of the true
best K, X ~ B(K, 1/S) lie in a shard, and min(X, K') of them are found.

Generated vectors in clusters: this measures merging, not any model.

    python benchmarks/sharded_recall.py
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import report
from numpy.typing import NDArray

PLOT = Path(__file__).parents[1] / "docs" / "images" / "sharded-recall.png"
CLUSTERS = 500
NOISE = 0.9
LINKS = 16
BREADTHS = (32, 128)
"""Candidates that a graph keeps in view while it is searched (efSearch), raised to K' at least."""
Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


def clustered(count: int, dim: int, seed: int, centres: Vectors) -> tuple[Vectors, Ids]:
    """Unit vectors around centres, and which centre each belongs to."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, len(centres), count)
    noise = rng.standard_normal((count, dim)).astype(np.float32) * NOISE / math.sqrt(dim)
    vectors = centres[of] + noise
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), of


def best(scores: Vectors, count: int) -> Ids:
    """Places of the best of each row, in no order."""
    count = min(count, scores.shape[1])
    return np.argpartition(-scores, count - 1, axis=1)[:, :count]


def merged(parts: list[tuple[Ids, Vectors]], top: int) -> Ids:  # of each query
    """The best of what shards answered."""
    ids = np.concatenate([ids for ids, _ in parts], axis=1)
    scores = np.concatenate([scores for _, scores in parts], axis=1)
    return np.take_along_axis(ids, best(scores, top), axis=1)


def recall(found: Ids, truth: Ids) -> float:
    """Share of the true best that were found."""
    return float(
        np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, truth, strict=True)])
    )


def predicted(top: int, shards: int, each: int) -> float:
    """E[min(X, each)] * shards / top with X ~ B(top, 1 / shards)."""
    p = 1 / shards
    chances = [math.comb(top, x) * p**x * (1 - p) ** (top - x) for x in range(top + 1)]
    return sum(c * min(x, each) for x, c in enumerate(chances)) * shards / top


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vectors", type=int, default=40_000)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--top", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, options.dim)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors, of = clustered(options.vectors, options.dim, 1, centres)
    queries, _ = clustered(options.queries, options.dim, 2, centres)
    scores = queries @ vectors.T
    truth = best(scores, options.top)
    # Neighbouring clusters next to each other, then cut into equal pieces.
    order = np.lexsort((rng.random(options.vectors), (centres @ centres[0])[of]))
    rows: list[dict[str, Any]] = []
    for shards in (1, 4, 16, 64):
        spread = {
            "at random": np.array_split(rng.permutation(options.vectors), shards),
            "by content": np.array_split(order, shards),
        }
        even = math.ceil(options.top / shards)
        asked = sorted({min(even * factor, options.top) for factor in (1, 2, 4)} | {options.top})
        graphs = []
        for members in spread["at random"]:
            graph = faiss.IndexHNSWFlat(options.dim, LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.add(vectors[members])
            graphs.append(graph)
        for each in asked:
            row: dict[str, Any] = {"shards": shards, "of each": each}
            for name, pieces in spread.items():
                parts = []
                for members in pieces:
                    places = best(scores[:, members], each)
                    parts.append(
                        (members[places], np.take_along_axis(scores[:, members], places, axis=1))
                    )
                row[f"exact, {name}"] = recall(merged(parts, options.top), truth)
            row["predicted"] = predicted(options.top, shards, each)
            for breadth in BREADTHS:
                parts = []
                for graph, members in zip(graphs, spread["at random"], strict=True):
                    graph.hnsw.efSearch = max(breadth, each)
                    got, places = graph.search(queries, min(each, len(members)))
                    parts.append((members[places], np.where(places < 0, -np.inf, got)))
                row[f"HNSW, ef {breadth}"] = recall(merged(parts, options.top), truth)
            rows.append(row)
    report(
        "sharded-recall",
        rows,
        vectors=options.vectors,
        dimension=options.dim,
        queries=options.queries,
        top=options.top,
        links=LINKS,
        clusters=CLUSTERS,
    )
    plot(rows, options.top)


def plot(rows: list[dict[str, Any]], top: int) -> None:
    """Recall against how much is asked of each shard."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ways = [name for name in rows[0] if name not in ("shards", "of each", "predicted")]
    figure, axes = pyplot.subplots(1, len(ways), figsize=(3.4 * len(ways), 3.4), sharey=True)
    for axis, name in zip(axes, ways, strict=True):
        for shards in sorted({row["shards"] for row in rows} - {1}):
            some = [row for row in rows if row["shards"] == shards]
            x = [row["of each"] * shards / top for row in some]
            [line] = axis.plot(x, [row[name] for row in some], "o-", label=f"{shards} shards")
            if name == "exact, at random":
                axis.plot(x, [row["predicted"] for row in some], ":", color=line.get_color())
        alone = next(row for row in rows if row["shards"] == 1)
        axis.axhline(alone[name], color="gray", linewidth=0.8)
        axis.set(xscale="log", xlabel="asked of all shards, times K", title=name)
        axis.set_xscale("log", base=2)
    axes[0].set_ylabel(f"recall@{top}")
    axes[0].legend()
    figure.suptitle("grey: one index; dotted: binomial prediction")
    figure.tight_layout()
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    main()
