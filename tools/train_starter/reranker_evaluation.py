"""How often the reranker in training is right, by task and by what a near-miss differs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tools.train_starter.reranker_data import KINDS, SHARES, Batch

Table = dict[str, dict[str, dict[str, float]]]


def measure(batches: Sequence[Batch], log_odds: Callable[[Batch], Any]) -> Table:
    """Scores batches.

    Args:
        batches: Judged pairs.
        log_odds: Scores one batch: (batch,).

    Returns:
        For each task, and over all: for each row of the table its `accuracy` at probability 0.5
        and the number of `pairs`. Rows are `all`, the kinds of pairs, `en` and `zh`; `auc` holds
        the chance that a matching pair scores above one that does not.
    """
    scores: dict[str, list[tuple[Any, Any, Any, Any]]] = {}
    for batch in batches:
        row = (log_odds(batch), batch.labels, batch.kinds, batch.chinese)
        scores.setdefault(batch.task, []).append(row)
        scores.setdefault("all", []).append(row)
    return {
        task: _rows(*(np.concatenate(column) for column in zip(*rows, strict=True)))
        for task, rows in scores.items()
    }


def as_text(table: Table) -> str:
    """The table for people: percent right, a column a task."""
    tasks = [task for task in (*SHARES, "all") if task in table]
    rows = ("all", "auc", *KINDS, "en", "zh")
    lines = [f"{'':10}" + "".join(f"{task:>12}" for task in tasks)]
    for row in rows:
        cells = []
        for task in tasks:
            found = table[task].get(row)
            cells.append("" if found is None else f"{100 * found['accuracy']:.1f}")
        lines.append(f"{row:10}" + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def _rows(log_odds: Any, labels: Any, kinds: Any, chinese: Any) -> dict[str, dict[str, float]]:
    right = (log_odds > 0) == (labels > 0.5)
    masks = {"all": np.ones(len(right), dtype=bool), "en": ~chinese, "zh": chinese}
    masks |= {kind: kinds == number for number, kind in enumerate(KINDS)}
    rows = {
        name: {"accuracy": float(right[mask].mean()), "pairs": int(mask.sum())}
        for name, mask in masks.items()
        if mask.any()
    }
    yes = int((labels > 0.5).sum())
    if 0 < yes < len(labels):
        ranks = np.empty(len(log_odds))
        ranks[np.argsort(log_odds)] = np.arange(1, len(log_odds) + 1)
        area = (ranks[labels > 0.5].sum() - yes * (yes + 1) / 2) / (yes * (len(labels) - yes))
        rows["auc"] = {"accuracy": float(area), "pairs": len(labels)}
    return rows
