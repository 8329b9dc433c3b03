"""Does a CLIP folder find photographs by what people wrote of them?

One caption of each photograph is a query, every photograph a candidate. Beside it stand chance,
BM25 over each photograph's other captions (what perfect tags would give), and, where asked for,
the teachers of the starter CLIP at full size: an ImageNet classifier and a sentence encoder.

    python benchmarks/photos.py DIR --clip NAME=FOLDER [--clip ...] [--split dev] [--count 1000]
        [--teachers FOLDER]

DIR holds `captions.jsonl`: per line `file`, `captions` (several), `split`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt
from common import report

from secondglance.evaluation.statistics import interval
from secondglance.ingest.embedder import ClipEmbedder

sys.path.insert(0, str(Path(__file__).parents[1]))

CUTOFFS = (1, 5, 10)
LIMIT_PIXELS = 50_000_000
Ranks = npt.NDArray[np.int64]


def ranks(scores: npt.NDArray[np.float32]) -> Ranks:
    """Ranks from 1 of the diagonal in its row; ties count against it."""
    own = np.diagonal(scores)[:, None]
    found: Ranks = (scores >= own).sum(1)
    return found


def spread(hits: npt.NDArray[np.bool_]) -> str:
    """Share of hits and its 95 % interval, by the bootstrap over queries."""
    value = interval(hits)
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def row(name: str, found: Ranks) -> dict[str, Any]:
    cells = {f"recall@{k}": spread(found <= k) for k in CUTOFFS}
    return {"what": name, **cells, "median rank": int(np.median(found))}


def clip(folder: str, pictures: Sequence[Path], queries: Sequence[str]) -> Ranks:
    embedder = ClipEmbedder(folder, device="cpu")
    images = [embedder.embed_image(path, max_pixels=LIMIT_PIXELS) for path in pictures]
    return ranks(embedder.embed_texts(queries) @ np.stack(images).T)


def bm25(others: Sequence[str], queries: Sequence[str]) -> Ranks:
    """Ties, all the photographs without a common word among them, are broken at random."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(others), stopwords="en", show_progress=False),
                show_progress=False)  # fmt: skip
    scores = np.stack(
        [
            index.get_scores(bm25s.tokenize(query, stopwords="en", return_ids=False,
                                            show_progress=False)[0])
            for query in queries
        ]
    )  # fmt: skip
    jitter = np.random.default_rng(0).uniform(0, 1e-6, scores.shape)
    return ranks((scores + jitter).astype(np.float32))


def teachers(folder: Path, pictures: Sequence[Path], queries: Sequence[str]) -> Ranks:
    """The targets that the starter CLIP is trained towards, computed by its teachers."""
    import torch
    from PIL import Image

    from tools.train_starter.clip_model import SIDE_PX
    from tools.train_starter.clip_teachers import (
        Classifier,
        JointSpace,
        SentenceEncoder,
        read_sentence_tokenizer,
    )

    classifier = Classifier(folder / "classifier.safetensors")
    encoder = SentenceEncoder(folder / "sentence-encoder")
    space = JointSpace.load(folder / "sentence-encoder" / "joint.safetensors")
    images = []
    with torch.inference_mode():
        for path in pictures:
            small = Image.open(path).convert("RGB").resize((SIDE_PX, SIDE_PX))
            pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 127.5 - 1
            images.append(space.images(classifier(pixels)[1]))
        tokenizer = read_sentence_tokenizer(folder / "sentence-encoder")
        texts = space.texts(encoder.encode(list(queries), tokenizer))
    return ranks((texts @ torch.cat(images).T).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--clip", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--teachers", type=Path, help="folder that clip_prepare wrote")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    lines = (options.photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [e for e in map(json.loads, lines) if e["split"] == options.split][: options.count]
    pictures = [options.photos / entry["file"] for entry in entries]
    queries = [entry["captions"][0] for entry in entries]
    others = [" ".join(entry["captions"][1:]) for entry in entries]
    count = len(entries)
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    rows = [row("chance", np.arange(1, count + 1))]
    for named in options.clip:
        name, _, folder = named.partition("=")
        rows.append(row(name, clip(folder, pictures, queries)))
    if options.teachers:
        rows.append(row("teachers of the starter", teachers(options.teachers, pictures, queries)))
    rows.append(row("BM25 over the other captions", bm25(others, queries)))
    report("photos", rows, photographs=count, split=options.split)


if __name__ == "__main__":
    main()
