"""`secondglance evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secondglance.cli.console import Stages, overrides, progress_bar, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption, listed
from secondglance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.progress import Progress as Bar

    from secondglance.evaluation.datasets import Dataset
    from secondglance.evaluation.types import Evaluation, EvaluationQuery, Qrels
    from secondglance.library import Library
    from secondglance.pipelines.evaluate_run import EvaluateOptions, OnProgress, Progress


def evaluate(
    library: LibraryOption,
    out: Annotated[Path, typer.Option(help="Folder for the report, figures and runs.")],
    queries: Annotated[
        Path | None, typer.Option(help="JSON Lines with id and text, image or video.")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="Judgments in TREC's format.")] = None,
    captions: Annotated[
        Path | None,
        typer.Option(help="Instead: a manifest of captions, one of each file held out as query."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Instead: a standard dataset, such as flickr30k.")
    ] = None,
    dataset_folder: Annotated[Path | None, typer.Option(help="Where the dataset lies.")] = None,
    split: Annotated[str, typer.Option(help="Of the dataset: test, full, 1k-1, ...")] = "test",
    languages: Annotated[
        str, typer.Option(help="Of the dataset's captions, commas between; left out: all.")
    ] = "",
    direction: Annotated[
        str, typer.Option(help="Of the dataset: text-to-media or image-to-text.")
    ] = "text-to-media",
    systems: Annotated[
        str,
        typer.Option(
            help="Commas between. rerank@MODEL takes another reranker, a preset or a folder; "
            "replay:FILE a TREC run."
        ),
    ] = "bm25,clip,clip+bm25,rerank,fusion",
    measures: Annotated[
        str | None, typer.Option(help="Commas between; such as nDCG@10,Recall@10,Hit@1,MRR,MAP.")
    ] = None,
    depth: Annotated[int, typer.Option(help="Documents of a ranking.", min=1)] = 100,
    recall: Annotated[
        int | None, typer.Option(help="Candidates for the second pass.", min=1)
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The system to compare with; left out: clip.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Evaluate so many queries, spread over all.", min=1)
    ] = None,
    fit: Annotated[
        bool,
        typer.Option("--fit", help="Learn fusion and cut-off from the judgments, for searches."),
    ] = False,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Quality against depth and time.")
    ] = True,
    budgets_ms: Annotated[
        str | None, typer.Option(help="Milliseconds of the curve, with commas between.")
    ] = None,
    budget_queries: Annotated[
        int | None, typer.Option(help="Queries that are run again within each budget.", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON on stdout.")] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Measure on judged queries what the first pass finds and what the second one gains.

    Give --queries with --qrels, or --captions, or --dataset with --dataset-folder. Scores are kept
    as they come: after Ctrl-C, the same command goes on from there.
    """
    import json

    from secondglance.evaluation import report
    from secondglance.evaluation.metrics import DEFAULT_MEASURES
    from secondglance.evaluation.tables import summary_table
    from secondglance.library import Library

    chosen = dataset and _dataset(
        dataset, dataset_folder, split=split, languages=listed(languages), direction=direction
    )
    asked, judged, warnings = _read(queries, qrels, captions, chosen or None)
    warn(warnings)
    options: EvaluateOptions = {
        "systems": listed(systems),
        "depth": depth,
        "recall": recall,
        "baseline": baseline,
        "limit": limit,
        "fit": fit,
        "curves": curves,
        # A library may hold a part of what a manifest names.
        "unknown": "missed" if captions is None else "dropped",
    }
    if measures is not None:
        options["measures"] = listed(measures)
    elif chosen:
        options["measures"] = tuple(dict.fromkeys((*DEFAULT_MEASURES, *chosen.measures)))
    if budgets_ms is not None:
        options["budgets_ms"] = _numbers(budgets_ms)
    if budget_queries is not None:
        options["budget_queries"] = budget_queries
    settings = overrides(set_ or ())
    with Library.open(library, config=config, create=False, settings=settings) as opened:
        if chosen:
            warn(_beside(opened, chosen))
        try:
            with progress_bar() as bar:
                options["on_progress"] = _reporter(bar)
                found = opened.evaluate(asked, judged, **options)
        except KeyboardInterrupt:
            stderr().print(
                "interrupted; the scores so far are kept: run the same command again to go on"
            )
            raise
    warn(found.warnings)
    written = report.write_report(found, out)
    for path in written[:SHOWN_FILES]:
        stderr().print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)
    if len(written) > SHOWN_FILES:
        stderr().print(f"... and {len(written) - SHOWN_FILES} more files in {out}", markup=False)
    if as_json:
        write(json.dumps(_summary(found, written), ensure_ascii=False), None)
        return
    stdout().print(summary_table(found))
    for line in (found.fit or {}).get("lines", ()):
        stdout().print(line, markup=False, highlight=False, soft_wrap=True)


SHOWN_FILES = 5


def _dataset(
    name: str, folder: Path | None, *, split: str, languages: Sequence[str], direction: str
) -> Dataset:
    from secondglance.evaluation.datasets import load

    if folder is None:
        raise InputError(f"where {name} lies is not said", remedy="name --dataset-folder")
    return load(name, folder, split=split, languages=languages, direction=direction)


def _beside(opened: Library, dataset: Dataset) -> list[str]:
    """A warning where the library is not what the dataset's protocol searches."""
    counts = opened.status()["counts"]
    held = sum(counts.get(kind, 0) for kind in ("image", "video", "text"))
    if held == dataset.size:
        return []
    return [
        f"the library holds {held} files and the protocol of {dataset.name} {dataset.split} has "
        f"{dataset.size}: figures cannot be compared with published ones "
        f"({dataset.protocol})"
    ]


def _read(
    queries: Path | None, qrels: Path | None, captions: Path | None, dataset: Dataset | None
) -> tuple[Sequence[EvaluationQuery], Qrels, Sequence[str]]:
    """The queries, the judgments, and warnings about them."""
    ways = [bool(queries or qrels), captions is not None, dataset is not None]
    if sum(ways) != 1:
        raise InputError(
            "it is not clear what is asked",
            remedy="give either --queries with --qrels, or --captions, or --dataset with "
            "--dataset-folder",
        )
    if captions is not None:
        from secondglance.evaluation.captions import caption_queries

        return caption_queries(captions)
    if dataset is not None:
        return dataset.queries, dataset.qrels, ()
    if queries is None or qrels is None:
        missing = "--queries" if queries is None else "--qrels"
        raise InputError(f"{missing} is missing", remedy="give both --queries and --qrels")
    from secondglance.evaluation.judgments import read_qrels, read_queries

    asked, warnings = read_queries(queries)
    judged, more = read_qrels(qrels)
    return asked, judged, [*warnings, *more]


def _numbers(written: str) -> list[float]:
    try:
        return [float(number) for number in written.split(",")]
    except ValueError:
        raise InputError(
            f"--budgets-ms {written!r} is no list of numbers", remedy="such as 50,200,1000"
        ) from None


def _summary(found: Evaluation, written: Sequence[Path]) -> Mapping[str, object]:
    """The figures over all queries, for programs; the rest is in evaluation.json."""
    from dataclasses import asdict

    return {
        "library": found.library,
        "queries": len(found.queries),
        "baseline": found.baseline,
        "systems": {
            system.name: {
                summary.measure: asdict(summary.value)
                for summary in found.summaries
                if summary.group == "all" and summary.system == system.name
            }
            for system in found.systems
        },
        "differences": [asdict(each) for each in found.differences if each.group == "all"],
        "ceiling": {str(depth): asdict(value) for depth, value in found.ceiling.items()},
        "fit": found.fit,
        "warnings": list(found.warnings),
        "files": [str(path) for path in written],
    }


STAGES = {
    "load": "loading the models",
    "recall": "finding candidates",
    "rerank": "second pass",
    "budgets": "within time budgets",
    "measure": "measuring",
}


def _reporter(bar: Bar) -> OnProgress:
    stages = Stages(bar, ("load", ""), STAGES["load"])

    def report(progress: Progress) -> None:
        text = STAGES[progress.stage] + (f" ({progress.what})" if progress.what else "")
        stage = progress.stage, progress.what
        stages.show(stage, text, done=progress.done, total=progress.total)

    return report
