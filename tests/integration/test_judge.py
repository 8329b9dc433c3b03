"""Pools of a real library, and the command on it."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.errors import InputError
from secondglance.evaluation.types import EvaluationQuery
from secondglance.library import Library
from secondglance.pipelines.judge import Pool, PoolSystem
from secondglance.types import Query
from tests.libraries import Open
from tests.media import write_clip, write_pictures


def asked(id_: str, text: str = "", image: Path | None = None) -> EvaluationQuery:
    return EvaluationQuery(id=id_, query=Query(text=text, image=image), kind="text")


def names(pool: Pool, query: int = 0) -> list[str]:
    return [document.document for document in pool.queries[query].documents]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    first, *_ = write_pictures(folder / "photos", 3)
    (folder / "copies").mkdir()
    shutil.copy(first, folder / "copies" / "other.jpg")
    write_clip(folder / "clip.mp4", [20])
    (folder / "notes.txt").write_text("A dog on a beach.\n\n" + "Words about a harbour. " * 30)
    return folder


@pytest.fixture(scope="module")
def library(
    tmp_path_factory: pytest.TempPathFactory,
    folder: Path,
    untrained_clip: Path,
    untrained_reranker: Path,
) -> Iterator[Library]:
    opener = Open(tmp_path_factory.mktemp("libraries"), untrained_clip, untrained_reranker)
    library = opener()
    library.index([folder])
    yield library
    opener.close()


def found(library: Library, query: str, k: int, words: bool, rerank: bool) -> set[str]:
    result = library.search(query, k=k, words=words, rerank=rerank, group_duplicates=False)
    return {hit.path for hit in result.hits}


def test_a_pool_is_the_union_of_the_systems(library: Library) -> None:
    query = "harbour beach dog picture-0002"
    by_vectors = found(library, query, 2, words=False, rerank=False)
    by_both = found(library, query, 2, words=True, rerank=False)
    by_all = found(library, query, 2, words=True, rerank=True)
    assert by_vectors != by_both
    systems: dict[PoolSystem, set[str]] = {
        "clip": by_vectors, "clip+bm25": by_both, "fusion": by_all
    }  # fmt: skip
    for system, paths in systems.items():
        pool = library.pool([asked("q", query)], systems=[system], depth=2)
        assert {str(document.path) for document in pool.queries[0].documents} == paths
    pool = library.pool([asked("q", query)], depth=2)
    assert {str(document.path) for document in pool.queries[0].documents} == (
        by_vectors | by_both | by_all
    )


def test_the_order_is_the_same_every_time_and_no_systems(library: Library) -> None:
    queries = [asked(f"q{n}", "a dog on a beach") for n in range(4)]
    pool = library.pool(queries, systems=["clip"])
    assert pool == library.pool(queries, systems=["clip"])
    # The same results in another order for each query: not that of the system.
    assert len({tuple(names(pool, n)) for n in range(4)}) > 1
    assert len({frozenset(names(pool, n)) for n in range(4)}) == 1
    fewer = names(library.pool(queries, systems=["clip"], depth=3))
    assert fewer == [name for name in names(pool) if name in fewer]


def test_copies_are_judged_once_under_their_first_name(library: Library) -> None:
    listed = names(library.pool([asked("q", "a dog")], depth=50))
    assert "copies/other.jpg" in listed
    assert "photos/picture-0000.jpg" not in listed
    assert sorted(listed) == sorted(set(listed))
    assert {"clip.mp4", "notes.txt", "photos/picture-0001.jpg"} < set(listed)


def test_names_that_two_folders_share_are_whole_paths(open_library: Open, tmp_path: Path) -> None:
    for root, first in (("a", 0), ("b", 5)):
        (path,) = write_pictures(tmp_path / root, 1, first=first)
        path.rename(tmp_path / root / "same.jpg")
    write_pictures(tmp_path / "b", 1, first=7)
    library = open_library()
    library.index([tmp_path / "a", tmp_path / "b"])
    listed = names(library.pool([asked("q", "a dog")]))
    whole = [str(tmp_path / root / "same.jpg") for root in ("a", "b")]
    assert sorted(listed) == sorted([*whole, "picture-0007.jpg"])
    assert library.unknown_documents([*listed, "gone.jpg"]) == ["gone.jpg"]


def test_what_cannot_be_judged_is_counted_and_named(
    library: Library, folder: Path, tmp_path: Path
) -> None:
    away = folder / "photos" / "picture-0002.jpg"
    bad = asked("bad", image=folder / "nothing.jpg")
    away.rename(tmp_path / "away.jpg")
    try:
        pool = library.pool([asked("q", "a dog"), bad], depth=50)
    finally:
        (tmp_path / "away.jpg").rename(away)
    assert [pooled.query.id for pooled in pool.queries] == ["q"]
    said = "\n".join(pool.warnings)
    assert "1 queries cannot be asked and are left out: bad: there is no query file" in said
    assert "1 documents are not there now and cannot be judged: photos/picture-0002.jpg" in said
    with pytest.raises(InputError, match="none of 1 queries has anything to judge"):
        library.pool([bad])


@pytest.mark.parametrize(
    ("systems", "depth", "problem"),
    [(["clip", "best"], 10, "unknown systems best"), ([], 10, "no system"), (["clip"], 0, "depth")],
)
def test_unknown_systems_and_depths_are_refused(
    library: Library, systems: list[PoolSystem], depth: int, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        library.pool([asked("q", "a dog")], systems=systems, depth=depth)


def test_the_command_from_page_to_qrels(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, out = tmp_path / "queries.jsonl", tmp_path / "out"
    queries.write_text('{"id": "q", "text": "a dog"}\n')
    arguments = ("judge", "--library", library.folder, "--queries", queries, "--out", out)
    options = ("--annotator", "ann", "--systems", "clip", "--depth", "50")
    urls: list[str] = []
    graded: list[str] = []

    def annotate(url: str) -> None:
        base, token = url.split("/?token=")
        try:
            with httpx.Client(base_url=base, params={"token": token}, trust_env=False) as page:
                for number, grade in enumerate((3, 0)):
                    page.post(f"/tasks/{number}", json={"mark": "grade", "grade": grade})
                graded.append(page.get("/tasks/0").json()["document"]["name"])
        finally:
            signal.raise_signal(signal.SIGINT)  # Ctrl-C; the main thread takes it

    annotator = ThreadPoolExecutor(1)

    def browse(url: str) -> bool:
        urls.append(url)
        annotator.submit(annotate, url)
        return True

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("webbrowser.open", browse)
    done = CliRunner().invoke(app, [*map(str, (*arguments, *options))])
    annotator.shutdown()
    assert done.exit_code == 0, done.output
    stdout, [url], [document] = done.stdout, urls, graded
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S{32}", url)
    assert url in done.stderr.splitlines()
    assert "2 of 5 graded" in stdout
    assert f"secondglance evaluate --library {library.folder}" in stdout
    assert f"q 0 {document} 3\n" in (out / "judgments.ann.qrels").read_text()
    in_terminal = [*map(str, (*arguments, *options)), "--terminal", "--json"]
    answered = CliRunner().invoke(app, in_terminal, input="2\n")
    assert answered.exit_code == 0
    assert json.loads(answered.stdout)["graded"] == 3
    assert len((out / "judgments.ann.qrels").read_text().splitlines()) == 3
