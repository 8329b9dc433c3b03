"""Do small rerank requests that arrive together gain from sharing batches?

The pairs of one request begin alike (instruction and query). Where that saves `LEAST_SAVED` tokens
or more, the beginning is computed once, and the request's pairs get batches of their own; requests
that arrive together then run one after the other, each in a small batch. Here many threads rerank
ten texts of about a hundred tokens each, all queries different, in three ways: as it is; without
sharing beginnings; and without while other requests are at work. All in one run and in turns,
because the load of a machine changes; scores are compared before anything is printed.

    python benchmarks/shared_batches.py              # the starter, on the processor
    python benchmarks/shared_batches.py --model 2B   # random weights, on a GPU

Writes shared-batches.json into $OUT if that is set, else into benchmarks/results.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from rerank import BF16, TOKENIZER, pairs_of, random_model, reranker

from secondglance.rerank import Qwen3VLReranker
from secondglance.rerank import engine as engine_module
from secondglance.rerank.batching import Pair
from secondglance.rerank.engine import LEAST_SAVED, Engine
from secondglance.types import Content

FLOAT32 = 1e-3
"""Log-odds may differ by so much where arithmetic is exact but for the order of sums."""
NOUNS = [
    "dog",
    "boat",
    "lamp",
    "tree",
    "house",
    "river",
    "child",
    "horse",
    "bridge",
    "train",
    "market",
    "garden",
    "window",
    "street",
]
VERBS = [
    "watches",
    "follows",
    "crosses",
    "paints",
    "carries",
    "finds",
    "leaves",
    "passes",
    "enters",
    "holds",
]
ADJECTIVES = [
    "red",
    "old",
    "quiet",
    "bright",
    "wooden",
    "small",
    "tall",
    "broken",
    "green",
    "distant",
    "early",
    "heavy",
]
WAYS = ("as it is", "never shared", "shared when alone")
NEVER = 1 << 60
Work = list[list[tuple[Content, list[Content]]]]
"""Of each thread, its queries and candidates."""


def sentence(draw: random.Random, tokens: int) -> str:
    """Words of about so many tokens."""
    words: list[str] = []
    while len(words) < tokens:
        words += ["the", draw.choice(ADJECTIVES), draw.choice(NOUNS), draw.choice(VERBS)]
    return " ".join(words[:tokens])


def requests(threads: int, rounds: int, documents: int) -> Work:
    """For each thread its queries and candidates, all different."""
    draw = random.Random(0)
    return [
        [
            (
                Content(texts=(sentence(draw, 12),)),
                [Content(texts=(sentence(draw, 100),)) for _ in range(documents)],
            )
            for _ in range(rounds)
        ]
        for _ in range(threads)
    ]


@contextlib.contextmanager
def way(name: str) -> Iterator[None]:
    """Has the engine share beginnings always where it pays, never, or only for one at a time."""
    if name == "as it is":
        yield
        return
    if name == "never shared":
        with mock.patch.multiple(engine_module, LEAST_SAVED=NEVER, LEAST_SAVED_ON_GPU=NEVER):
            yield
        return
    lock, at_work = threading.Lock(), 0
    answers, beginning = Engine.answers, Engine._beginning

    def counted(self: Engine, *args: Any, **options: Any) -> Iterator[Any]:
        nonlocal at_work
        with lock:
            at_work += 1
        try:
            yield from answers(self, *args, **options)
        finally:
            with lock:
                at_work -= 1

    def alone(self: Engine, pairs: Sequence[Pair]) -> Any:
        return beginning(self, pairs) if at_work <= 1 else None

    with (
        mock.patch.object(Engine, "answers", counted),
        mock.patch.object(Engine, "_beginning", alone),
    ):
        yield


def drive(engine: Qwen3VLReranker, work: Work) -> tuple[float, list[float], list[float]]:
    """Seconds for all of it, seconds of each request, and all log-odds in order."""
    took: list[list[float]] = [[] for _ in work]
    odds: list[list[float]] = [[] for _ in work]
    start = threading.Barrier(len(work) + 1)

    def one(number: int) -> None:
        start.wait()
        for query, documents in work[number]:
            began = time.perf_counter()
            found = engine.score(query, documents)
            took[number].append(time.perf_counter() - began)
            odds[number] += [float(score.log_odds or 0.0) for score in found]

    with ThreadPoolExecutor(len(work)) as threads:
        running = [threads.submit(one, number) for number in range(len(work))]
        start.wait()
        began = time.perf_counter()
        for future in running:
            future.result()
        seconds = time.perf_counter() - began
    return seconds, [t for part in took for t in part], [o for part in odds for o in part]


def load(size: str, device: str) -> Qwen3VLReranker:
    """The starter, or random weights in the architecture of a size."""
    if size == "starter":
        return Qwen3VLReranker(TOKENIZER, device=device)
    made: Callable[[str], tuple[Any, torch.Tensor]] = partial(random_model, size)
    return reranker(made, device)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--model", default="2B" if device == "cuda" else "starter")
    parser.add_argument("--device", default=device)
    parser.add_argument("--threads", default="1,4,16")
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20 if device == "cuda" else 4)
    parser.add_argument("--repeat", type=int, default=5 if device == "cuda" else 3)
    options = parser.parse_args()
    engine = load(options.model, options.device)
    rows: list[dict[str, Any]] = []
    agree = True
    for threads in map(int, options.threads.split(",")):
        work = requests(threads, options.rounds, options.documents)
        pairs = threads * options.rounds * options.documents
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        took: dict[str, list[float]] = {name: [] for name in WAYS}
        expected: list[float] = []
        for number in range(options.repeat + 1):  # the first warms up
            # Another way goes first each time.
            for name in (*WAYS[number % len(WAYS) :], *WAYS[: number % len(WAYS)]):
                with way(name):
                    seconds, each, odds = drive(engine, work)
                expected = expected or odds
                off = float(np.abs(np.subtract(odds, expected)).max())
                agree = agree and off <= (BF16 if options.device == "cuda" else FLOAT32)
                if number:
                    rates[name].append(pairs / seconds)
                    took[name] += each
        for name in WAYS:
            row = {
                "threads": threads,
                "way": name,
                "pairs/s": round(float(np.median(rates[name])), 1),
                "times as it is": round(
                    float(np.median(np.divide(rates[name], rates[WAYS[0]]))), 3
                ),
                "p50 ms": round(float(np.percentile(took[name], 50)) * 1e3, 1),
                "p95 ms": round(float(np.percentile(took[name], 95)) * 1e3, 1),
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    [(query, documents)] = requests(1, 1, options.documents)[0]
    pairs_made = pairs_of(engine, query, documents)
    whole = {
        "name": "shared-batches",
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "model": options.model,
        "documents": options.documents,
        "rounds": options.rounds,
        "repeat": options.repeat,
        "tokens_of_a_pair": round(float(np.mean([len(pair) for pair in pairs_made]))),
        "tokens_in_common": engine._engine.forward.common(pairs_made),
        "least_saved": LEAST_SAVED,
        "batch_tokens": engine.batch_tokens,
        "scores_agree": agree,
        "rows": rows,
    }
    folder = Path(os.environ.get("OUT") or Path(__file__).parent / "results")
    name = "shared-batches" + ("" if options.device == "cpu" else f"-{options.model}")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(f"written: {path.name}")
    if not agree:
        sys.exit("some scores do not agree")


if __name__ == "__main__":
    main()
