"""The main job, shown: generate a media library, index it, search it, and measure both passes.

The media are scenes that the models have never seen: their combinations of objects are kept out
of training. Models are those of the preset `starter`, which come with the package.

    python tools/demo.py --out demo-output
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scene_search import (
    Outcome,
    Question,
    answers,
    measure,
    media_search,
    questions,
    word_search,
)

console = Console(highlight=False)
SHOWN = 5
SHEET = 12
MEASURED = 60
"""Queries of the table; a second pass takes one to two seconds for each on two cores."""


def run(*arguments: str | Path) -> None:
    """Shows a command and runs it."""
    words = [str(argument) for argument in arguments]
    shown = " ".join(f'"{word}"' if " " in word or not word else word for word in words)
    console.print(f"\n[bold]$ secondglance {shown}[/]", soft_wrap=True)
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "secondglance", *words], check=True)


def first(asked: Sequence[Question], medium: str, language: str, place: int = 0) -> Question:
    """A question to show."""
    return [q for q in asked if q.medium == medium and q.language == language][place]


def show_searches(media: Path, library: Path, out: Path, asked: Sequence[Question]) -> None:
    """A handful of searches, as a user would type them."""
    for question in (
        first(asked, "picture", "en"),
        first(asked, "picture", "zh", 1),
        first(asked, "clip", "en"),
        first(asked, "clip", "zh", 1),
        first(asked, "text", "en"),
    ):
        run("search", question.text, "--library", library, "-k", str(SHOWN))
    by_image = first(asked, "picture", "")
    run("search", "--image", media / by_image.image, "--library", library, "-k", str(SHOWN))
    words = first(asked, "picture", "en").text
    both, one = out / "results.html", out / "first-pass.html"
    run("search", words, "--library", library, "-k", str(SHEET), "--out", both)
    run("search", words, "--library", library, "-k", str(SHEET), "--no-rerank", "--out", one)


def table(outcomes: Sequence[Outcome], asked: Sequence[Question]) -> Table:
    """Systems against measures."""
    rows = Table(
        "system", "nDCG@5", "Hit@1", "median ms", title=f"{len(asked)} queries", box=None,
        pad_edge=False, title_justify="left",
    )  # fmt: skip
    for outcome in outcomes:
        gain, low, high = outcome.mean("nDCG@5", asked)
        hit, hit_low, hit_high = outcome.mean("Success@1", asked)
        rows.add_row(
            outcome.system,
            f"{gain:.3f} ({low:.3f}-{high:.3f})",
            f"{hit:.3f} ({hit_low:.3f}-{hit_high:.3f})",
            f"{outcome.median_ms(asked):.0f}",
        )
    return rows


def compare(media: Path, library: Path, out: Path, asked: Sequence[Question]) -> None:
    """Prints what each pass finds over all queries."""
    from secondglance import Library

    # What was asked above must not answer for free.
    anew = {"rerank": {"score_cache_mb": 0}}
    with (
        Library.open(library, create=False, settings=anew) as opened,
        Progress(transient=True) as bar,
    ):
        systems = {
            "BM25 on descriptions": word_search(media),
            "CLIP": media_search(media, opened, rerank=False),
            "CLIP + reranker": media_search(media, opened, rerank=True),
        }
        task = bar.add_task("measuring", total=len(asked) * len(systems))
        outcomes = measure(systems, asked, answers(media), progress=lambda: bar.advance(task))
    console.print()
    console.print(table(outcomes, asked))
    figures = {
        o.system: {
            "nDCG@5": o.mean("nDCG@5", asked),
            "Hit@1": o.mean("Success@1", asked),
            "median_ms": o.median_ms(asked),
        }
        for o in outcomes
    }
    (out / "measures.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    out: Path = parser.parse_args().out
    media, library = out / "media", out / "library"
    shutil.rmtree(out, ignore_errors=True)

    run("scenes", media, "--pictures", "300", "--clips", "40", "--texts", "40")
    folders = [media / name for name in ("pictures", "clips", "texts")]
    run("index", *folders, "--library", library, "--preset", "starter")
    asked = questions(media)
    show_searches(media, library, out, asked)
    run("status", "--library", library)
    step = max(1, len(asked) // MEASURED)
    compare(media, library, out, asked[::step][:MEASURED])
    console.print(
        f"\nOpen [bold]{out / 'results.html'}[/] and [bold]{out / 'first-pass.html'}[/] in a "
        "browser to see the same query after both passes and after the first.\n"
        "Intervals are 95 %. Every target stands among five near-misses that differ from it in "
        "one fact.\nThe starter models know such scenes and little else: for photographs make a "
        "library with --preset laptop (or gpu).",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
