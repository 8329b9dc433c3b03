"""How fast is a Milvus server, by index; and do partitions by root beat a filter?

    python benchmarks/milvus_server.py --sizes 100000 [--indexes hnsw ivf_sq8 diskann]
    python benchmarks/milvus_server.py --roots 8 --roots-size 50000 --sizes

Starts the server of the package `milvus` (2.3.5; SECONDGLANCE_MILVUS_PACKAGE may name the folder
that holds it), once for each index, in a folder of its own. Vectors, queries and columns are those
of `scale.py`, so that rows go into one table: `records_s` is writing, `index_s` is the time from
the last write until the server has built and loaded its index, memory is the server's resident
size, disk its folder. The package's server is built without DISKANN: it takes the order, never
builds the index ("bad_function_call" in its log) and goes on searching every vector, so DISKANN is
measured only where it is named, and ends in an error there. Milvus Lite is measured beside it.
Latencies include gRPC within a machine, at strong consistency, as a library asks: a search then
waits for the server's next tick, which comes sooner here than by its defaults (see
`tests/milvus_server.py`); `--consistency`
asks the collections at the other levels as well, in turns. With `--roots`, one collection holds
vectors of so many roots, told apart by a filter, and another holds each in a partition of its own;
both in HNSW. Rows by index go into `results/scale.json`, those by level into
`results/milvus_consistency.json`, those by root into `results/milvus_roots.json`.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from common import console, report
from scale import LIMIT, apart, batches, keep, on_disk, searched, truth, write
from scale_data import ClipLike

sys.path.insert(0, str(Path(__file__).parents[1]))

from secondglance.retrieve.milvus_index import IndexKind, choose_index, search_params
from secondglance.retrieve.milvus_schema import load_rows
from secondglance.retrieve.milvus_server import Consistency
from secondglance.retrieve.milvus_store import MilvusStore
from tests.milvus_server import Server, unpacked

if TYPE_CHECKING:
    from scale import Answers
    from scale_data import Matrix

INDEXES: tuple[IndexKind, ...] = ("hnsw", "ivf_sq8", "diskann")
COLLECTION = "measured"
LEVELS: tuple[Consistency, ...] = ("strong", "bounded", "session", "eventually")
ROUNDS = 3
"""Of all levels, one after the other."""
UNBUILT_S = 900
"""A server that has indexed nothing by then never will."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000])
    parser.add_argument("--indexes", nargs="*", choices=INDEXES, default=["hnsw", "ivf_sq8"])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--lite-up-to", type=int, default=100_000)
    parser.add_argument("--consistency", action="store_true", help="compare the levels")
    parser.add_argument("--roots", type=int, default=8, help="0: do not compare")
    parser.add_argument("--roots-size", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, help="where the servers go; removed afterwards")
    arguments = parser.parse_args()
    by_root: list[dict[str, Any]] = []
    by_level: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        base = Path(temporary)
        programs = unpacked(base)
        for size in arguments.sizes:
            # The exact answers of one size, and a filled store, are not those of another.
            place = base / str(size)
            place.mkdir(exist_ok=True)
            truth(size, arguments.queries, place)
            for kind in arguments.indexes:
                console.print(f"{kind} with {size:,} vectors; load {os.getloadavg()[0]:.1f}")
                row, levels = measured(
                    kind, size, place, programs, arguments.queries, levels=arguments.consistency
                )
                keep(row)
                by_level += levels
            if size <= arguments.lite_up_to:
                keep(apart("milvus-lite", size, place, arguments.queries))
        if arguments.roots:
            by_root = compared(arguments.roots, arguments.roots_size, base, programs)
    if by_level:
        report("milvus_consistency", by_level, limit=LIMIT, rounds=ROUNDS)
    if by_root:
        report("milvus_roots", by_root, limit=LIMIT)


def started(folder: Path, programs: Path) -> Server:
    """A server that may keep vectors on disk, otherwise as tests start it, with quick ticks."""
    disk = {"queryNode.enableDisk": True, "indexNode.enableDisk": True}
    server = Server(folder, programs, **disk)
    server.start()
    return server


def measured(
    kind: IndexKind, size: int, base: Path, programs: Path, queries: int, *, levels: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One row of the table, on a server of its own; and one for each level, if they are wanted."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=base))
    server = started(folder, programs)
    options: Any = {"dim": 512, "collection": COLLECTION, "timeout_s": 120}
    try:
        source, idle = ClipLike(size), resident(server)
        asked, wanted = source.queries(queries), truth(size, queries, base)
        store = MilvusStore(server.uri, index=kind, **options)
        begun = time.perf_counter()
        write(store, source)
        records_s, processor = time.perf_counter() - begun, processor_s(server)
        settle(store, size)
        index_s = time.perf_counter() - begun - records_s
        index_cpu_s, fill_load = processor_s(server) - processor, os.getloadavg()[0]
        store.close()
        begun = time.perf_counter()
        store = MilvusStore(server.uri, index=kind, **options)
        store.search(asked[0], limit=LIMIT)
        open_s = time.perf_counter() - begun
        found = searched(store, asked, wanted)
        row = {
            "index": f"milvus-{kind}",
            "vectors": size,
            "what": store.capabilities.index,
            "open_s": open_s,
            "memory_mb": (resident(server) - idle) / 1e6,
            "index_mb": 0.0,
            "disk_mb": on_disk(folder / "data"),
            **found,
            "records_s": records_s,
            "index_s": index_s,
            "index_cpu_s": index_cpu_s,
            "fill_load": fill_load,
        }
        store.close()
        if not levels:
            return row, []
        found_by = in_turns(server.uri, kind, options, asked, wanted)
        return row, [{"index": kind, "vectors": size, **each} for each in found_by]
    finally:
        server.remove()


def in_turns(
    uri: str, kind: IndexKind, options: dict[str, Any], asked: Matrix, wanted: Answers
) -> list[dict[str, Any]]:
    """Searches at each level, in turns, so that what else the machine does meets all of them."""
    stores = {level: MilvusStore(uri, index=kind, consistency=level, **options) for level in LEVELS}
    found: dict[str, list[dict[str, float]]] = {level: [] for level in LEVELS}
    for _ in range(ROUNDS):
        for level, store in stores.items():
            found[level].append(searched(store, asked, wanted))
    for store in stores.values():
        store.close()
    return [
        {
            "consistency": level,
            **{key: float(np.median([each[key] for each in rounds])) for key in rounds[0]},
        }
        for level, rounds in found.items()
    ]


def settle(store: MilvusStore, size: int) -> None:
    """Waits until everything is sealed, indexed and loaded again, as after a quiet night."""
    with store._connection.calling() as client:
        finish(client, store._collection, size)


def finish(client: Any, collection: str, size: int) -> None:
    client.flush(collection, timeout=600)
    deadline = time.monotonic() + 7200
    while True:
        state = client.describe_index(collection, "vector", timeout=120)
        indexed = int(state.get("indexed_rows", 0))
        if indexed >= size and int(state.get("pending_index_rows", 0)) == 0:
            break
        if time.monotonic() > deadline - (0 if indexed else 7200 - UNBUILT_S):
            raise TimeoutError(f"the index of {collection} is not built: {state}")
        time.sleep(0.5)
    client.release_collection(collection, timeout=120)
    load_rows(client, collection, timeout_s=120)


def compared(roots: int, size: int, base: Path, programs: Path) -> list[dict[str, Any]]:
    """Searches in one of several roots and in all of them: by filter, and by partition."""
    from pymilvus import DataType, MilvusClient

    server = started(Path(tempfile.mkdtemp(prefix="roots-", dir=base)), programs)
    client: Any = MilvusClient(server.uri)
    source = ClipLike(size)
    asked = source.queries(100)
    rows = []
    try:
        for way in ("filter", "partitions"):
            console.print(f"{roots} roots by {way}; load {os.getloadavg()[0]:.1f}")
            schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
            schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=512)
            schema.add_field("root", DataType.VARCHAR, max_length=1024)
            schema.add_field("payload", DataType.VARCHAR, max_length=65_535)
            client.create_collection(way, schema=schema, consistency_level="Strong")
            params = MilvusClient.prepare_index_params()
            params.add_index("vector", **choose_index(size, 512, wanted="hnsw").build)
            client.create_index(way, params, sync=False)
            for root in range(roots if way == "partitions" else 0):
                client.create_partition(way, f"root_{root}")
            # Folders come one after another, as people index them.
            number = 0
            for batch in batches(source):
                for start in range(0, len(batch), 1000):
                    part = batch[start : start + 1000]
                    by_root: dict[int, list[dict[str, Any]]] = {}
                    for vector in part:
                        root = number * roots // size
                        by_root.setdefault(root, []).append(
                            {
                                "id": f"{number:08d}",
                                "vector": vector,
                                "root": f"/media/root-{root}",
                                "payload": "x" * 300,
                            }
                        )
                        number += 1
                    for root, entities in by_root.items():
                        name = f"root_{root}" if way == "partitions" else ""
                        client.insert(way, entities, partition_name=name, timeout=120)
            finish(client, way, size)
            for within in ("one root", "all"):
                rows.append(timed(client, way, within, asked, roots, size, server))
            client.release_collection(way)
    finally:
        client.close()
        server.remove()
    return rows


def timed(
    client: Any, way: str, within: str, asked: Any, roots: int, size: int, server: Server
) -> dict[str, Any]:
    """A row: latencies of searches in one root, or in all."""
    options: dict[str, Any] = {
        "limit": LIMIT,
        "output_fields": ["payload"],
        "search_params": {"metric_type": "COSINE", "params": search_params("hnsw", LIMIT)},
        "consistency_level": "Strong",
    }
    spent, fewest = [], LIMIT
    for turn in range(2):
        for number, query in enumerate(asked):
            if within == "one root" and way == "filter":
                options["filter"] = f'root == "/media/root-{number % roots}"'
            elif within == "one root":
                options["partition_names"] = [f"root_{number % roots}"]
            begun = time.perf_counter()
            (found,) = client.search(way, data=[query], **options)
            if turn:
                spent.append(1e3 * (time.perf_counter() - begun))
            fewest = min(fewest, len(found))
    return {
        "index": f"{roots} roots by {way}, {within}",
        "vectors": size,
        "p50_ms": float(np.percentile(spent, 50)),
        "p95_ms": float(np.percentile(spent, 95)),
        "fewest_found": fewest,
        "server_mb": resident(server) / 1e6,
        "load": os.getloadavg()[0],
    }


def processor_s(server: Server) -> float:
    """Seconds of processor time that a server has used."""
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def resident(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


if __name__ == "__main__":
    main()
