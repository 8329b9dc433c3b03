"""Search results as JSON, CSV, a table, or an HTML contact sheet."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from secondglance.pipelines import shown
from secondglance.types import Hit, Moment, SearchResult, clock

if TYPE_CHECKING:
    from rich.table import Table

Format = Literal["table", "json", "csv", "html"]

CSV_FIELDS = [
    "rank",
    "id",
    "path",
    "kind",
    "start_s",
    "end_s",
    "keyframe_s",
    "moments",
    "score",
    "recall_score",
    "recall_rank",
    "lexical_score",
    "rerank_score",
    "error",
    "text",
]


def format_of(out: Path | None) -> Format:
    """The format that a file's name asks for; a table where it says nothing."""
    by_suffix: dict[str, Format] = {
        ".json": "json",
        ".csv": "csv",
        ".html": "html",
        ".htm": "html",
    }
    return "table" if out is None else by_suffix.get(out.suffix.lower(), "table")


def render(result: SearchResult, format_: Literal["json", "csv", "html"]) -> str:
    """The whole result in one string."""
    if format_ == "json":
        return json.dumps(result.to_dict(), ensure_ascii=False, indent=2)
    if format_ == "csv":
        return _csv(result)
    from secondglance.pipelines.contact_sheet import contact_sheet

    return contact_sheet(result)


def table(result: SearchResult) -> Table:
    """For the terminal."""
    from rich.markup import escape
    from rich.table import Table

    by_words = any(hit.lexical_score is not None for hit in result.hits)
    rows = Table(
        "rank",
        "recall\nrank",
        "kind",
        "result",
        "score",
        "recall\nscore",
        *(["word\nscore"] if by_words else []),
        "rerank\nscore",
        title=escape(describe(result)),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for column in rows.columns:
        column.justify = "right"
    rows.columns[2].justify = rows.columns[3].justify = "left"
    rows.columns[3].overflow = "fold"
    for hit in result.hits:
        rerank = "" if hit.rerank_score is None else f"{hit.rerank_score:.3f}"
        if hit.error:
            rerank = f"[red]{escape(hit.error)}[/]"
        rows.add_row(
            str(hit.rank),
            f"{hit.recall_rank}{movement(hit)}",
            hit.kind,
            escape(shown_name(hit)),
            f"{hit.score:.3f}",
            f"{hit.recall_score:.3f}",
            *([_number(hit.lexical_score)] if by_words else []),
            rerank,
        )
    return rows


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.2f}"


def plain_table(result: SearchResult) -> str:
    """The table without colours, for a file."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=160)
    if result.message:
        console.print(f"{describe(result)}\n{result.message}", markup=False, highlight=False)
    else:
        console.print(table(result))
    console.print(timings(result))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def movement(hit: Hit) -> str:
    """How the second pass moved a hit."""
    change = hit.recall_rank - hit.rank
    return "" if change == 0 else f" [green]+{change}[/]" if change > 0 else f" [red]{change}[/]"


def shown_name(hit: Hit) -> str:
    """The file, the moment of a video or the passage of a text, and when and how large it is."""
    path = Path(hit.path)
    name = f"{path.parent.name}/{path.name}"
    if hit.start_s is not None and hit.end_s is not None:
        name += f"  {clock(hit.start_s)}-{clock(hit.end_s)}"
    elif hit.kind == "text":
        words = " ".join(hit.text.split())
        name += f"\n  {words[:100]}{'...' if len(words) > 100 else ''}"
    if facts := shown.facts(hit.metadata):
        name += f"\n  {facts}"
    if others := hit.moments[1:]:
        name += f"\n  also {', '.join(map(stretch, others))}"
    if hit.copies:
        name += f"\n  and {len(hit.copies)} more with the same content"
    if hit.near_duplicates:
        name += f"\n  and {len(hit.near_duplicates)} that look nearly the same"
    if hit.absent:
        name += "\n  (absent: not there now)"
    return name


def stretch(moment: Moment) -> str:
    """A moment of a video as m:ss-m:ss."""
    return f"{clock(moment.start_s)}-{clock(moment.end_s)}"


def describe(result: SearchResult) -> str:
    """The query in words."""
    query = result.query
    parts = [f'"{query.text}"'] if query.text else []
    parts += [f"like {Path(p).name}" for p in (query.image, query.video) if p is not None]
    parts += ["like a clip"] if query.clip is not None else []
    words = " and ".join(parts)
    return f'{words}, not "{query.not_text}"' if query.not_text else words


def timings(result: SearchResult) -> str:
    """Milliseconds per stage in one line, and how much of the second pass was known."""
    spent = ", ".join(f"{name} {ms:.0f} ms" for name, ms in result.timings_ms.items() if ms > 0)
    if result.rerank_cache_hits:
        spent += f"; {result.rerank_cache_hits} scores from the cache"
    return f"{len(result.hits)} results; {spent}" if result.hits else f"nothing found; {spent}"


def _csv(result: SearchResult) -> str:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*CSV_FIELDS, *shown.SHOWN])
    for hit in result.hits:
        values = [_cell(hit, name) for name in CSV_FIELDS]
        values += [shown.cell(hit.metadata.get(name)) for name in shown.SHOWN]
        writer.writerow(values)
    return output.getvalue()


def _cell(hit: Hit, name: str) -> str | int | float:
    """One value of a row; moments as start-end in seconds, best first."""
    if name == "moments":
        return "; ".join(f"{m.start_s:g}-{m.end_s:g}" for m in hit.moments)
    value: str | int | float | None = getattr(hit, name)
    return "" if value is None else value
