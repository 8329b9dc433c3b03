"""`secondglance status`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stdout, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption

SHOWN_FAILURES = 20


def status(
    library: LibraryOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Show what a library holds, its models, and the files that failed."""
    from rich.table import Table

    from secondglance.library import Library

    settings = overrides(set_ or ())
    with Library.open(library, config=config, create=False, settings=settings) as opened:
        found = opened.status()
    if as_json:
        write(json.dumps(found, ensure_ascii=False), None)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    counts = dict(found["counts"])
    failed = counts.pop("failed")
    records = counts.pop("records")
    files = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
    for name, value in (
        ("library", found["library"]),
        ("preset", found["preset"]),
        ("recall", found["embedder"] or "not loaded yet"),
        ("rerank", found["reranker"]),
        ("store", f"{found['store']}, {found['index'] or 'empty'}, {found['vectors']} vectors"),
        ("files", f"{files}; {failed} failed"),
        ("segments", str(records)),
    ):
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    for root in found["roots"]:
        text = f"{escape(root['path'])}: {root['files']} files"
        if not root["present"]:
            why = "empty" if root["absence"] == "empty" else "not there"
            text += f" [yellow](absent: the folder is {why} now; its entries are kept)[/]"
        table.add_row("[bold]folder[/]", text)
    stdout().print(table)
    for failure in found["failures"][:SHOWN_FAILURES]:
        stdout().print(f"[yellow]failed:[/] {escape(failure['path'])}: {escape(failure['reason'])}")
    if len(found["failures"]) > SHOWN_FAILURES:
        stdout().print(f"... and {len(found['failures']) - SHOWN_FAILURES} more; see --json")
