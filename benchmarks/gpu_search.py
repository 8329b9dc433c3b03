"""How fast is an exact search of tens of millions of vectors on one GPU?

    OUT=/tmp/figures python benchmarks/gpu_search.py --sizes 10000000 50000000

Needs torch and this checkout, nothing else. Clustered unit vectors of 512 are generated on the
device, kept in float16 and searched by `secondglance/retrieve/torch_search.py`. The 50 best are
compared with a float32 search over the same vectors before rounding, which are generated a
second time. Times include copying the query to the device and the answers back, and are those
of one call at a time. Writes `gpu-search.json` into the folder that OUT names.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from secondglance.retrieve.torch_search import TorchSearch

LIMIT = 50
CLUSTERS = 50_000
CHUNK = 1 << 19


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000_000, 50_000_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--sample", type=int, default=64, help="queries checked against float32")
    parser.add_argument("--device", help="none: the GPU if there is one")
    arguments = parser.parse_args()
    # The reference shall be float32 in truth.
    torch.backends.cuda.matmul.allow_tf32 = False
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {"limit": LIMIT, "dim": arguments.dim, "rows": rows}
    for size in arguments.sizes:
        rows.extend(measure(size, arguments, report))
        print(json.dumps(rows[-len(arguments.batches) :], indent=2), flush=True)
        folder = Path(os.environ.get("OUT", "."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu-search.json").write_text(json.dumps(report, indent=2) + "\n")


def measure(
    size: int, arguments: argparse.Namespace, report: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row for each batch size."""
    search = TorchSearch(dim=arguments.dim, device=arguments.device)
    device = search.device
    report["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    report["torch"] = torch.__version__
    started = time.perf_counter()
    search.reserve(size)
    for chunk in generated(size, arguments.dim, device):
        search.add(chunk)
    wait(device)
    build_s = time.perf_counter() - started
    queries = questions(max(arguments.sample, 1024), arguments.dim, device)
    recall, error = check(search, queries[: arguments.sample], size)
    rows = []
    for batch in arguments.batches:
        spent = times(search, queries.cpu(), batch, arguments.repeats)
        ordered = sorted(spent)
        rows.append(
            {
                "vectors": size,
                "dtype": str(search.dtype).removeprefix("torch."),
                "gb": size * arguments.dim * search.dtype.itemsize / 1e9,
                "generate_s": build_s,
                "batch": batch,
                "p50_ms": statistics.median(spent),
                "p95_ms": ordered[int(0.95 * (len(ordered) - 1))],
                "recall_at_50": recall,
                "largest_score_error": error,
                "sample": arguments.sample,
                "repeats": arguments.repeats,
            }
        )
    return rows


def generated(size: int, dim: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Unit vectors around common centres, in chunks; the same each time."""
    centres = _centres(dim, device)
    for number, start in enumerate(range(0, size, CHUNK)):
        random = torch.Generator(device).manual_seed(1000 + number)
        yield _members(centres, min(CHUNK, size - start), random)


def questions(count: int, dim: int, device: torch.device) -> torch.Tensor:
    """Further members of the same clusters, (count, dim)."""
    random = torch.Generator(device).manual_seed(7)
    return _members(_centres(dim, device), count, random)


def _centres(dim: int, device: torch.device) -> torch.Tensor:
    random = torch.Generator(device).manual_seed(1)
    centres = torch.randn((CLUSTERS, dim), generator=random, device=device)
    shared = torch.randn((1, dim), generator=random, device=device)
    # Cosines of 0.5 between clusters and 0.8 within, about as CLIP's of pictures.
    return 0.775 * centres + shared


def _members(centres: torch.Tensor, count: int, random: torch.Generator) -> torch.Tensor:
    device = centres.device
    chosen = torch.randint(len(centres), (count,), generator=random, device=device)
    own = torch.randn((count, centres.shape[1]), generator=random, device=device)
    return torch.nn.functional.normalize(centres[chosen] + 0.632 * own, dim=1)


def check(search: TorchSearch, queries: torch.Tensor, size: int) -> tuple[float, float]:
    """Recall against float32, and by how much a score found differs at most."""
    best = torch.full((len(queries), LIMIT), -torch.inf, device=queries.device)
    at = torch.zeros((len(queries), LIMIT), dtype=torch.int64, device=queries.device)
    start = 0
    for chunk in generated(size, search.dim, search.device):
        products = queries @ chunk.T
        values, places = products.topk(min(LIMIT, len(chunk)), dim=1)
        joined = torch.cat([best, values], dim=1)
        where = torch.cat([at, places + start], dim=1)
        best, order = joined.topk(LIMIT, dim=1)
        at = where.gather(1, order)
        start += len(chunk)
    scores, found = search.search(queries, LIMIT)
    same = (found[:, :, None] == at[:, None, :]).any(dim=2)
    return float(same.float().mean()), float((scores - best).abs().max())


def times(search: TorchSearch, queries: torch.Tensor, batch: int, repeats: int) -> list[float]:
    """Milliseconds of each call, queries and answers in the host's memory."""
    spent = []
    for number in range(-5, repeats):
        first = (number % max(1, len(queries) // batch)) * batch
        asked = queries[first : first + batch]
        wait(search.device)
        started = time.perf_counter()
        scores, found = search.search(asked, LIMIT)
        scores.cpu(), found.cpu()
        if number >= 0:
            spent.append(1e3 * (time.perf_counter() - started))
    return spent


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
