"""Files of queries and judgments that tests write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def written(path: Path, text: str) -> Path:
    """Writes text as it stands, whatever its lines end with."""
    path.write_text(text, "utf-8", newline="")
    return path


def queries_file(folder: Path, *rows: dict[str, Any] | str) -> Path:
    """Writes rows as JSON lines; rows that are text as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return written(folder / "queries.jsonl", "\n".join(lines))
