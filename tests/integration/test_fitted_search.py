"""Search with a fit: probabilities, their cut-off, and that nothing matches."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.errors import InputError, LibraryError
from secondglance.evaluation.signals import Signals
from secondglance.library import Library
from secondglance.pipelines import fitting, render
from secondglance.types import Query, SearchResult
from tests.media import write_pictures

WORDS = (
    "anchor", "balloon", "castle", "dolphin", "engine", "feather", "guitar", "hammer",
    "island", "jacket", "kettle", "lantern", "mountain", "necklace", "orchard", "piano",
    "quilt", "rocket", "saddle", "tractor", "umbrella", "violin", "windmill", "zebra",
)  # fmt: skip
PICTURES = len(WORDS)
SHOWN = 5
"""Candidates of the searches below: the second pass takes its time."""


def signals_of(
    library: Library, root: Path, queries: dict[str, str], qrels: dict[str, dict[str, int]]
) -> dict[str, Signals]:
    """What the first pass says of its candidates, and a second pass that is often right."""
    rng = random.Random(0)
    found = {}
    for name, text in queries.items():
        hits = library.search(text, k=PICTURES, rerank=False).hits
        documents = [Path(hit.path).relative_to(root).as_posix() for hit in hits]
        by_cosine = sorted(hits, key=lambda hit: -hit.recall_score)
        found[name] = Signals(
            documents=tuple(documents),
            cosine=tuple(hit.recall_score for hit in hits),
            recall_rank=tuple(by_cosine.index(hit) + 1 for hit in hits),
            lexical_score=tuple(hit.lexical_score for hit in hits),
            fused=tuple(hit.score for hit in hits),
            fused_rank=tuple(hit.recall_rank for hit in hits),
            rerank_score=tuple(
                rng.betavariate(8, 2) if qrels[name].get(d) else rng.betavariate(2, 6)
                for d in documents
            ),
        )
    return found


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, one_embedder: None, one_reranker: None
) -> tuple[Path, dict[str, str]]:
    """A fitted library of pictures that are found by their names, and its queries."""
    base = tmp_path_factory.mktemp("fitted")
    media, folder = base / "media", base / "library"
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for word, path in zip(WORDS, write_pictures(media, len(WORDS)), strict=True):
        path.rename(media / f"{word}.jpg")
        queries[word], qrels[word] = f"a {word}", {f"{word}.jpg": 1}
    settings = {
        "store": {"backend": "exact"},
        "ingest": {"workers": 1},
        "rerank": {"max_pixels": 65_536},
        "search": {"recall": PICTURES},
    }
    with Library.open(folder, preset="starter", settings=settings) as library:
        library.index([media])
        report = fitting.fit(library._parts, signals_of(library, media, queries, qrels), qrels)
        assert report.path == folder / "fusion.json"
    return folder, queries


@pytest.fixture
def folder(made: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """A copy, whose fit a test may change."""
    copy = tmp_path / "library"
    shutil.copytree(made[0], copy)
    return copy


@pytest.fixture
def library(folder: Path) -> Iterator[Library]:
    with opened(folder) as library:
        yield library


def opened(folder: Path, **sections: Any) -> Library:
    rerank = {"max_pixels": 65_536, **sections.pop("rerank", {})}
    search = {"recall": SHOWN, "k": SHOWN, **sections.pop("search", {})}
    settings = {"rerank": rerank, "search": search, **sections}
    return Library.open(folder, create=False, settings=settings)


def change(folder: Path, **values: Any) -> None:
    path = folder / "fusion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def scores(result: SearchResult) -> list[float]:
    return [hit.score for hit in result.hits]


def query_of(made: tuple[Path, dict[str, str]]) -> str:
    return next(iter(made[1].values()))


def test_the_fit_is_kept_with_what_it_is_for(
    library: Library, made: tuple[Path, dict[str, str]]
) -> None:
    stored = fitting.load_fit(library._parts)
    assert stored is not None
    assert stored.queries == len(made[1]) == stored.judgments
    assert stored.embedder == library._parts.catalog.get_meta("fingerprint")
    assert stored.reranker is not None
    assert stored.reranker.weights is not None
    assert {(m.words, m.second) for m in stored.fusion.models} == {
        (words, second) for words in (False, True) for second in (False, True)
    }
    assert fitting.load_fit(library._parts) is stored  # not read again


@pytest.mark.parametrize("options", [{}, {"rerank": False}, {"words": False}])
def test_hits_have_probabilities_and_the_cut_off_is_one(
    library: Library, made: tuple[Path, dict[str, str]], options: dict[str, bool]
) -> None:
    text = query_of(made)
    whole = library.search(text, k=SHOWN, **options)  # type: ignore[arg-type]
    assert whole.warnings == ()
    assert all(0 <= score <= 1 for score in scores(whole))
    stored = fitting.load_fit(library._parts)
    assert stored is not None
    model = stored.fusion.model(
        "text", words=options.get("words", True), second=options.get("rerank", True)
    )
    assert model is not None
    if model.order == "fitted":
        assert scores(whole) == sorted(scores(whole), reverse=True)
    limit = sorted(scores(whole))[-3]
    cut = library.search(text, k=SHOWN, min_score=limit, **options)  # type: ignore[arg-type]
    assert scores(cut) == [score for score in scores(whole) if score >= limit]
    assert [hit.rank for hit in cut.hits] == list(range(1, len(cut.hits) + 1))


def test_the_probability_is_that_of_the_model(
    library: Library, made: tuple[Path, dict[str, str]]
) -> None:
    from secondglance.evaluation.fusion_model import features

    stored = fitting.load_fit(library._parts)
    assert stored is not None
    model = stored.fusion.model("text", words=True, second=True)
    assert model is not None
    hits = sorted(library.search(query_of(made), k=SHOWN).hits, key=lambda h: h.recall_rank)
    seen = features(
        [h.recall_score for h in hits],
        [h.lexical_score for h in hits],
        [h.rerank_score for h in hits],
    )
    assert [h.score for h in hits] == pytest.approx(model.probability(seen).tolist(), abs=1e-12)


def test_what_comes_first_is_likelier_than_what_comes_last(
    library: Library, made: tuple[Path, dict[str, str]]
) -> None:
    found = [scores(library.search(text, k=PICTURES, rerank=False)) for text in made[1].values()]
    firsts, lasts = [each[0] for each in found], [each[-1] for each in found]
    assert sum(firsts) > 5 * sum(lasts)


def test_nothing_matches_is_an_answer(library: Library) -> None:
    result = library.search("quarterly tax return spreadsheet", min_score=1.0)
    assert result.hits == ()
    assert result.message.startswith("nothing in this library matches (best 0.")
    assert result.message.endswith(", below 1)")
    assert result.to_dict()["message"] == result.message
    assert result.message[1:] in render.render(result, "html")
    assert "Try other words" not in render.render(result, "html")
    assert result.message in render.plain_table(result)


def test_the_cut_off_may_be_a_setting(folder: Path) -> None:
    with opened(folder, search={"min_score": 1.0}) as library:
        assert library.search("tax return").message
        assert library.search("tax return", min_score=0.0).hits


@pytest.mark.parametrize("limit", [-0.1, 1.5])
def test_a_cut_off_that_is_no_probability_is_an_error(library: Library, limit: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        library.search("x", min_score=limit)


def test_switched_off_all_is_as_without_a_fit(
    folder: Path, made: tuple[Path, dict[str, str]]
) -> None:
    with opened(folder, search={"fitted": False}) as library:
        off = library.search(query_of(made), k=SHOWN)
        none = library.search(query_of(made), min_score=1.5)
    (folder / "fusion.json").unlink()
    with opened(folder) as library:
        without = library.search(query_of(made), k=SHOWN)
    assert [(h.id, h.score) for h in off.hits] == [(h.id, h.score) for h in without.hits]
    assert (none.hits, none.message) == ((), "")


@pytest.mark.parametrize("order", ["fixed", "fitted"])
def test_the_order_stays_where_the_fit_does_not_help(
    folder: Path, made: tuple[Path, dict[str, str]], order: str
) -> None:
    fusion = json.loads((folder / "fusion.json").read_text())["fusion"]
    for model in fusion["models"]:
        model["order"] = order
        # The worst cosine first: an order that no search has by chance.
        model["line"]["weights"] = [-1.0, 0.0, 0.0] + [0.0] * (len(model["line"]["weights"]) - 3)
    change(folder, fusion=fusion)
    with opened(folder) as library:
        result = library.search(query_of(made), k=SHOWN)
    with opened(folder, search={"fitted": False}) as library:
        today = library.search(query_of(made), k=SHOWN)
    same = [hit.id for hit in result.hits] == [hit.id for hit in today.hits]
    assert same == (order == "fixed")
    assert scores(result) != scores(today)  # probabilities either way


@pytest.mark.parametrize(
    ("values", "sections", "says"),
    [
        ({"embedder": "another"}, {}, "made for the embedder another"),
        ({}, {"rerank": {"fps": 3.0}}, "other settings of the second pass: fps"),
        ({"fusion": {"models": []}}, {}, "knows no text queries with a second pass"),
        ({"format": 2}, {}, "cannot be read"),
        ({"reranker": {"name": "n", "weights": "other", "settings": None}}, {}, "cannot be read"),
    ],
)
def test_a_fit_for_something_else_is_not_used_and_says_so(
    folder: Path, values: dict[str, Any], sections: dict[str, Any], says: str
) -> None:
    change(folder, **values)
    with opened(folder, **sections) as library:
        result = library.search("x", min_score=-5)
    assert result.hits
    [warning] = [warning for warning in result.warnings if "fit" in warning]
    assert says in warning
    assert "evaluate --fit" in warning


def test_other_weights_are_another_second_pass(folder: Path) -> None:
    found = json.loads((folder / "fusion.json").read_text())
    change(folder, reranker=found["reranker"] | {"weights": "0" * 64})
    with opened(folder) as library:
        assert "made for the reranker" in library.search("x").warnings[0]
        # Which does not matter without it.
        assert library.search("x", rerank=False).warnings == ()


def test_a_query_of_a_kind_that_was_not_fitted_is_answered_as_before(
    library: Library, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "asked", 1)
    picture = next((tmp_path / "asked").iterdir())
    result = library.search(Query(image=picture), rerank=False)
    assert "knows no image queries without a second pass" in result.warnings[0]
    assert scores(result) == [hit.recall_score for hit in result.hits]


def test_a_new_fit_is_seen_by_an_open_library(library: Library, folder: Path) -> None:
    before = library.search("x", rerank=False)
    (folder / "fusion.json").unlink()
    after = library.search("x", rerank=False)
    assert scores(before) != scores(after)


def test_a_folder_that_cannot_be_written_keeps_its_fit(
    library: Library,
    folder: Path,
    made: tuple[Path, dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = fitting.load_fit(library._parts)
    assert stored is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "secondglance.evaluation.fit.fit_fusion", lambda *_, **__: (stored.fusion, ())
    )
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(LibraryError, match="No space left"):
        fitting.fit(library._parts, {}, {})
    assert fitting.load_fit(library._parts) == stored
    assert [p.name for p in folder.iterdir() if p.name.endswith(".tmp")] == []


def test_the_command_line_says_that_nothing_matches(folder: Path, tmp_path: Path) -> None:
    common = ["search", "tax return", "--library", str(folder), "--min-score", "1"]
    common += ["--set", "rerank.max_pixels=65536", "--recall", str(SHOWN), "-k", str(SHOWN)]
    runner = CliRunner()
    shown = runner.invoke(app, common)
    assert shown.exit_code == 0, shown.output
    assert "nothing in this library matches (best 0." in shown.output
    as_json = runner.invoke(app, [*common, "--json"])
    assert as_json.exit_code == 0
    found = json.loads(as_json.stdout)
    assert found["hits"] == []
    assert found["message"].startswith("nothing in this library matches")
    page = tmp_path / "page.html"
    assert runner.invoke(app, [*common, "--out", str(page)]).exit_code == 0
    assert "othing in this library matches" in page.read_text("utf-8")


def test_status_shows_the_fit(folder: Path) -> None:
    runner = CliRunner()
    found = json.loads(runner.invoke(app, ["status", "--library", str(folder), "--json"]).stdout)
    assert found["fit"]["used"] is True
    assert len(found["fit"]["models"]) == 4
    shown = runner.invoke(app, ["status", "--library", str(folder)], env={"COLUMNS": "300"})
    assert f"from {found['fit']['queries']} queries" in shown.stdout
    change(folder, embedder="another")
    shown = runner.invoke(app, ["status", "--library", str(folder)], env={"COLUMNS": "300"})
    assert "not used: it was made for the embedder another" in shown.stdout


def test_weights_count_where_both_are_known_and_names_otherwise() -> None:
    stamp = fitting.RerankerStamp(name="a", weights="1", settings={"fps": 1.0})
    assert stamp.agrees(dataclasses.replace(stamp, name="moved"))
    assert not stamp.agrees(dataclasses.replace(stamp, weights="2"))
    assert stamp.agrees(dataclasses.replace(stamp, weights=None))
    assert not stamp.agrees(dataclasses.replace(stamp, weights=None, name="b"))
    assert not stamp.agrees(dataclasses.replace(stamp, settings={"fps": 2.0}))
