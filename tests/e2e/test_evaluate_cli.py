"""`secondglance evaluate` as a user runs it: files, tables, exit codes, one-line errors.

All run in this process, where torch is imported once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from secondglance.cli import console
from secondglance.cli.app import app
from secondglance.errors import SecondGlanceError
from secondglance.evaluation.trec import read_run
from secondglance.library import Library
from tests.commands import run as run_main
from tests.media import write_pictures

QUICK = {"store": {"backend": "exact"}, "ingest": {"workers": 1}}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A terminal of 200 columns."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    consoles = (console.stdout, console.stderr)
    for each in consoles:
        each.cache_clear()
    yield
    for each in consoles:
        each.cache_clear()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of four pictures, queries and judgments."""
    base = tmp_path_factory.mktemp("evaluate")
    write_pictures(base / "media", 4)
    with Library.open(base / "lib", preset="starter", settings=QUICK) as library:
        assert library.index([base / "media"]).indexed == 4
    rows = [
        {"id": "q1", "text": "a red circle", "language": "en"},
        {"id": "q2", "image": "media/picture-0002.jpg"},
    ]
    (base / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (base / "qrels.txt").write_text("q1 0 picture-0001.jpg 1\nq2 0 picture-0002.jpg 2\n")
    captions = [f"picture-000{n}.jpg,caption number {n} of the four\n" for n in range(4)]
    (base / "captions.csv").write_text("file,caption\n" + "".join(captions))
    return base


def test_an_evaluation_is_a_table_and_files(folder: Path) -> None:
    judged = ("--queries", folder / "queries.jsonl", "--qrels", folder / "qrels.txt")
    out = folder / "out"
    done = run(
        "evaluate", "-L", folder / "lib", *judged, "--out", out,
        "--systems", "clip,rerank", "--budgets-ms", "50", "--budget-queries", "1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "rerank" in done.stdout
    assert "nDCG@10" in done.stdout
    assert f"written: {out / 'report.html'}" in done.stderr
    for name in ("report.html", "evaluation.json", "summary.csv", "runs/clip.trec"):
        assert (out / name).stat().st_size > 0, name
    replayed, _ = read_run(out / "runs" / "clip.trec")
    assert max(replayed["q2"], key=replayed["q2"].__getitem__) == "picture-0002.jpg"
    again = run(
        "evaluate", "-L", folder / "lib", *judged, "--out", out, "--no-curves",
        "--systems", f"clip,rerank,replay:{out / 'runs' / 'rerank.trec'}", "--json",
        "--measures", "Hit@1",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    assert found["queries"] == 2
    means = {name: each["Hit@1"]["mean"] for name, each in found["systems"].items()}
    assert list(means) == ["clip", "rerank", "replay:rerank"]
    assert means["replay:rerank"] == means["rerank"]


def test_captions_become_queries(folder: Path) -> None:
    done = run(
        "evaluate", "-L", folder / "lib", "--captions", folder / "captions.csv",
        "--out", folder / "told", "--systems", "clip", "--no-curves", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries"] == 4


def test_a_dataset_is_named_and_its_protocol_minded(folder: Path) -> None:
    media = folder / "media"
    (media / "test_image_names.txt").write_text("picture-0000.jpg\npicture-0002.jpg\n")
    (media / "test_1kcaptions_de.txt").write_text("ein roter Kreis\nein blaues Feld\n")
    done = run(
        "evaluate", "-L", folder / "lib", "--dataset", "xtd", "--dataset-folder", media,
        "--languages", "de", "--out", folder / "xtd", "--systems", "clip", "--no-curves", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["queries"] == 2
    assert "the library holds 4 files and the protocol of xtd test has 2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either --queries with --qrels, or --captions"),
        (("--queries", "queries.jsonl"), "--qrels is missing"),
        (("--queries", "nowhere.jsonl", "--qrels", "qrels.txt"), "nowhere.jsonl"),
        (("--queries", "queries.jsonl", "--qrels", "qrels.txt", "--systems", "clop"), "clop"),
        (("--dataset", "flickr30k"), "--dataset-folder"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    given = [folder / each if each.endswith((".jsonl", ".txt")) else each for each in arguments]
    done = run("evaluate", "-L", folder / "lib", "--out", folder / "no", *given)
    assert isinstance(done.exception, SecondGlanceError)
    assert said in f"{done.exception.problem} {done.exception.remedy}"
    assert not (folder / "no").exists()


def test_an_error_is_one_line_and_exit_1(folder: Path) -> None:
    done = run_main("evaluate", "-L", folder / "lib", "--out", folder / "no")
    assert done.returncode == 1
    assert "either --queries with --qrels, or --captions" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "no").exists()
