"""Which stage of `index` is the wall: decoding, embedding, or what connects them?

Each stage alone over the same generated photographs, then the whole; random weights: speed only.
"of the slowest stage" is the time of the slower one over that of the whole: near 1, that stage is
the wall. "busy" is nvidia-smi's: the share of time in which the GPU computed anything.

    python benchmarks/ingest_stages.py --photos 4000 --size 1600x1200
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from common import photograph

sys.path.insert(0, str(Path(__file__).parents[1]))
SIDE = 256
VISION = {
    "ViT-B-16": {"image_size": SIDE, "layers": 12, "width": 768, "patch_size": 16},
    "ViT-B-32": {"image_size": SIDE, "layers": 12, "width": 768, "patch_size": 32},
}
"""At 256 pixels, as SigLIP2-256; its tower is the first one but for the last pooling."""


def clip(name: str, folder: Path) -> Path:
    """An open-clip folder with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 2}
    config = {"embed_dim": 512, "vision_cfg": VISION[name], "text_cfg": text}
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)  # type: ignore[arg-type]
    folder.mkdir()
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    made = {"model_cfg": config, "preprocess_cfg": {**preprocess, "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(made), "utf-8")
    return folder


def photographs(number: int, folder: Path, width: int, height: int, copies: int) -> None:
    """A photograph and copies that differ behind its end, which makes each another content."""
    first = folder / f"{number:06}.jpg"
    photograph(first, seed=number, width=width, height=height, quality=90)
    for copy in range(1, copies):
        (folder / f"{number:06}-{copy}.jpg").write_bytes(first.read_bytes() + bytes([copy]))


def decoding(folder: Path, clip_folder: Path, workers: int) -> float:
    """Seconds until the workers of `index` have decoded every photograph, and nothing else."""
    from secondglance import Library
    from secondglance.ingest.decode import decode_all
    from secondglance.ingest.embedder import ClipEmbedder
    from secondglance.ingest.workers import DecodePool
    from secondglance.pipelines.decode_calls import FILES_PER_CALL

    spec = ClipEmbedder(str(clip_folder)).preprocessing
    settings = {"store": {"backend": "exact"}}
    with Library.open(clip_folder.parent / "l", preset="starter", settings=settings) as library:
        limits = library._parts.limits
    files = [(path, "image", ()) for path in sorted(folder.iterdir())]
    calls = [files[at : at + FILES_PER_CALL] for at in range(0, len(files), FILES_PER_CALL)]
    with DecodePool(workers=workers, timeout_s=60, max_memory_mb=4096) as pool:
        for future in [pool.submit(decode_all, [calls[0][0]], spec, limits) for _ in range(64)]:
            pool.result(future)  # the workers have started
        began = time.perf_counter()
        waiting: list[Any] = []
        for call in calls:
            waiting.append(pool.submit(decode_all, call, spec, limits))
            if len(waiting) > 64:
                pool.result(waiting.pop(0))
        for future in waiting:
            pool.result(future)
        return time.perf_counter() - began


def embedding(count: int, clip_folder: Path, *, compiled: bool) -> float:
    """Seconds until the embedder has worked through so many pictures."""
    from secondglance.ingest.embedder import ClipEmbedder

    embedder = ClipEmbedder(str(clip_folder), compiled=compiled)
    batches = 8 if embedder.device.type == "cuda" else 1
    pixels = np.random.default_rng(0).integers(
        0, 256, (batches * embedder.batch_size, SIDE, SIDE, 3), dtype=np.uint8
    )
    embedder.embed_pixels(pixels)
    began = time.perf_counter()
    for _ in range(3):
        embedder.embed_pixels(pixels)
    return (time.perf_counter() - began) * count / (3 * len(pixels))


def indexing(
    folder: Path, clip_folder: Path, scratch: Path, store: str, workers: int, *, compiled: bool
) -> tuple[float, float | None]:
    """Seconds of `index`, without loading the model, and the GPU's busy share of them."""
    from secondglance import Library

    settings = {
        "recall": {"model": str(clip_folder), "compiled": compiled}, "store": {"backend": store},
        "ingest": {"workers": workers},
    }  # fmt: skip
    name = f"library-{store}-{compiled}"
    with Library.open(scratch / name, preset="starter", settings=settings) as library:
        embedder = library._parts.embedder()
        embedder.embed_pixels(np.zeros((embedder.batch_size, SIDE, SIDE, 3), np.uint8))
        with gpu_use() as use:
            report = library.index([folder])
    assert not report.failed, report.errors[:3]
    return report.seconds, float(np.mean(use)) / 100 if use else None


@contextmanager
def gpu_use() -> Iterator[list[float]]:
    """Percent of the time in which the GPU computed, sampled ten times a second; empty without."""
    samples: list[float] = []
    import torch

    if not torch.cuda.is_available():
        yield samples
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*command, "-lms", "100"], stdout=subprocess.PIPE, text=True) as process:
        yield samples
        process.terminate()
        samples += [float(line) for line in process.stdout or () if line.strip().isdigit()]


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--copies", type=int, default=1, help="of each picture, as other files")
    parser.add_argument("--size", default="1600x1200")
    parser.add_argument("--model", default="ViT-B-16", choices=list(VISION))
    parser.add_argument("--store", default="exact")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import torch

    width, height = map(int, options.size.split("x"))
    rows: list[dict[str, Any]] = []
    shares: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = scratch / "photos"
        folder.mkdir()
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            make = partial(photographs, folder=folder, width=width, height=height,
                           copies=options.copies)  # fmt: skip
            list(pool.map(make, range(options.photos // options.copies), chunksize=8))
        options.photos = sum(1 for _ in folder.iterdir())
        model = clip(options.model, scratch / "clip")
        seconds = {"decoding alone": decoding(folder, model, options.workers)}
        for compiled in (False, True)[: 1 + torch.cuda.is_available()]:
            how = ", compiled" if compiled else ""
            alone = embedding(options.photos, model, compiled=compiled)
            whole, busy = indexing(
                folder, model, scratch, options.store, options.workers, compiled=compiled
            )
            wall = max(seconds["decoding alone"], alone)
            seconds["embedding alone" + how], seconds["index" + how] = alone, whole
            shares["index" + how] = {"of the slowest stage": round(wall / whole, 3), "busy": busy}
    for stage, spent in seconds.items():
        row = {"stage": stage, "images/s": round(options.photos / spent, 1)}
        rows.append(row | shares.get(stage, {}))
        print(json.dumps(rows[-1]))
    made = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cores": os.cpu_count(), "photos": options.photos, "size": options.size,
        "model": f"{options.model} at {SIDE} pixels, random weights", "rows": rows,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
