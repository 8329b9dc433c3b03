"""What the benchmarks share: random-weight models, the machine's description, results on disk."""

from __future__ import annotations

import json
import platform
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

console = Console(width=140)
RESULTS = Path(__file__).parent / "results"


def random_clip(name: str, folder: Path) -> Path:
    """An open-clip architecture with random weights, as a folder: measures speed, never quality."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    if (folder / "open_clip_config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = open_clip.create_model(name, pretrained_image=False, pretrained_text=False)
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def photograph(path: Path, *, seed: int, width: int, height: int, quality: int = 75) -> None:
    """Writes a JPEG that takes about as long to decode as a photograph of its size."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(path, quality=quality)


def chosen_photos(folder: Path, *, photos: Path | None, size: str, limit: int) -> None:
    """Makes a folder of pictures: links to those of `photos`, or made-up ones.

    Args:
        folder: Made.
        photos: Holds pictures and nothing else; None: they are made.
        size: Of those that are made, as 448x336.
        limit: How many at most.
    """
    folder.mkdir()
    if photos is None:
        width, height = map(int, size.split("x"))
        for number in range(limit):
            photograph(folder / f"{number:05}.jpg", seed=number, width=width, height=height)
        return
    for path in sorted(photos.iterdir())[:limit]:
        (folder / path.name).symlink_to(path.resolve())


def machine() -> dict[str, Any]:
    """Processor, cores, memory and the versions that matter."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = ("torch", "open-clip-torch", "pymilvus", "faiss-cpu", "numpy", "pillow")
    return {
        "cpu": cpu,
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


class PeakMemory:
    """Largest resident memory of this process and its children together, in MB."""

    def __init__(self) -> None:
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.05):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.megabytes = max(self.megabytes, total / 2**20)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def report(name: str, rows: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Prints a table and writes `results/NAME.json`."""
    table = Table(*rows[0].keys(), title=name, box=None)
    for row in rows:
        table.add_row(*(f"{v:,.2f}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)
    for key, value in facts.items():
        console.print(f"{key}: {value}", highlight=False, markup=False)
    RESULTS.mkdir(exist_ok=True)
    found = {
        "name": name,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        **facts,
        "rows": list(rows),
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    console.print(f"written: benchmarks/results/{path.name}")
