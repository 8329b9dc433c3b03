"""How well and how fast the starter models do on scenes they have never seen.

Three questions: how often is a pair judged rightly, by what a near-miss differs in; what do recall
and reranking find in a library of 1,000 pictures where every target stands among near-misses; how
many pictures a second are embedded, and how long do 50 candidates take?

    python benchmarks/starter.py --pairs 200 --pictures 1000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from common import report
from PIL import Image

from secondglance import Library
from secondglance.config import load_settings, read_preset
from secondglance.evaluation.statistics import interval
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import clip_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.scenes.collection import write_collection
from secondglance.scenes.examples import TASKS, Task, pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer
from secondglance.types import Content

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from scene_search import answers, measure, media_search, questions, word_search

FAMILY = 6
SIDE = 384
CLIP_SIDE = 256


def spread(values: list[bool]) -> str:
    """Mean with its 95 % bootstrap interval."""
    value = interval(values)
    return f"{value.mean:.3f} ({value.low:.3f}-{value.high:.3f})"


def judge_pairs(reranker: Qwen3VLReranker, task: Task, count: int) -> list[dict[str, object]]:
    """Share of pairs on the right side of 0.5, by kind of near-miss and by language."""
    renderer = Renderer(device="cpu")
    right: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs(task, count, seed=7, split="test", hard=0.85):
        query, document = (
            content(side, renderer, picture_px=SIDE, clip_px=CLIP_SIDE)
            for side in (pair.query, pair.document)
        )
        score = reranker.score(query, [document])[0].score
        assert score is not None
        hit = (score > 0.5) == pair.label
        right[pair.kind].append(hit)
        right[f"language {pair.language}"].append(hit)
    return [
        {"task": task, "kind": kind, "pairs": len(hits), "accuracy": spread(hits)}
        for kind, hits in sorted(right.items())
    ]


def search_scenes(folder: Path, media: Path) -> list[dict[str, object]]:
    """Recall and both passes on a library of pictures."""
    asked, judged = questions(media), answers(media)
    rows: list[dict[str, object]] = []
    cache_off = {"rerank": {"score_cache_mb": 0}}
    with Library.open(folder / "library", preset="starter", settings=cache_off) as library:
        library.index([media / "pictures"])
        outcomes = measure(
            {
                "BM25 on descriptions": word_search(media),
                "CLIP": media_search(media, library, rerank=False),
                "CLIP + reranker": media_search(media, library, rerank=True),
            },
            asked,
            judged,
        )
    for language in ("en", "zh", ""):
        some = [q for q in asked if q.language == language]
        for outcome in outcomes:
            row: dict[str, object] = {"system": outcome.system, "query": language or "picture"}
            row["queries"] = len(some)
            for name in outcome.values:
                mean, low, high = outcome.mean(name, some)
                row[name] = f"{mean:.3f} ({low:.3f}-{high:.3f})"
            row["median ms"] = round(outcome.median_ms(some), 1)
            rows.append(row)
    return rows


def speed(reranker: Qwen3VLReranker, media: Path) -> list[dict[str, object]]:
    """Pictures embedded a second, and seconds for 50 candidates."""
    settings = read_preset("starter")["recall"]
    embedder = ClipEmbedder(clip_folder(settings["model"]), batch_size=settings["batch_size"])
    files = sorted((media / "pictures").glob("*.jpg"))[:200]
    pictures = [Image.open(path).convert("RGB") for path in files]
    embedder.embed_pictures(pictures[:16])
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        embedder.embed_pictures(pictures)
        seconds.append(time.perf_counter() - started)
    documents = [Content(images=(path,)) for path in files[:50]]
    query = Content(texts=("a red dog to the left of two cats on a beach at night in the rain",))
    reranker.score(query, documents)
    passes = []
    for _ in range(5):
        started = time.perf_counter()
        reranker.score(query, documents)
        passes.append(time.perf_counter() - started)
    return [
        {"what": "pictures embedded a second", "median": round(200 / np.median(seconds), 1)},
        {"what": "seconds to rerank 50 pictures", "median": round(float(np.median(passes)), 2)},
    ]


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=1000, help="of each task")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--parts", default="pairs,search,speed", help="which questions to ask")
    options = parser.parse_args()
    parts = options.parts.split(",")
    reranker = open_reranker(load_settings(base=read_preset("starter")).rerank)
    assert isinstance(reranker, Qwen3VLReranker)
    if "pairs" in parts:
        judged = [row for task in TASKS for row in judge_pairs(reranker, task, options.pairs)]
        report("starter-pairs", judged, pairs=options.pairs)
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        write_collection(
            media, pictures=options.pictures, clips=0, texts=0, family=FAMILY, image_queries=50,
            seed=11,
        )  # fmt: skip
        if "search" in parts:
            found = search_scenes(Path(folder), media)
            report("starter-search", found, pictures=options.pictures, family=FAMILY)
        if "speed" in parts:
            report("starter-speed", speed(reranker, media), threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
