"""Does a preset's second pass help or hurt on photographs, against recall alone?

A library of photographs is made with the preset; one human caption of some of them is the query,
searched twice: both passes, and the first alone. The difference is paired, query by query.

    python benchmarks/photo_search.py DIR --preset starter --queries 200

DIR holds `captions.jsonl`: per line `file`, `captions` (several), `split`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import report
from rich.progress import track

from secondglance import Library, Query
from secondglance.evaluation.statistics import interval

CUTOFFS = (1, 5, 10)
Values = npt.NDArray[np.float64]


def spread(values: Values) -> str:
    """Mean and its 95 % interval, by the bootstrap over queries."""
    value = interval(values)
    return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def rank(library: Library, text: str, wanted: Path, depth: int, *, rerank: bool) -> float:
    """Rank of a file, from 1; infinite beyond `depth`."""
    hits = library.search(Query(text=text), k=depth, rerank=rerank).hits
    names = [Path(hit.path).name for hit in hits]
    return names.index(wanted.name) + 1 if wanted.name in names else np.inf


def compare(
    library: Library, entries: Sequence[dict[str, Any]], depth: int
) -> list[dict[str, Any]]:
    """Measures of both orders, and their difference."""
    found: dict[str, Values] = {}
    for name, rerank in (("recall alone", False), ("both passes", True)):
        found[name] = np.array(
            [
                rank(library, entry["captions"][0], Path(entry["file"]), depth, rerank=rerank)
                for entry in track(entries, description=name)
            ]
        )
    measures = {f"recall@{k}": lambda ranks, k=k: (ranks <= k).astype(float) for k in CUTOFFS}
    measures["MRR"] = lambda ranks: 1 / ranks
    rows: list[dict[str, Any]] = [
        {"order": name} | {m: spread(measure(ranks)) for m, measure in measures.items()}
        for name, ranks in found.items()
    ]
    first, both = found.values()
    gains = {m: spread(measure(both) - measure(first)) for m, measure in measures.items()}
    return [*rows, {"order": "difference"} | gains]


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    lines = (options.photos / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [e for e in map(json.loads, lines) if e["split"] == options.split][: options.count]
    step = max(1, len(entries) // options.queries)
    with (
        tempfile.TemporaryDirectory() as folder,
        Library.open(Path(folder) / "library", preset=options.preset) as library,
    ):
        library.index([options.photos / entry["file"] for entry in entries])
        rows = compare(library, entries[::step][: options.queries], library.settings.search.recall)
    report(
        "photo-search", rows, preset=options.preset, photographs=len(entries),
        queries=options.queries, split=options.split,
    )  # fmt: skip


if __name__ == "__main__":
    main()
