r"""How fast is `index` beside clip-retrieval's `inference`, with the same weights and pictures?

clip-retrieval is installed for this alone, beside the environment, since it pins old packages:

    pip install --no-deps --target DIR clip-retrieval all_clip clip sentence_transformers \
        embedding_reader webdataset braceexpand xxhash fire termcolor fsspec pandas
    python benchmarks/peers.py --clip-retrieval DIR [--size 4000x3000] [--photos 200]

rclip is left out: it runs one model of its own, in another format, which it downloads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import random_clip, report
from ingest_stages import photograph

INFERENCE = """
import sys, types
sys.path.append(sys.argv[1])
package = types.ModuleType("clip_retrieval")  # without its servers and what they import
package.__path__ = [sys.argv[1] + "/clip_retrieval"]
sys.modules["clip_retrieval"] = package
from clip_retrieval.clip_inference.main import main
main(
    input_dataset=sys.argv[2], output_folder=sys.argv[3], clip_model=sys.argv[4], use_jit=False,
    input_format="files", enable_text=False, enable_metadata=False, batch_size=32,
    num_prepro_workers=2, distribution_strategy="sequential", write_batch_size=100_000,
)
"""
INDEX = """
import sys
from secondglance import Library
settings = {"recall": {"model": sys.argv[3]}, "store": {"backend": "faiss"}}
with Library.open(sys.argv[2], preset="starter", settings=settings) as library:
    assert not library.index([sys.argv[1]]).failed
"""


def seconds(script: str, *arguments: str) -> float:
    """Wall time of a script in a process of its own."""
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return time.perf_counter() - began


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clip-retrieval", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--size", default="448x336")
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    spent: dict[str, list[float]] = {"clip-retrieval": [], "secondglance": []}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        photos, few = scratch / "photos", scratch / "few"
        for folder, count in ((photos, options.photos), (few, 1)):
            folder.mkdir()
            for number in range(count):
                photograph(number, folder, width, height)
        clip = random_clip("ViT-B-32", scratch / "clip")
        model = f"open_clip:ViT-B-32/{clip / 'open_clip_model.safetensors'}"
        peer = str(options.clip_retrieval)
        for turn in range(options.repeat):
            # Starting and loading are measured with one picture, and taken off.
            ways = {
                "clip-retrieval": lambda folder, turn=turn: seconds(
                    INFERENCE, peer, str(folder), str(scratch / f"{folder.name}{turn}"), model
                ),
                "secondglance": lambda folder, turn=turn: seconds(
                    INDEX, str(folder), str(scratch / f"{folder.name}{turn}.library"), str(clip)
                ),
            }
            for name, run in ways.items():
                spent[name].append(run(photos) - run(few))
    best = {name: (options.photos - 1) / min(times) for name, times in spent.items()}
    rows = [
        {"way": name, "images/s": rate, "ratio": rate / best["clip-retrieval"]}
        for name, rate in best.items()
    ]
    report(
        f"peers-{options.size}",
        rows,
        model="ViT-B-32, random weights",
        pictures=f"{options.photos}, {options.size}",
    )


if __name__ == "__main__":
    main()
