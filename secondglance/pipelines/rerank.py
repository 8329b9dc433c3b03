"""The second pass alone, over candidates that a user brings."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.config import load_settings, read_preset
from secondglance.errors import InputError
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import shown_model
from secondglance.pipelines.preset import choose_preset
from secondglance.types import Content, VideoClip

if TYPE_CHECKING:
    from rich.table import Table

DOCUMENT_KEYS = frozenset({"id", "text", "image", "video"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedDocument:
    """One candidate: its place in the input, from 0, and its score; None with an error."""

    rank: int
    index: int
    id: str
    score: float | None
    error: str | None
    document: str | dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """Candidates, best first; those without a score come last."""

    model: str
    results: tuple[RankedDocument, ...]
    timings_ms: Mapping[str, float]
    warnings: tuple[str, ...] = ()

    def json(self) -> str:
        """For programs."""
        found = {**asdict(self), "timings_ms": dict(self.timings_ms)}
        return json.dumps(found, ensure_ascii=False, indent=2)

    def csv(self) -> str:
        """For spreadsheets."""
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(("rank", "index", "id", "score", "error", "document"))
        for row in self.results:
            shown = row.document if isinstance(row.document, str) else json.dumps(row.document)
            score = "" if row.score is None else row.score
            writer.writerow((row.rank, row.index, row.id, score, row.error or "", shown))
        return output.getvalue()

    def table(self) -> Table:
        """For people."""
        from rich.markup import escape
        from rich.table import Table

        total = self.timings_ms["rerank"]
        caption = f"{len(self.results)} candidates in {total:.0f} ms with {self.model}"
        rows = Table(
            "rank", "line", "score", "candidate", caption=caption, box=None, pad_edge=False
        )
        for row in self.results:
            document = row.document if isinstance(row.document, str) else _shown(row.document)
            score = f"[red]{escape(row.error)}[/]" if row.error else f"{row.score:.4f}"
            rows.add_row(str(row.rank), str(row.index + 1), score, escape(document[:120]))
        return rows


def rerank_file(
    documents: Path,
    *,
    query: str = "",
    query_image: Path | None = None,
    query_video: Path | None = None,
    instruction: str | None = None,
    top_n: int | None = None,
    preset: str | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RerankResult:
    """Scores the candidates of a JSONL file against a query.

    Raises:
        InputError: The query is empty, a file is missing, or a line cannot be used.
        ModelError: The reranker cannot be loaded.
    """
    wanted = _query(query, query_image, query_video)
    rows = _read(documents)
    folder = Path.cwd() if str(documents) == "-" else documents.parent
    contents = [_content(row, folder, line) for line, row in enumerate(rows, start=1)]
    warnings: list[str] = []
    asked = load_settings(file=config, flags=settings)
    if preset in (None, "auto"):
        preset, warnings = choose_preset(asked)
    chosen = load_settings(base=read_preset(str(preset)), file=config, flags=settings)
    started = time.perf_counter()
    reranker = open_reranker(chosen.rerank)
    loaded = time.perf_counter()
    scores = reranker.score(wanted, contents, instruction=instruction)
    done = time.perf_counter()

    def place(index: int) -> tuple[bool, float]:
        score = scores[index].score
        return score is None, -(score or 0.0)

    ranked = tuple(
        RankedDocument(
            rank=rank,
            index=index,
            id=_id(rows[index], index),
            score=scores[index].score,
            error=scores[index].error,
            document=rows[index],
        )
        for rank, index in enumerate(sorted(range(len(rows)), key=place), start=1)
    )
    timings = {"load": (loaded - started) * 1e3, "rerank": (done - loaded) * 1e3}
    return RerankResult(
        model=shown_model(reranker.name),
        results=ranked[:top_n],
        timings_ms=timings,
        warnings=tuple(warnings),
    )


def _query(text: str, image: Path | None, video: Path | None) -> Content:
    content = Content(
        texts=(text,) if text.strip() else (),
        images=(image,) if image else (),
        videos=(VideoClip(path=video),) if video else (),
    )
    if not content:
        raise InputError(
            "the query is empty", remedy="give --query, --query-image or --query-video"
        )
    return content


def _read(documents: Path) -> list[str | dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(documents) == "-" else documents.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the candidates {documents}: {error}") from error
    rows: list[str | dict[str, Any]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} of {documents} is not JSON: {error}") from None
        if not isinstance(row, (str, dict)):
            raise InputError(f"line {number} of {documents} is neither a string nor an object")
        rows.append(row)
    if not rows:
        raise InputError(f"there are no candidates in {documents}", remedy="one JSON value a line")
    return rows


def _content(row: str | dict[str, Any], folder: Path, line: int) -> Content:
    if isinstance(row, str):
        return Content(texts=(row,))
    unknown = set(row) - DOCUMENT_KEYS
    parts = {key: _strings(row.get(key), key, line) for key in ("text", "image", "video")}
    if unknown or not any(parts.values()):
        problem = f"unknown keys {sorted(unknown)}" if unknown else "no text, image or video"
        raise InputError(
            f"candidate {line} has {problem}", remedy=f"allowed: {sorted(DOCUMENT_KEYS)}"
        )
    return Content(
        texts=parts["text"],
        images=tuple(folder / name for name in parts["image"]),
        videos=tuple(VideoClip(path=folder / name) for name in parts["video"]),
    )


def _strings(value: object, key: str, line: int) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(item, str) for item in values):
        raise InputError(f"candidate {line}: {key} must be a string or a list of strings")
    return tuple(values)


def _id(row: str | dict[str, Any], index: int) -> str:
    return str(row["id"]) if isinstance(row, dict) and "id" in row else str(index)


def _shown(document: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in document.items())
