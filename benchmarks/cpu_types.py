"""Whether the reranker is faster on the processor in bfloat16 or with 8-bit weights, and how exact.

The starter reranker over generated pictures; float32 is the baseline of the same run. With --random
a model of 2B parameters with random weights, for speed only, and not in 8 bits.

    python benchmarks/cpu_types.py
    python benchmarks/cpu_types.py --random --pairs 4
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import secondglance
from secondglance.rerank import Qwen3VLReranker
from secondglance.scenes.examples import pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer

STARTER = Path(secondglance.__file__).parent / "models" / "starter" / "reranker"


def flags() -> list[str]:
    """What the processor has for short numbers."""
    try:
        found = Path("/proc/cpuinfo").read_text("utf-8").split()
    except OSError:
        return []
    wanted = ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return [flag for flag in wanted if flag in found]


def eight_bits() -> Qwen3VLReranker:
    """Linear layers with 8-bit weights, activations quantised as they come."""
    reranker = Qwen3VLReranker(STARTER, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for part in (reranker.model.visual.blocks, reranker.model.language_model.layers):
            torch.ao.quantization.quantize_dynamic(
                part, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
            )
    return reranker


def random_models() -> dict[str, Qwen3VLReranker]:
    """The architecture of the 2B model with the same random weights in both types."""
    sys.path.insert(0, str(Path(__file__).parent))
    from rerank import random_model, reranker

    model, head = random_model("2B", "cpu")
    exact = copy.deepcopy(model).float()
    return {
        "float32": reranker(lambda _: (exact, head), "cpu"),
        "bfloat16": reranker(lambda _: (model, head), "cpu"),
    }


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    renderer = Renderer("cpu")
    asked = [
        (content(pair.query, renderer, picture_px=192, clip_px=128),
         content(pair.document, renderer, picture_px=192, clip_px=128))
        for pair in pairs("text-image", options.pairs, seed=3, split="test", hard=0.9)
    ]  # fmt: skip
    query, documents = asked[0][0], [document for _, document in asked]

    def plain(dtype: torch.dtype) -> Callable[[], Qwen3VLReranker]:
        return lambda: Qwen3VLReranker(STARTER, device="cpu", dtype=dtype)

    ways: dict[str, Callable[[], Qwen3VLReranker]] = {
        "float32": plain(torch.float32), "bfloat16": plain(torch.bfloat16), "int8": eight_bits,
    }  # fmt: skip
    models = random_models() if options.random else {name: make() for name, make in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    odds: dict[str, list[float]] = {}
    for _ in range(options.repeat + 1):
        for name, model in models.items():
            began = time.perf_counter()
            odds[name] = model.log_odds(query, documents)
            seconds[name].append(time.perf_counter() - began)
    base = float(np.median(seconds["float32"][1:]))
    rows: list[dict[str, Any]] = []
    for name in models:
        median = float(np.median(seconds[name][1:]))
        off = float(np.abs(np.subtract(odds[name], odds["float32"])).max())
        rows.append({
            "type": name, "pairs/s": round(len(documents) / median, 1),
            "times float32": round(base / median, 2), "log-odds off": round(off, 3),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    whole = {"processor": flags(), "threads": torch.get_num_threads(), "rows": rows}
    print(json.dumps(whole["processor"]))
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
