"""What does a Ray cluster cost or bring, against the local engine on the same machine?

Each engine indexes the same photographs with the same model (random weights: speed only), each run
in a process of its own, in turn. Starting Ray and its workers takes a while whatever there is to
do, so the time until the first file is done is told apart from the rate after it.

    python benchmarks/ray_ingest.py [--photos FOLDER] [--model ViT-B-32] [--limit 600]
    python benchmarks/ray_ingest.py --address auto --photos /shared/photos    # on a cluster
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common import PeakMemory, chosen_photos, console, random_clip, report

ENGINES = ("local", "ray")


def one_run(engine: str, photos: Path, clip: Path, address: str | None) -> dict[str, float]:
    """Indexes into a new library; prints nothing."""
    from secondglance import Library

    settings = {"recall": {"model": str(clip)}, "store": {"backend": "faiss"}}
    times: list[tuple[float, int]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        PeakMemory() as memory,
        Library.open(Path(folder) / "l", preset="starter", settings=settings) as library,
    ):
        library._parts.embedder()  # of this process; the cluster's own are in the figures
        started = time.perf_counter()
        found = library.index(
            [photos],
            engine=engine,  # type: ignore[arg-type]
            address=address,
            on_progress=lambda progress: (
                times.append((time.perf_counter() - started, progress.done))
                if progress.stage == "embed"
                else None
            ),
        )
        seconds = time.perf_counter() - started
    assert not found.failed, found.errors[:3]
    first_s, first = next((at, done) for at, done in times if done)
    last_s = next(at for at, done in times if done == found.indexed)
    after = (found.indexed - first) / (last_s - first_s) if last_s > first_s else 0.0
    return {
        "files": found.indexed,
        "seconds": seconds,
        "first_s": first_s,
        "after": after,
        "mb": memory.megabytes,
    }


def measured(engine: str, photos: Path, clip: Path, address: str | None) -> dict[str, float]:
    """Runs one engine in a fresh process."""
    command = [sys.executable, __file__, "--engine", engine, "--photos", str(photos)]
    command += ["--clip", str(clip), *(["--address", address] if address else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="left out: made-up pictures")
    parser.add_argument("--size", default="448x336", help="of made-up pictures")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--address", help="of a cluster; left out: Ray on this machine")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--clip", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        found = one_run(options.engine, options.photos, options.clip, options.address)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        clip = random_clip(options.model, scratch / "clip")
        photos = scratch / "photos"
        if options.photos is not None and options.address:
            photos = options.photos  # where every node sees it
        else:
            chosen_photos(photos, photos=options.photos, size=options.size, limit=options.limit)
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for _ in range(options.repeat):  # in turn, so that a machine that slows down hits both
            for engine in ENGINES:
                runs[engine].append(measured(engine, photos, clip, options.address))
                console.print(f"{engine}: {runs[engine][-1]['seconds']:.1f} s")
    if not all(run["after"] for engine in ENGINES for run in runs[engine]):
        parser.error("too few pictures to tell a rate; raise --limit")

    def middle(engine: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[engine])

    def ratio(name: str, engine: str) -> float:
        pairs = zip(runs["local"], runs[engine], strict=True)
        return statistics.median(found[name] / local[name] for local, found in pairs)

    rows: list[dict[str, Any]] = [
        {
            "engine": engine,
            "seconds": middle(engine, "seconds"),
            "first file after s": middle(engine, "first_s"),
            "images/s after it": middle(engine, "after"),
            "ratio of rates": ratio("after", engine),
            "ratio of seconds": ratio("seconds", engine),
            "peak MB": max(run["mb"] for run in runs[engine]),
        }
        for engine in ENGINES
    ]
    report(
        "ray-ingest",
        rows,
        pictures=options.photos.name if options.photos else f"generated, {options.size}",
        model=f"{options.model}, random weights",
        files=int(runs["local"][0]["files"]),
        repeats=options.repeat,
        cluster=options.address or "Ray on this machine",
        ray=version("ray"),
    )


if __name__ == "__main__":
    main()
