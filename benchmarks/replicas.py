"""What more GPUs bring: pairs a second with the model on one of a machine, on two, and so on.

Weights are random in the architectures of Qwen3-VL-Reranker: this measures speed, never quality.

    python benchmarks/replicas.py --model 8B
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from rerank import BF16, cases, in_order, pairs_of, random_model, reranker, timed


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="8B")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--cases", default="text, 256 tokens;text, 1200 tokens")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    counts = [n for n in options.gpus if n <= torch.cuda.device_count()]
    rows: list[dict[str, Any]] = []
    first: dict[str, tuple[float, list[float]]] = {}
    for count in counts:
        make = partial(random_model, options.model)
        engine = reranker(make, "cuda:0", replicas=count, compiled=True)
        for name, (query, documents) in cases(options.pairs).items():
            if name not in options.cases.split(";"):
                continue
            few = documents if "256" in name else documents[: options.pairs // 2]
            pairs = pairs_of(engine, query, few)
            score = partial(in_order, engine._engine, pairs)
            odds = warm(score)
            rate = len(pairs) / timed(score, options.repeat, "cuda")
            alone, expected = first.setdefault(name, (rate, odds))
            off = float(np.abs(np.subtract(odds, expected)).max())
            row = {
                "model": options.model, "case": name, "GPUs": count, "pairs/s": round(rate, 1),
                "times one": round(rate / alone, 2), "off": round(off, 3), "agrees": off <= BF16,
            }  # fmt: skip
            print(json.dumps(row), flush=True)
            rows.append(row)
        engine.close()
        gc.collect()
        torch.cuda.empty_cache()
    whole = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if not all(row["agrees"] for row in rows):
        sys.exit("some scores do not agree")


def warm(score: Callable[[], list[float]]) -> list[float]:
    """Runs until no run is faster than the one before: layers are fused device by device."""
    last, settled = math.inf, 0
    for _ in range(30):
        begun = time.perf_counter()
        odds = score()
        took = time.perf_counter() - begun
        settled = settled + 1 if took > 0.95 * last else 0
        last = min(last, took)
        if settled == 3:
            break
    return odds


if __name__ == "__main__":
    main()
