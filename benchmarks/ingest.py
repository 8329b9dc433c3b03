"""How fast is `index`, against what one would write by hand?

Each way runs in a process of its own over the same photographs with the same model (random
weights: speed only): a plain loop over open-clip, the same loop in batches, a DataLoader with two
workers, and secondglance. Then: how fast is a second run over files that did not change?

    python benchmarks/ingest.py [--photos FOLDER] [--model ViT-B-32] [--limit 600]
    python benchmarks/ingest.py --size 4000x3000 --limit 80
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import PeakMemory, chosen_photos, console, random_clip, report
from PIL import Image

BATCH = 32


def plain_loop(photos: list[Path], clip: Path, batch: int) -> float:
    """Seconds for open, preprocess, encode, one after the other."""
    import open_clip
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    model.eval()
    started = time.perf_counter()
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(photos), batch):
            opened = [Image.open(path).convert("RGB") for path in photos[start : start + batch]]
            images = [preprocess(image) for image in opened]
            vectors.append(model.encode_image(torch.stack(images), normalize=True))
    torch.cat(vectors).numpy()
    return time.perf_counter() - started


class Photos:
    """What a DataLoader reads from."""

    def __init__(self, photos: list[Path], preprocess: Callable[[Image.Image], Any]) -> None:
        self._photos = photos
        self._preprocess = preprocess

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, index: int) -> Any:
        return self._preprocess(Image.open(self._photos[index]).convert("RGB"))


def data_loader(photos: list[Path], clip: Path) -> float:
    """Seconds with torch's DataLoader, as a tutorial would have it."""
    import open_clip
    import torch
    from torch.utils.data import DataLoader

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip}")
    model.eval()
    started = time.perf_counter()
    with torch.inference_mode():
        batches = DataLoader(Photos(photos, preprocess), batch_size=BATCH, num_workers=2)
        vectors = [model.encode_image(batch, normalize=True) for batch in batches]
    torch.cat(vectors).numpy()
    return time.perf_counter() - started


def secondglance(folder: Path, clip: Path) -> float:
    """Seconds for scan, hash, decode, embed, store and catalog."""
    from secondglance import Library

    with tempfile.TemporaryDirectory() as library:
        settings = {"recall": {"model": str(clip)}, "store": {"backend": "faiss"}}
        opened = Library.open(Path(library) / "l", preset="starter", settings=settings)
        with opened:
            opened._parts.embedder()  # loading the model is in none of the three figures
            report = opened.index([folder])
        assert not report.failed, report.errors[:3]
        return report.seconds


def measured(way: str, folder: Path, clip: Path) -> dict[str, float]:
    """Runs one way in a fresh process."""
    command = [sys.executable, __file__, "--way", way, "--photos", str(folder), "--clip", str(clip)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_way(way: str, folder: Path, clip: Path) -> None:
    photos = sorted(folder.iterdir())
    with PeakMemory() as memory:
        if way == "secondglance":
            seconds = secondglance(folder, clip)
        elif way == "DataLoader":
            seconds = data_loader(photos, clip)
        else:
            seconds = plain_loop(photos, clip, BATCH if way == "batched loop" else 1)
    print(json.dumps({"seconds": seconds, "mb": memory.megabytes, "files": len(photos)}))


def unchanged_run(scratch: Path, files: int) -> float:
    """Files a second of a run in which nothing changed; pictures of 8x8, untrained model."""
    from secondglance import Library

    folder = scratch / "many"
    for number in range(files):
        path = folder / f"{number // 1000:03}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (number % 256, number // 256 % 256, number // 65536)
        Image.new("RGB", (8, 8), colour).save(path)
    settings = {"store": {"backend": "faiss"}}
    with Library.open(scratch / "library", preset="starter", settings=settings) as library:
        assert library.index([folder]).indexed == files
        seconds = [library.index([folder]).seconds for _ in range(5)]
        assert library.index([folder]).unchanged == files
    return files / statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="left out: made-up pictures")
    parser.add_argument("--size", default="448x336", help="of made-up pictures")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--unchanged-files", type=int, default=10_000)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        one_way(options.way, options.photos, options.clip)
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        clip = random_clip(options.model, scratch / "clip")
        chosen = scratch / "photos"
        chosen_photos(chosen, photos=options.photos, size=options.size, limit=options.limit)
        ways = ("plain loop", "batched loop", "DataLoader", "secondglance")
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.repeat):  # in turn, so that a machine that slows down hits all
            for way in ways:
                runs[way].append(measured(way, chosen, clip))
                console.print(f"{way}: {runs[way][-1]['seconds']:.1f} s")
        rates = {
            way: statistics.median(run["files"] / run["seconds"] for run in found)
            for way, found in runs.items()
        }
        rows = [
            {
                "way": way,
                "images/s": rates[way],
                "ratio": statistics.median(
                    plain["seconds"] / run["seconds"]
                    for plain, run in zip(runs["plain loop"], found, strict=True)
                ),
                "peak MB": max(run["mb"] for run in found),
            }
            for way, found in runs.items()
        ]
        unchanged = unchanged_run(scratch, options.unchanged_files)
    default = options.photos or options.size == parser.get_default("size")
    report(
        "ingest" if default else f"ingest-{options.size}",
        rows,
        pictures=str(options.photos.name) if options.photos else f"generated, {options.size}",
        model=f"{options.model}, random weights",
        files=int(runs["plain loop"][0]["files"]),
        unchanged_files_per_second=round(unchanged),
    )


if __name__ == "__main__":
    main()
