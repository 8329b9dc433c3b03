"""How do the indexes grow: build time, memory, disk, latency and recall of each, by size?

    python benchmarks/scale.py --sizes 100000 1000000 [5000000] [--folder F]

Vectors of 512 that resemble CLIP's (`scale_data.py`); queries are half pictures, half texts. Each
index is filled in a process of its own, closed, and in another process opened and asked for the
nearest 50, one query at a time on one thread. Recall is the share of the exact answers. `index_s`
is the time of building as it passed, `index_cpu_s` that of the processors (two were used). Memory
is what the process holds resident at its end, less what it held before opening; pages mapped from
the index count. Milvus Lite, which is exact, is filled up to `--milvus-up-to`. Stores in
`--folder` are kept, and only asked when they are there: fill while the machine has other work,
ask when it has none. Writes `results/scale.json`, which keeps rows of earlier runs for other
sizes, and `docs/images/scale.png`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from common import RESULTS, console, report
from scale_data import ClipLike

from secondglance.types import Record

if TYPE_CHECKING:
    import numpy.typing as npt
    from scale_data import Matrix

    from secondglance.retrieve.store import Store

    Answers = npt.NDArray[np.int64]

LIMIT = 50
QUERIES = 200
BATCH = 10_000
VARIANTS = ("flat", "hnsw", "sq8", "ivfpq", "milvus-lite")
# `milvus_server.py` adds its rows to the same table.
ORDER = (*VARIANTS, "milvus-hnsw", "milvus-ivf_sq8", "milvus-diskann")
PLOT = Path(__file__).parents[1] / "docs" / "images" / "scale.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--milvus-up-to", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the stores go and stay; none: removed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        step, variant, size, folder = arguments.one.split(",", 3)
        if step == "fill":
            fill(variant, int(size), Path(folder))
        else:
            print(json.dumps(ask(variant, int(size), Path(folder), arguments.queries)))
        return
    with contextlib.ExitStack() as stack:
        if arguments.folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = arguments.folder
        for size in arguments.sizes:
            place = folder / str(size)
            place.mkdir(parents=True, exist_ok=True)
            truth(size, arguments.queries, place)
            for variant in arguments.variants:
                if variant == "milvus-lite" and size > arguments.milvus_up_to:
                    continue
                keep(apart(variant, size, place, arguments.queries))
                if arguments.folder is None:
                    shutil.rmtree(place / variant)
    plot(earlier())


def earlier() -> list[dict[str, Any]]:
    path = RESULTS / "scale.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def keep(row: dict[str, Any]) -> None:
    """Puts a row into the table, in the place of an earlier one."""
    same = (row["vectors"], row["index"])
    rows = [*(r for r in earlier() if (r["vectors"], r["index"]) != same), row]
    rows.sort(key=lambda r: (r["vectors"], ORDER.index(r["index"])))
    report("scale", rows, limit=LIMIT, queries=QUERIES)


def truth(size: int, queries: int, folder: Path) -> Answers:
    """The exact answers (queries, LIMIT), by matrix products over one chunk after another; kept."""
    kept = folder / f"truth-{queries}.npy"
    if kept.exists():
        found: Answers = np.load(kept)
        return found
    source = ClipLike(size)
    asked = source.queries(queries)
    best = np.full((queries, LIMIT), -np.inf, dtype=np.float32)
    at = np.zeros((queries, LIMIT), dtype=np.int64)
    start = 0
    for chunk in source.pictures():
        scores = np.concatenate([best, asked @ chunk.T], axis=1)
        places = np.tile(np.arange(start, start + len(chunk)), (queries, 1))
        places = np.concatenate([at, places], axis=1)
        top = np.argpartition(-scores, LIMIT, axis=1)[:, :LIMIT]
        best, at = np.take_along_axis(scores, top, 1), np.take_along_axis(places, top, 1)
        start += len(chunk)
    np.save(kept, at)
    return at


def apart(variant: str, size: int, folder: Path, queries: int) -> dict[str, Any]:
    """`fill` and `ask`, each in a process of its own, so that memory is its own."""
    rows = []
    for step in ("fill", "ask"):
        if step == "fill" and (folder / f"{variant}.json").exists():
            continue
        console.print(f"{step} {variant} with {size:,} vectors; load {os.getloadavg()[0]:.1f}")
        command = [sys.executable, __file__, "--one", f"{step},{variant},{size},{folder}"]
        command += ["--queries", str(queries)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows += done.stdout.splitlines()[-1:]
    filled: dict[str, Any] = json.loads((folder / f"{variant}.json").read_text())
    return {**json.loads(rows[-1]), **filled}


def fill(variant: str, size: int, folder: Path) -> None:
    """Writes all records and builds the index; what it took goes beside the store."""
    place = folder / variant
    shutil.rmtree(place, ignore_errors=True)  # of a run that was ended
    store = _open(variant, place)
    begun = time.perf_counter()
    write(store, ClipLike(size), flushing=variant == "milvus-lite")
    records_s, processor = time.perf_counter() - begun, time.process_time()
    store.flush()
    store.close()
    took = {
        "records_s": records_s,
        "index_s": time.perf_counter() - begun - records_s,
        "index_cpu_s": time.process_time() - processor,
        "fill_load": os.getloadavg()[0],
    }
    (folder / f"{variant}.json").write_text(json.dumps(took))


def ask(variant: str, size: int, folder: Path, queries: int) -> dict[str, Any]:
    """Opens a filled store and times searches."""
    import faiss

    place = folder / variant
    faiss.omp_set_num_threads(1)
    asked = ClipLike(size).queries(queries)
    wanted = truth(size, queries, folder)
    me = psutil.Process()
    before = me.memory_info().rss
    begun = time.perf_counter()
    store = _open(variant, place)
    store.search(asked[0], limit=LIMIT)
    open_s = time.perf_counter() - begun
    found = searched(store, asked, wanted)
    row = {
        "index": variant,
        "vectors": size,
        "what": store.capabilities.index,
        "open_s": open_s,
        "memory_mb": (me.memory_info().rss - before) / 1e6,
        "index_mb": sum(p.stat().st_size for p in place.glob("index-*")) / 1e6,
        "disk_mb": on_disk(place),
        **found,
    }
    store.close()
    return row


def write(store: Store, source: ClipLike, *, flushing: bool = False) -> None:
    """Writes all records of a source into an empty store, in its order; `flushing` as it goes."""
    written = 0
    for batch in batches(source):
        store.upsert(
            [
                Record(id=f"{written + i:08d}", vector=vector, payload={"kind": "image"})
                for i, vector in enumerate(batch)
            ]
        )
        written += len(batch)
        if flushing:
            store.flush()


def searched(store: Store, asked: Matrix, wanted: Answers) -> dict[str, float]:
    """Latencies of searches one by one, and the share of the exact answers that they find.

    Args:
        store: Filled by `write`.
        asked: Of `ClipLike.queries`: pictures and texts, alternating.
        wanted: Of `truth`.
    """
    # The first round touches the pages that the second is timed with.
    for query in asked:
        store.search(query, limit=LIMIT)
    spent, right = [], []
    for query, best in zip(asked, wanted, strict=True):
        begun = time.perf_counter()
        found = store.search(query, limit=LIMIT)
        spent.append(1e3 * (time.perf_counter() - begun))
        right.append(len({int(match.id) for match in found} & set(best.tolist())) / LIMIT)
    return {
        "p50_ms": float(np.percentile(spent, 50)),
        "p95_ms": float(np.percentile(spent, 95)),
        "recall_at_50": float(np.mean(right)),
        "recall_pictures": float(np.mean(right[0::2])),
        "recall_texts": float(np.mean(right[1::2])),
        "load": os.getloadavg()[0],
    }


def on_disk(folder: Path) -> float:
    """Size of all files below a folder, in MB."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _open(variant: str, place: Path) -> Any:
    if variant == "milvus-lite":
        from secondglance.retrieve.milvus_store import MilvusStore

        place.mkdir(parents=True, exist_ok=True)
        return MilvusStore(place / "vectors.db", dim=512)
    from secondglance.retrieve.faiss_store import FaissStore

    return FaissStore(place, dim=512, index=variant)  # type: ignore[arg-type]


def batches(source: ClipLike) -> Iterator[Matrix]:
    for chunk in source.pictures():
        for start in range(0, len(chunk), BATCH):
            yield chunk[start : start + BATCH]


def plot(rows: list[dict[str, Any]]) -> None:
    """How each index grows, on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figures = {
        "p50_ms": "median of a search, ms",
        "recall_at_50": "recall of the nearest 50",
        "memory_mb": "memory, MB",
        "index_s": "building the index, s",
    }
    drawn, axes = plt.subplots(1, len(figures), figsize=(15, 3.9))
    for axis, (key, title) in zip(axes, figures.items(), strict=True):
        for variant in ORDER:
            points = [(r["vectors"], r[key]) for r in rows if r["index"] == variant]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", label=variant)
        axis.set_xscale("log")
        if key != "recall_at_50":
            axis.set_yscale("log")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("vectors of 512")
        axis.grid(alpha=0.3, which="both")
    drawn.tight_layout(rect=(0, 0.08, 1, 1))
    names = axes[0].get_legend_handles_labels()
    drawn.legend(*names, loc="lower center", ncols=len(ORDER), fontsize=9, frameon=False)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(PLOT, dpi=110)
    plt.close(drawn)


if __name__ == "__main__":
    main()
