"""`secondglance status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stdout, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption

if TYPE_CHECKING:
    from secondglance.pipelines.verify import Verification

SHOWN_FAILURES = 20


def status(
    library: LibraryOption,
    config: ConfigOption = None,
    set_: SetOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare catalog and store, record by record.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="With --verify: make them agree; `index` does the rest."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON on stdout.")] = False,
) -> None:
    """Show what a library holds, its models, and the files that failed.

    With --verify the exit code is 1 if catalog and store disagree.
    """
    from secondglance.library import Library

    settings = overrides(set_ or ())
    with Library.open(library, config=config, create=False, settings=settings) as opened:
        checked = opened.verify(repair=repair) if verify or repair else None
        found = opened.status()
    if as_json:
        if checked is not None:
            found["verify"] = checked.to_dict()
        write(json.dumps(found, ensure_ascii=False), None)
    else:
        _show(found)
        if checked is not None:
            _show_verification(checked)
    if checked is not None and not checked.agrees and not checked.repaired:
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path that is cut is of no use
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
        *([("fit", _fit(found["fit"]))] if found["fit"] else []),
    ):
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    for each in found["beside"]:
        table.add_row("[bold]beside[/]", escape(_beside(each, sum(counts.values()))))
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


def _beside(each: dict[str, Any], files: int) -> str:
    """Vectors that are not in use, in one line."""
    says = {
        "building": f"new vectors for {each['model']}: {each['files']} of {files} files",
        "kept": f"old vectors of {each['model']}: {each['files']} files, kept",
        "leaving": f"old vectors of {each['model']}: removed once no program uses them",
    }
    return f"{says[each['state']]}, in {each['store']}"


def _fit(fit: dict[str, Any]) -> str:
    """What was learned from judgments, in one line."""
    if "created" not in fit:
        return f"not used: {fit['problem']}"
    best = fit["models"][-1]
    line = (
        f"from {fit['queries']} queries and {fit['judgments']} judgments, "
        f"{fit['created'][:10]}; nDCG@10 {best['ndcg']['fixed']:.3f} without, "
        f"{best['ndcg']['fitted']:.3f} with ({best['name']}); calibration error "
        f"{fit['calibration_error']:.3f}"
    )
    return line if fit["used"] else f"not used: {fit['problem']}; {line}"


def _show_verification(checked: Verification) -> None:
    says = "agree" if checked.agrees else "[bold red]disagree[/]"
    stdout().print(
        f"[bold]verify[/]  catalog and store {says}: {checked.records} records, "
        f"{checked.stored} stored, {checked.missing} missing, {checked.foreign} foreign, "
        f"{checked.duplicates} duplicate; {checked.unfinished} contents unfinished",
        highlight=False,
        soft_wrap=True,
    )
    for path in checked.lost_files[:SHOWN_FAILURES]:
        stdout().print(f"[yellow]not in the store:[/] {escape(path)}")
    if checked.remedy is not None:
        stdout().print(f"  [bold]try:[/] {checked.remedy}", highlight=False, soft_wrap=True)
