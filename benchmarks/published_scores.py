"""Ten photographs with the published scores of Qwen3-VL-Embedding and Qwen3-VL-Reranker-2B.

The scores are those of the official notebooks, replayed as TREC runs beside the starter models,
which do run here. Two queries tell little; the intervals say so.

    python benchmarks/published_scores.py --golden ../shared/golden/reranker-2b-real-scores
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import console, report
from secondglance.evaluation.judgments import read_qrels, read_queries
from secondglance.evaluation.tables import summary_table
from secondglance.library import Library

RUNS = {"embedding": "ranked", "reranker-2b": "reranked"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--golden", type=Path, required=True, help="folder with golden.json")
    golden = parser.parse_args().golden
    published = json.loads((golden / "golden.json").read_text())["image"]
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate(golden / "images", published, Path(folder))
    console.print(summary_table(found))
    rows = [
        {
            "system": each.system,
            "measure": each.measure,
            "mean": round(each.value.mean, 4),
            "low": round(each.value.low, 4),
            "high": round(each.value.high, 4),
        }
        for each in found.summaries
        if each.group == "all"
    ]
    report("published_scores", rows, queries=len(found.queries))


def evaluate(images: Path, published: dict[str, Any], folder: Path) -> Any:
    """Compares the starter models with what was published for the same pictures and queries."""
    names = [Path(row["path"]).name for row in published["corpus"]]
    queries, qrels = folder / "queries.jsonl", folder / "qrels.txt"
    asked = list(enumerate(published["queries"]))
    queries.write_text(
        "".join(json.dumps({"id": f"q{n}", "text": row["caption"]}) + "\n" for n, row in asked)
    )
    qrels.write_text("".join(f"q{n} 0 {names[row['gt_idx']]} 1\n" for n, row in asked))
    for name, kind in RUNS.items():
        lines = [
            f"q{n} Q0 {names[place]} {rank} {score} {name}\n"
            for n, row in asked
            for rank, (place, score) in enumerate(
                zip(row[f"{kind}_indices"], row[f"{kind}_scores"], strict=True), start=1
            )
        ]
        (folder / f"{name}.trec").write_text("".join(lines))
    with Library.open(folder / "library", preset="starter") as library:
        library.index([images])
        return library.evaluate(
            read_queries(queries)[0],
            read_qrels(qrels)[0],
            systems=["clip", "rerank", *(f"replay:{folder / name}.trec" for name in RUNS)],
            recall=10,
            curves=False,
        )


if __name__ == "__main__":
    main()
