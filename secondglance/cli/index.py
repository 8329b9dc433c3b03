"""`secondglance index`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer
from rich.markup import escape

from secondglance.cli.console import Stages, overrides, progress_bar, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, PresetOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress as Bar

    from secondglance.library import Library
    from secondglance.pipelines.index import Progress
    from secondglance.pipelines.opening import Said
    from secondglance.pipelines.removal import Confirm
    from secondglance.types import IndexReport

SHOWN_ERRORS = 20


def index(
    library: LibraryOption,
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH...", help="Folders and files to index.")
    ] = None,
    preset: PresetOption = None,
    workers: Annotated[
        int | None, typer.Option(help="Decode processes; left out: one a core.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove files elsewhere that are gone.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Let --prune remove more than 10 % unasked.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run on this library to end.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try unchanged files again that failed before.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep the library up to date until Ctrl-C.")
    ] = False,
    max_segment_s: Annotated[
        float | None,
        typer.Option(help="Longest segment of a video in seconds; longer shots are split."),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(help="Segments a second of a video, of equal length, instead of its shots."),
    ] = None,
    without_absent: Annotated[
        bool,
        typer.Option(
            "--without-absent",
            help="Another model: switch over though files are away or cannot be read.",
        ),
    ] = False,
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Another model: keep the vectors of the old one.")
    ] = False,
    discard: Annotated[
        bool,
        typer.Option(
            "--discard", help="Give up vectors of another model that are unfinished or were kept."
        ),
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="local or ray: on this machine, or on a Ray cluster.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="ray: host:port of the cluster, or auto; left out: Ray on this machine."),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Index images, videos and texts; run it again to bring the library up to date.

    Unchanged files are skipped, changed ones embedded again, and files that were deleted from the
    folders named are removed. A file that cannot be read is listed with its reason. What lies on
    a drive that is away is kept.

    With another model (--preset or --set recall.model=...) an existing library gets new vectors of
    all it holds beside the old ones, and switches over once they are complete; it is searched
    meanwhile, and PATH may be left out.
    """
    if engine not in (None, "local", "ray"):
        raise typer.BadParameter(f"{engine!r} is not local or ray", param_hint="--engine")
    if address is not None:
        if engine == "local":
            raise typer.BadParameter("goes with --engine ray", param_hint="--address")
        engine = "ray"
    if watch and (prune or retry_failed):
        raise typer.BadParameter(
            "goes with neither --prune nor --retry-failed", param_hint="--watch"
        )
    from secondglance.library import Library
    from secondglance.pipelines.opening import Said
    from secondglance.pipelines.removal import RemovalRefusedError

    settings = overrides(set_ or ())
    given = {
        "workers": workers,
        "max_segment_s": max_segment_s,
        "fps": fps,
        "engine": engine,
        "ray_address": address,
    }
    for name, value in given.items():
        if value is not None:
            settings.setdefault("ingest", {})[name] = value
    paths = paths or []
    said = Said(preset=preset, config=config and config.expanduser(), settings=settings)
    if _is_change(library, said, paths, discard=discard):
        for flag, is_set in (("--watch", watch), ("--prune", prune)):
            if is_set:
                raise typer.BadParameter("does not go with a change of the model", param_hint=flag)
        change = Change(without_absent=without_absent, keep_old=keep_old, discard=discard)
        _change(library, said, paths, change, wait=wait, as_json=as_json)
        return
    for flag, is_set in (("--without-absent", without_absent), ("--keep-old", keep_old)):
        if is_set:
            raise typer.BadParameter(
                "goes with --preset or --set recall.model=... of another model", param_hint=flag
            )
    if not paths and not prune:
        raise typer.BadParameter("name a folder or a file", param_hint="PATH...")
    opened = Library.open(library, preset=preset, config=config, settings=settings)
    with opened:
        warn(opened.warnings)
        if watch:
            _watch(opened, paths, as_json=as_json)
            return
        try:
            with _showing_interrupts(as_json=as_json), progress_bar(markup=True) as bar:
                report = opened.index(
                    paths,
                    prune=prune,
                    confirm=_confirm(bar, yes=yes),
                    wait=wait,
                    retry_failed=retry_failed,
                    on_progress=_reporter(bar),
                )
        except RemovalRefusedError as refusal:
            _show(refusal.report, as_json=as_json)
            raise
    _show(report, as_json=as_json)


@contextlib.contextmanager
def _showing_interrupts(*, as_json: bool) -> Iterator[None]:
    """Ctrl-C ends with what was done so far, and how to go on."""
    from secondglance.pipelines.index import IndexInterruptedError

    try:
        yield
    except IndexInterruptedError as interrupt:
        _show(interrupt.report, as_json=as_json)
        stderr().print("interrupted; run the same command again to go on from here")
        raise


class Change(TypedDict):
    """What a change of the model may be told; see `pipelines.beside.change_model`."""

    without_absent: bool
    keep_old: bool
    discard: bool


def _is_change(library: Path, said: Said, paths: list[Path], *, discard: bool) -> bool:
    """Whether a run is about another model of the first pass: changes to it, or gives it up."""
    from secondglance.pipelines.beside import names_other_model
    from secondglance.pipelines.opening import absolute
    from secondglance.pipelines.stamp import read_stamp

    if discard or names_other_model(library, said):
        return True
    # The same command again, after it was done: there is nothing to do.
    names_model = said.named is not None or "recall" in (said.settings or {})
    return not paths and names_model and read_stamp(absolute(library)) is not None


def _change(
    library: Path, said: Said, paths: list[Path], change: Change, *, wait: bool, as_json: bool
) -> None:
    from secondglance.library import Library

    names_model = said.named is not None or said.config is not None or said.settings
    with Library.open(library, create=False) as opened:
        if not paths and not names_model:
            given_up, problems = opened.discard()
            warn(problems)
            stdout().print(f"{given_up} sets of vectors given up", highlight=False)
            return
        with _showing_interrupts(as_json=as_json), progress_bar(markup=True) as bar:
            done = opened.change_model(
                paths,
                preset=said.preset,
                config=said.config,
                settings=said.settings,
                wait=wait,
                on_progress=_reporter(bar),
                on_warning=lambda warning: warn([warning]),
                **change,
            )
    if as_json:
        _show_problems(done.report)
        warn(done.warnings)
        write(json.dumps(done.to_dict(), ensure_ascii=False), None)
        return
    _show(done.report, as_json=False)
    warn(done.warnings)
    if done.model == done.before:
        stdout().print(f"the library has {done.model} already", highlight=False, soft_wrap=True)
        return
    stdout().print(
        f"the library has {done.model} now, instead of {done.before}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    if done.kept is not None:
        stdout().print(
            f"kept: {done.kept}; change back with: secondglance index --library {library} and the "
            "--preset or --set recall.model=... that it had",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def _watch(opened: Library, paths: list[Path], *, as_json: bool) -> None:
    """Reports every run that did something; Ctrl-C ends it, with the sum of all."""
    from secondglance.pipelines.index import IndexInterruptedError

    stderr().print("watching; Ctrl-C ends it", highlight=False)
    try:
        opened.watch(paths, on_report=lambda report: _show(report, as_json=as_json))
    except IndexInterruptedError as interrupt:
        report = interrupt.report
        stderr().print(
            f"watched: {report.indexed} indexed, {report.moved} moved, {report.removed} removed; "
            f"the library is up to date with the last run",
            highlight=False,
            soft_wrap=True,
        )
        raise


def _confirm(bar: Bar, *, yes: bool) -> Confirm | None:
    """Who is asked whether much may be removed: nobody where there is no terminal."""
    if yes:
        return lambda count, total: True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(count: int, total: int) -> bool:
        bar.stop()
        return typer.confirm(f"{count} of {total} indexed files are gone. Remove them?", err=True)

    return ask


STAGES = {
    "scan": "looking for files",
    "load": "loading the model",
    "embed": "embedding",
    "tidy": "tidying up",
    "describe": "reading metadata",
}


def _reporter(bar: Bar) -> Callable[[Progress], None]:
    stages = Stages(bar, "scan", STAGES["scan"])

    def report(progress: Progress) -> None:
        text = STAGES[progress.stage]
        if progress.failed:
            text += f" [yellow]({progress.failed} failed)[/]"
        stages.show(progress.stage, text, done=progress.done, total=progress.total)

    return report


def _show_problems(report: IndexReport) -> None:
    warn(report.warnings)
    shown = report.errors[:SHOWN_ERRORS]
    for failure in shown:
        stderr().print(
            f"[yellow]not indexed:[/] {escape(failure.path)}: {escape(failure.reason)}",
            highlight=False,
            soft_wrap=True,
        )
    if len(report.errors) > len(shown):
        rest = len(report.errors) - len(shown)
        stderr().print(f"... and {rest} more; see --json, or: secondglance status")


def _show(report: IndexReport, *, as_json: bool) -> None:
    _show_problems(report)
    if as_json:
        write(json.dumps(report.to_dict(), ensure_ascii=False), None)
        return
    parts = [f"{report.files} files: {report.indexed} indexed ({report.segments} segments)"]
    parts += [
        f"{count} {name}"
        for name, count in (
            ("unchanged", report.unchanged),
            ("described again", report.described),
            ("moved", report.moved),
            ("removed", report.removed),
            ("kept though absent", report.absent),
            ("failed", report.failed),
        )
        if count
    ]
    stdout().print(", ".join(parts) + f" in {report.seconds:.1f} s", highlight=False)
