"""`secondglance judge`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from secondglance.cli.console import overrides, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, SetOption, listed

if TYPE_CHECKING:
    from secondglance.evaluation.agreement import Agreement
    from secondglance.evaluation.types import EvaluationQuery
    from secondglance.library import Library
    from secondglance.pipelines.judge import Pool, PoolSystem
    from secondglance.pipelines.judging import Judging

ALL_SYSTEMS = "clip,clip+bm25,fusion"


def judge(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="With --combine: judgments.NAME.jsonl files.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The qrels file to write, or a folder for it.", show_default=False),
    ] = None,
    library: Annotated[
        Path | None,
        typer.Option("--library", "-L", help="The library folder.", envvar="SECONDGLANCE_LIBRARY"),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="JSON lines with id, text, image, video.")
    ] = None,
    systems: Annotated[
        str, typer.Option(help="Whose results are pooled, separated by commas.")
    ] = ALL_SYSTEMS,
    depth: Annotated[int, typer.Option(help="Results of each system for each query.", min=1)] = 10,
    annotator: Annotated[
        str | None, typer.Option(help="Your name in the judgments; left out: the login name.")
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="Ask here, without a page.")] = False,
    combine: Annotated[
        bool, typer.Option("--combine", help="Average the grades of several annotators.")
    ] = False,
    host: Annotated[str, typer.Option(help="Where the page is served.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any that is free.", min=0, max=65535)] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Only show the page's address.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON on stdout.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Judge search results by key press, to measure systems with; every answer is kept at once.

    With --combine it says how far several annotators agree, and averages their grades.
    """
    if out is None:
        raise typer.BadParameter("say where the qrels go", param_hint="--out")
    if combine:
        _combine(files or [], out, as_json=as_json)
        return
    if files:
        raise typer.BadParameter("files go with --combine only", param_hint="FILES")
    for option, given in (("--library", library), ("--queries", queries)):
        if given is None:
            raise typer.BadParameter("is needed to judge", param_hint=option)
    assert library is not None
    assert queries is not None

    from secondglance.evaluation.judgment_log import JudgmentLog
    from secondglance.evaluation.queries import read_queries
    from secondglance.library import Library
    from secondglance.pipelines import judging

    name = annotator if annotator is not None else judging.login_name()
    places = judging.places(out, annotator=name)
    asked, warnings = read_queries(queries)
    warn(warnings)
    report = places.qrels.parent / "report"
    command = f"secondglance evaluate --library {_q(library)} --queries {_q(queries)} "
    command += f"--qrels {_q(places.qrels)} --out {_q(report)}"
    settings = overrides(set_ or ())
    log = JudgmentLog(places.log, annotator=name)
    try:
        with Library.open(library, config=config, create=False, settings=settings) as opened:
            pool = _pool(opened, asked, listed(systems), depth)
            state = judging.Judging(pool, log, qrels=places.qrels, gone=opened.unknown_documents)
        # Closed while the annotator works: models and database need not wait for people.
        warn(state.warnings)
        if terminal:
            from secondglance.cli.judge_terminal import judge_in_terminal, key_reader

            with suppress(KeyboardInterrupt), key_reader() as read_key:
                judge_in_terminal(state, read_key, stderr())
        else:
            _serve(state, host=host, port=port, open_it=not no_open, command=command)
        _close(state, command, as_json=as_json)
    finally:
        log.close()


def _q(path: Path) -> str:
    return shlex.quote(str(path))


def _pool(
    library: Library, asked: Sequence[EvaluationQuery], chosen: list[str], depth: int
) -> Pool:
    from rich.progress import Progress

    with Progress(console=stderr(), transient=True) as bar:
        task = bar.add_task("searching", total=None)
        return library.pool(
            asked,
            systems=cast("list[PoolSystem]", chosen),
            depth=depth,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _serve(state: Judging, *, host: str, port: int, open_it: bool, command: str) -> None:
    from secondglance.pipelines import judge_server

    token = judge_server.make_token()
    with judge_server.listen(host, port) as listening:
        server = judge_server.make_server(
            state, host=host, listening=listening, token=token, next_command=command
        )
        url = judge_server.address(host, listening, token)
        stderr().print(f"{len(state.tasks)} to judge at", highlight=False)
        # In one piece, whatever the terminal's width: it is to be copied.
        stderr().print(url, highlight=False, soft_wrap=True, markup=False)
        stderr().print("Ctrl-C ends; the same command goes on.", style="dim", highlight=False)
        if open_it and _has_display():
            import webbrowser

            with suppress(webbrowser.Error):
                webbrowser.open(url)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


def _has_display() -> bool:
    """Whether a browser would have a window; one in the terminal would hide what is said there."""
    import os
    import sys

    return sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _close(state: Judging, command: str, *, as_json: bool) -> None:
    written = state.write()
    progress = state.progress()
    if as_json:
        found = {
            "total": progress.total,
            "graded": progress.graded,
            "broken": progress.broken,
            "judgments": written,
            "qrels": str(state.qrels) if written else None,
            "warnings": list(state.warnings),
        }
        write(json.dumps(found, ensure_ascii=False, indent=2), None)
        return
    say = f"{progress.graded} of {progress.total} graded"
    say += f", {progress.broken} could not be seen" if progress.broken else ""
    stdout().print(say, highlight=False)
    if written:
        stdout().print(
            f"{written} judgments in {state.qrels}\nnext: {command}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    else:
        stdout().print("no grades yet: no qrels written")


def _combine(files: list[Path], out: Path, *, as_json: bool) -> None:
    from secondglance.errors import InputError
    from secondglance.evaluation.agreement import agree, combine
    from secondglance.evaluation.judgment_log import read_grades
    from secondglance.pipelines import judging

    if not files:
        raise typer.BadParameter("name judgments.NAME.jsonl files", param_hint="--combine")
    grades, warnings = read_grades(files)
    warn(warnings)
    combined = combine(grades)
    if not combined:
        raise InputError(
            f"there are no grades in {', '.join(map(str, files))}", remedy="judge something first"
        )
    agreement = agree(grades)
    beside = judging.write_combined(out, combined, agreement)
    count = sum(map(len, combined.values()))
    if as_json:
        found = {"qrels": str(out), "averages": str(beside), "judgments": count}
        write(json.dumps({**found, "agreement": asdict(agreement)}, indent=2), None)
        return
    _show(agreement)
    stdout().print(
        f"{count} judgments in {out}, averages in {beside}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )


def _show(agreement: Agreement) -> None:
    from rich.markup import escape
    from rich.table import Table

    graders = ", ".join(f"{name} ({n})" for name, n in agreement.annotators.items())
    stdout().print(f"graded by {graders}", highlight=False, soft_wrap=True, markup=False)
    if agreement.alpha is None:
        stdout().print(f"no alpha: {escape(agreement.undefined)}", highlight=False, soft_wrap=True)
    else:
        stdout().print(
            f"Krippendorff's alpha (ordinal) {agreement.alpha:.3f}, over {agreement.shared} of "
            f"{agreement.units} graded pairs",
            highlight=False,
            soft_wrap=True,
        )
    if not agreement.pairs:
        return
    rows = Table("annotators", "both graded", "same grade", "", box=None, pad_edge=False)
    for column in rows.columns[1:]:
        column.justify = "right"
    for pair in agreement.pairs:
        share = "" if pair.agreement is None else f"{pair.agreement:.0%}"
        names = escape(f"{pair.first}, {pair.second}")
        rows.add_row(names, str(pair.overlap), str(pair.same), share)
    stdout().print(rows)
