"""Does `index` keep its speed and its memory from the first picture to the last?

Small pictures that are made up, and a CLIP of one layer with random weights, so that what grows
with the library is not hidden behind decoding and embedding. Progress tells when each further part
was done; memory is that of the job and its decode workers together.

    python benchmarks/steady.py --photos 100000 [--store faiss]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ingest_stages
import numpy as np
import psutil
from common import report
from PIL import Image

PARTS = 10
TINY = {"image_size": 64, "layers": 1, "width": 64, "head_width": 64, "patch_size": 32}
PER_FOLDER = 1000


def photographs(place: int, folder: Path, count: int) -> None:
    """A folder of small JPEGs, all different."""
    random = np.random.default_rng(place)
    (folder / f"{place:04}").mkdir()
    for number in range(count):
        pixels = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC)
        picture.save(folder / f"{place:04}" / f"{number:04}.jpg", quality=85)


class Watch:
    """Notes time and memory whenever another part of the library is done."""

    def __init__(self, total: int) -> None:
        self.rows: list[dict[str, Any]] = []
        self._part = total // PARTS
        self._began = time.perf_counter()
        self._process = psutil.Process()

    def __call__(self, progress: Any) -> None:
        """Takes in how far the job is."""
        if progress.stage != "embed" or progress.done < self._part * (len(self.rows) + 1):
            return
        now = time.perf_counter()
        workers = self._process.children(recursive=True)
        self.rows.append(
            {
                "images": progress.done,
                "images/s": self._part / (now - self._began),
                "job MB": self._process.memory_info().rss / 1e6,
                "largest worker MB": max((w.memory_info().rss for w in workers), default=0) / 1e6,
            }
        )
        self._began = now


def main() -> None:
    """Runs it."""
    from secondglance import Library

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--store", default="faiss")
    options = parser.parse_args()
    ingest_stages.VISION["tiny"] = TINY
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        folder = scratch / "photos"
        folder.mkdir()
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            make = partial(photographs, folder=folder, count=PER_FOLDER)
            list(pool.map(make, range(options.photos // PER_FOLDER)))
        clip = ingest_stages.clip("tiny", scratch / "clip")
        settings = {"recall": {"model": str(clip)}, "store": {"backend": options.store}}
        with Library.open(scratch / "library", preset="starter", settings=settings) as library:
            library._parts.embedder()
            watch = Watch(options.photos)
            result = library.index([folder], on_progress=watch)
        assert result.indexed == options.photos, result
    report(
        f"steady-{options.store}",
        watch.rows,
        model="one layer, random weights",
        seconds=result.seconds,
    )


if __name__ == "__main__":
    main()
