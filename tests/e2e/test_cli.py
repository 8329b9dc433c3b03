"""The command line as a user runs it: outputs, exit codes, one-line errors.

A process of its own has what only a process can show: that help loads nothing, one run for each
exit code (130 is in `test_index_durability.py`), a search, and what is read from the environment
before anything else. The others run in this process.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import secondglance
from tests.commands import ENVIRONMENT, Run, run
from tests.media import picture, write_clip, write_pictures

pytestmark = pytest.mark.usefixtures("one_embedder", "one_reranker", "cache")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scores that no other test has left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECONDGLANCE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    write_pictures(folder, 5)
    write_clip(folder / "clip.mp4", [20, 21])
    (folder / "notes.txt").write_text("A dog on a beach.")
    (folder / "broken.jpg").write_text("no picture")
    return folder


def run_process(*arguments: str | Path, stdin: str | None = None, **environment: str) -> Run:
    return subprocess.run(
        [sys.executable, "-m", "secondglance", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT, **environment},
        input=stdin,
        timeout=180,
    )


@pytest.fixture(scope="module")
def library(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("libraries") / "my.library"
    done = run("index", media, "--library", folder, "--preset", "starter", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["files"], report["indexed"], report["failed"]) == (8, 7, 1)
    assert [Path(error["path"]).name for error in report["errors"]] == ["broken.jpg"]
    assert "not indexed:" in done.stderr
    expected = [
        "files",
        "indexed",
        "unchanged",
        "moved",
        "removed",
        "failed",
        "segments",
        "seconds",
        "errors",
    ]
    assert set(expected) <= report.keys()
    return folder


def test_the_version_needs_no_command() -> None:
    done = run_process("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"secondglance {secondglance.__version__}\n"


def test_help_is_quick_and_has_examples() -> None:
    code = (
        "import json, sys, secondglance.cli.app as app\n"
        "from typer.testing import CliRunner\n"
        "shown = {}\n"
        "for each in app.app.registered_commands:\n"
        "    name = each.name or each.callback.__name__\n"
        "    done = CliRunner().invoke(app.app, [name, '--help'], prog_name='secondglance')\n"
        "    assert done.exit_code == 0, done.output\n"
        "    shown[name] = done.stdout\n"
        "heavy = {'torch', 'transformers', 'open_clip', 'pymilvus', 'faiss', 'PIL', 'sklearn',"
        " 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(json.dumps(shown))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    expected = (
        "index search explain rerank cover status duplicates evaluate judge serve migrate export "
        "import doctor models plan scenes"
    )
    assert list(shown) == expected.split()
    for command, text in shown.items():
        assert f"secondglance {command}" in text.split("Example:")[1]


def test_search_prints_a_table_with_both_scores_and_timings(library: Path) -> None:
    done = run("search", "a dog", "--library", library, "-k", "3")
    assert done.returncode == 0, done.stderr
    upper, lower = (line.split() for line in done.stdout.splitlines()[1:3])
    assert upper == ["recall", "recall", "word", "rerank"]
    assert lower == ["rank", "rank", "kind", "result", "score", "score", "score", "score"]
    assert re.search(
        r"3 results; load \d+ ms, embed \d+ ms, recall \d+ ms, rerank \d+ ms", done.stdout
    )


def test_search_as_json_has_the_fields_of_the_contract(library: Path) -> None:
    done = run_process("search", "a dog", "--library", library, "--json", "--kind", "video")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["query"] == {"text": "a dog"}
    [hit] = found["hits"]
    expected = (
        "rank id path kind start_s end_s score recall_score recall_rank lexical_score "
        "rerank_score error"
    )
    assert set(expected.split()) <= hit.keys()
    assert hit["kind"] == "video"
    assert hit["end_s"] - hit["start_s"] == 5
    assert 0 < hit["rerank_score"] < 1
    assert {"embed", "recall", "rerank", "total"} <= found["timings_ms"].keys()
    [warning] = found["warnings"]  # the starter models know no such clip
    assert warning.startswith("the second pass finds no match")


def test_words_are_searched_unless_told_otherwise(library: Path) -> None:
    common = ("search", "clip", "--library", library, "--json", "--no-rerank")
    hits = json.loads(run(*common).stdout)["hits"]
    [named] = [hit for hit in hits if hit["lexical_score"] is not None]
    assert named["path"].endswith("clip.mp4")
    assert named["lexical_score"] > 0
    hits = json.loads(run(*common, "--no-words").stdout)["hits"]
    assert hits
    assert all(hit["lexical_score"] is None for hit in hits)


def test_search_as_csv_and_to_files(library: Path, media: Path, tmp_path: Path) -> None:
    query = tmp_path / "query.png"
    picture(3).resize((60, 45)).save(query)
    common = ("search", "--image", query, "--library", library, "-k", "4", "--no-rerank")
    rows = list(csv.DictReader(io.StringIO(run(*common, "--format", "csv").stdout)))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert Path(rows[0]["path"]).name == "picture-0003.jpg"
    assert rows[0]["rerank_score"] == ""
    out = tmp_path / "new" / "results.html"
    done = run(*common, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    page = out.read_text("utf-8")
    # The query, four results, and two moments of the clip.
    assert page.count("data:image/jpeg;base64,") == 7
    assert "picture-0003.jpg" in page
    assert not re.search(r'(src|href)="https?:', page)


def test_a_file_name_cannot_inject_markup(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    picture(1).save(media / "<script>alert(1)<￿[red].png".replace("\uffff", ""))
    library, out = tmp_path / "library", tmp_path / "page.html"
    run("index", media, "--library", library, "--preset", "starter")
    done = run("search", "[bold]x", "--library", library)
    assert "<script>alert(1)<[red].png" in done.stdout
    assert '"[bold]x"' in done.stdout
    run("search", "<b>x</b>", "--library", library, "--out", out)
    assert out.read_text("utf-8").count("<script") == 1  # the page's own
    assert "<script>alert" not in out.read_text("utf-8")
    assert "<b>x" not in out.read_text("utf-8")


def test_not_and_filter_and_moments(library: Path) -> None:
    done = run("search", "a", "--not", "b", "--library", library, "--json", "--moments",
        "--filter", 'name == "clip.mp4"', "--no-rerank",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert [hit["path"].endswith("clip.mp4") for hit in found["hits"]] == [True, True]
    assert found["query"]["not_text"] == "b"


def test_a_command_that_there_is_not() -> None:
    done = run_process("frobnicate")
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["search", "x", "--library", "NOWHERE"], 1, "error: there is no library in"),
        (["search", "--library", "LIBRARY"], 1, "error: the query is empty"),
        (["search", "x", "--library", "LIBRARY", "--filter", "size >"], 1, "error:"),
        (["search", "x", "--library", "LIBRARY", "--kind", "sound"], 2, "sound"),
        (["search", "x"], 2, "--library"),
        (["index", "NOWHERE", "--library", "NEW", "--preset", "starter"], 1, "no file or folder"),
        (["index", "MEDIA", "--library", "NEW", "--preset", "big"], 1, "unknown preset 'big'"),
        (["index", "MEDIA", "--library", "NEW", "--set", "recall.modle=x"], 1, "recall.model"),
        (["index", "MEDIA", "--library", "LIBRARY", "--preset", "laptop"], 1, "ViT-B-32-SigLIP2"),
        (["status", "--library", "LIBRARY", "--set", "recall.model=x"], 1, "was made with"),
        (["index", "MEDIA", "--library", "LIBRARY", "--keep-old"], 2, "--keep-old"),
        (["index", "--library", "LIBRARY"], 2, "name a folder or a file"),
        (["index", "--library", "LIBRARY", "--preset", "laptop", "--watch"], 2, "--watch"),
        (["index", "MEDIA", "--library", "/proc/none", "--preset", "starter"], 1, "cannot make"),
        (["search", "x", "--image", "NOWHERE", "--library", "LIBRARY"], 1, "no query file"),
        (["status", "--library", "NOWHERE"], 1, "there is no library"),
        (["rerank", "--query", "x", "--documents", "NOWHERE"], 1, "cannot read the candidates"),
        (["cover", "NOWHERE", "--out", "NEW"], 1, "there is no video"),
        (["cover", "MEDIA/notes.txt", "--out", "NEW"], 1, "cannot use the video"),
        (["cover", "MEDIA/clip.mp4"], 2, "--out"),
        (["cover", "MEDIA/clip.mp4", "--out", "NEW", "-n", "0"], 2, "-n"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(
    library: Path,
    media: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    places = {
        "LIBRARY": library,
        "MEDIA": media,
        "NEW": tmp_path / "new",
        "NOWHERE": tmp_path / "nowhere",
    }
    named = (re.sub("^[A-Z]{3,}", lambda m: str(places[m.group()]), a) for a in arguments)
    done = run(*named)
    assert done.returncode == code, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    if code == 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert len(errors) == 1


def test_a_store_that_is_down_is_one_clear_error(media: Path, tmp_path: Path) -> None:
    done = run("index", media, "--library", tmp_path / "l", "--preset", "starter",
        "--set", "store.uri=http://127.0.0.1:9", "--set", "store.timeout_s=2",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "http://127.0.0.1:9" in done.stderr
    assert "try:" in done.stderr


def test_a_model_that_cannot_be_fetched_says_how_to_go_on(media: Path, tmp_path: Path) -> None:
    done = run_process("index", media, "--library", tmp_path / "l", "--preset", "starter",
        "--set", "recall.model=someone/no-such-clip",
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot fetch the CLIP model someone/no-such-clip" in done.stderr
    assert "local open-clip folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_preset_and_without_a_hub_the_starter_is_taken_with_a_warning(
    media: Path, tmp_path: Path
) -> None:
    made = tmp_path / "l"
    done = run_process("index", media / "notes.txt", "--library", made, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "warning: the models of the preset 'laptop' are not on this machine" in done.stderr
    assert json.loads((made / "library.json").read_text())["preset"] == "starter"


def test_status_shows_files_models_and_failures(library: Path, media: Path) -> None:
    found = json.loads(run("status", "--library", library, "--json").stdout)
    assert found["counts"]["image"] == 5
    assert found["counts"]["video"] == found["counts"]["text"] == 1
    assert found["vectors"] == found["counts"]["records"] == 8
    root = {"path": str(media), "present": True, "absence": None, "files": 8}
    assert found["roots"] == [root]
    assert Path(found["failures"][0]["path"]).name == "broken.jpg"
    shown = run("status", "--library", library).stdout
    assert "broken.jpg" in shown
    assert "8 vectors" in shown


def test_rerank_orders_candidates_of_ones_own(media: Path) -> None:
    rows: list[object] = [
        "a dog",
        {"id": "cat", "text": "a cat"},
        {"image": "picture-0001.jpg", "text": "a picture"},
        {"video": "clip.mp4"},
        {"image": "missing.jpg"},
    ]
    documents = media / "candidates.jsonl.txt"
    documents.write_text("\n".join(json.dumps(row) for row in rows))
    common = ("rerank", "--query", "a dog", "--preset", "starter")
    done = run(*common, "--documents", documents, "--json")
    documents.unlink()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"] == "builtin:starter"  # not where it lies
    found = told["results"]
    assert sorted(row["index"] for row in found) == [0, 1, 2, 3, 4]
    scores = [row["score"] for row in found[:-1]]
    assert scores == sorted(scores, reverse=True)
    assert found[-1]["index"] == 4
    assert "missing.jpg" in found[-1]["error"]
    assert {row["id"] for row in found} >= {"cat", "0"}
    piped = run(*common, "--documents", "-", stdin='"a dog"\n"a cat"\n')
    assert piped.returncode == 0, piped.stderr
    assert "2 candidates" in piped.stdout
    bad = run(*common, "--documents", "-", stdin='{"txt": "a"}\n')
    assert bad.returncode == 1
    assert "unknown keys ['txt']" in bad.stderr


def test_cover_writes_pictures_and_tells_of_them(media: Path, tmp_path: Path) -> None:
    common = ("cover", media / "clip.mp4", "-n", "2")
    done = run(
        *common,
        "--title",
        "a dog",
        "--out",
        tmp_path / "a b",
        "--preset",
        "starter",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"video", "title", "covers", "warnings"}
    assert (found["video"], found["title"]) == (str(media / "clip.mp4"), "a dog")
    expected = {"rank", "path", "time_s", "score", "rerank_score", "sharpness", "brightness"}
    assert all(expected <= cover.keys() for cover in found["covers"])
    assert sorted(cover["path"] for cover in found["covers"]) == sorted(
        map(str, (tmp_path / "a b").iterdir())
    )
    assert all(0 <= cover["rerank_score"] <= 1 for cover in found["covers"])
    done = run(*common, "--out", tmp_path / "png", "--image-format", "png")
    assert done.returncode == 0, done.stderr
    header, first, second = (line.split() for line in done.stdout.splitlines())
    assert header[:2] == ["rank", "time"]
    assert header[-3:] == ["sharpness", "brightness", "picture"]
    assert (first[0], second[0]) == ("1", "2")
    assert Path(first[-1]).read_bytes().startswith(b"\x89PNG")


def test_doctor_names_what_is_missing_and_what_to_do() -> None:
    done = run("doctor", "--preset", "starter", "--json")
    assert done.returncode == 0, done.stdout
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert found["recall model"]["state"] == "note"
    assert "trained on generated scenes" in found["recall model"]["detail"]
    assert {"software", "disk", "GPU", "attention", "pictures", "video", "store"} <= found.keys()
    done = run("doctor", "--preset", "cluster", "--set", "store.uri=http://127.0.0.1:9")
    assert done.returncode == 1
    assert "no Milvus at http://127.0.0.1:9" in done.stdout
    assert "HF_ENDPOINT=MIRROR" in done.stdout


def test_models_lists_every_preset() -> None:
    found = json.loads(run("models", "--json").stdout)
    assert {row["preset"] for row in found} == {"starter", "laptop", "gpu", "cluster"}
    assert all(row["present"] for row in found if row["preset"] == "starter")


def test_a_library_moves_is_exported_and_imported_again(
    library: Path, media: Path, tmp_path: Path
) -> None:
    moved, out, again = tmp_path / "moved", tmp_path / "out", tmp_path / "again"
    done = run("migrate", "--library", library, "--to", "faiss", "--new-library", moved, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["records"], report["recall"], report["library"]) == (8, 1.0, str(moved))
    done = run("export", "--library", moved, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["records"] == 8
    done = run("import", out, "--library", again, "--preset", "starter", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["files"], report["failed"], report["errors"]) == (7, 0, [])
    assert report["median_cosine"] > 0.999
    done = run("index", media, "--library", again, "--json")
    report = json.loads(done.stdout)
    assert (report["unchanged"], report["indexed"]) == (7, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["migrate", "--library", "LIBRARY", "--to", "oracle"], 1, "'oracle' is no store"),
        (["migrate", "--library", "LIBRARY"], 2, "--to"),
        (["export", "--library", "LIBRARY", "--out", "MEDIA"], 1, "holds other files already"),
        (["import", "NOWHERE", "--library", "LIBRARY"], 1, "no file or folder"),
        (["import", "MEDIA", "--library", "NEW"], 1, "holds no embeddings"),
    ],
)
def test_mistakes_of_moving(
    library: Path,
    media: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    expected: str,
) -> None:
    test_mistakes_get_one_line_and_an_exit_code(library, media, tmp_path, arguments, code, expected)
    assert not (tmp_path / "new").exists()
