"""What an evaluation makes of queries, judgments, names of documents and options."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from secondglance.errors import InputError
from secondglance.evaluation.queries import described
from secondglance.evaluation.types import EvaluationQuery
from secondglance.library import Library
from secondglance.pipelines.evaluate_run import Progress
from secondglance.types import Query
from tests.second_passes import SETTINGS, Asked, Quick, documents

pytestmark = pytest.mark.usefixtures("one_embedder")


def test_captions_that_stand_in_the_library_are_counted(
    scenes: Path, tmp_path: Path, quick: Quick
) -> None:
    from secondglance.evaluation.captions import caption_queries

    media = tmp_path / "media"
    shutil.copytree(scenes / "all" / "pictures", media / "pictures")
    shutil.copy(scenes / "all" / "captions.csv", media)
    queries, qrels, _ = caption_queries(media / "captions.csv")
    with Library.open(tmp_path / "told", preset="starter", settings=SETTINGS) as library:
        library.index([media])
        found = library.evaluate(
            queries, qrels, systems=["clip", "bm25"], curves=False, unknown="dropped"
        )
        assert len(found.queries) == 8
        [leak] = [line for line in found.warnings if "word for word" in line]
        assert leak.startswith("8 of 8 queries")
        assert "bm25 can read them" in leak
        assert found.summaries[0].system == "clip"
        assert sum(found.values["bm25"]["Hit@1"].values()) == 8
        silent = library.evaluate(queries, qrels, systems=["clip"], curves=False, unknown="dropped")
        assert not [line for line in silent.warnings if "word for word" in line]


def test_captions_elsewhere_are_no_leak(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(*asked, systems=["bm25"], curves=False)
    assert not [line for line in found.warnings if "word for word" in line]


def test_documents_have_many_names(library: Library, asked: Asked, scenes: Path) -> None:
    query = asked[0][0]
    path = scenes / "media" / "pictures" / "0001.jpg"
    row = library._parts.catalog.file(path)
    assert row is not None
    [record] = library._parts.catalog.record_ids(str(row.hash))
    for name in ("pictures/0001.jpg", str(path), "0001.jpg", row.hash, record):
        found = library.evaluate([query], {query.id: {str(name): 1}}, systems=["clip"])
        assert found.qrels == {query.id: {"pictures/0001.jpg": 1}}, name


def test_copies_are_one_document_and_name_clashes_are_told_apart(
    scenes: Path, tmp_path: Path, asked: Asked
) -> None:
    for folder, number in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        shutil.copy(
            scenes / "all" / "pictures" / f"000{number}.jpg", tmp_path / folder / "same.jpg"
        )
    shutil.copy(tmp_path / "one" / "same.jpg", tmp_path / "two" / "copy.jpg")
    with Library.open(tmp_path / "library", preset="starter", settings=SETTINGS) as library:
        library.index([tmp_path / "one", tmp_path / "two"])
        query = asked[0][0]
        found = library.evaluate([query], {query.id: {"copy.jpg": 2}}, systems=["clip"])
    first, second = (str(tmp_path / folder / "same.jpg") for folder in ("one", "two"))
    assert set(documents(found, "clip", query.id)) == {first, second}
    assert found.qrels == {query.id: {first: 2}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"systems": ["clop"]}, "unknown system 'clop'"),
        ({"systems": []}, "no system"),
        ({"measures": ["nDGC@10"]}, "nDGC@10"),
        ({"measures": []}, "no measure"),
        ({"baseline": "fusion"}, "'fusion' is none of the systems"),
        ({"depth": 0}, "depth is 0"),
        ({"recall": 100_000}, "at most"),
        ({"limit": 0}, "limit is 0"),
        ({"budget_queries": 0}, "budget_queries is 0"),
        ({"depths": (0, 5)}, r"depths are \[0\]"),
        ({"budgets_ms": (-1.0,)}, r"budgets are \[-1.0\]"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    library: Library, asked: Asked, options: dict[str, Any], said: str
) -> None:
    worked: list[Progress] = []
    with pytest.raises(InputError, match=said):
        library.evaluate(*asked, **{"systems": ["clip"], "on_progress": worked.append, **options})
    assert not worked


def test_queries_and_judgments_must_meet(library: Library, asked: Asked) -> None:
    queries, qrels = asked
    with pytest.raises(InputError, match="none of the 1 queries has judgments"):
        library.evaluate(queries[:1], {"other": {"pictures/0001.jpg": 1}}, systems=["clip"])
    with pytest.raises(InputError, match="judged documents is in the library"):
        library.evaluate(queries[:1], {queries[0].id: {"nowhere.jpg": 1}}, systems=["clip"])
    some = {queries[0].id: {**qrels[queries[0].id], "nowhere.jpg": 1}, "gone": {"x": 1}}
    found = library.evaluate(queries[:2], some, systems=["clip"])
    warnings = " ".join(found.warnings)
    assert "1 of 2 judged documents are not in the library" in warnings
    assert "1 judged queries do not exist: gone" in warnings
    assert f"1 queries without judgments are left out: {queries[1].id}" in warnings
    assert found.values["clip"]["Recall@100"][queries[0].id] == 0.5


def test_a_query_whose_file_is_damaged_is_left_out(
    library: Library, asked: Asked, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    bad = [
        EvaluationQuery(id="broken", query=Query(image=broken), kind="image"),
        EvaluationQuery(id="away", query=Query(image=tmp_path / "away.jpg"), kind="image"),
    ]
    answer = {"pictures/0001.jpg": 1}
    qrels = {**asked[1], "broken": answer, "away": answer}
    found = library.evaluate([*asked[0], *bad], qrels, systems=["clip"])
    assert set(found.queries) == set(asked[1])
    [line] = [line for line in found.warnings if "left out" in line]
    assert line.startswith("2 queries were left out")
    assert "broken (" in line
    assert "away (there is no file" in line
    with pytest.raises(InputError, match="none of the 2 queries can be read"):
        library.evaluate(bad, qrels, systems=["clip"])


def test_files_that_went_away_come_last(
    library: Library, asked: Asked, quick: Quick, scenes: Path, tmp_path: Path
) -> None:
    away = scenes / "media" / "pictures" / "0002.jpg"
    away.rename(tmp_path / "kept.jpg")
    try:
        found = library.evaluate(*asked, systems=["rerank"], curves=False, limit=2)
    finally:
        (tmp_path / "kept.jpg").rename(away)
    [line] = [line for line in found.warnings if "could not score" in line]
    assert line.startswith("quick could not score 1 candidates")
    assert all(
        documents(found, "rerank", name)[-1] == "pictures/0002.jpg" for name in found.queries
    )


def test_no_second_pass_to_evaluate(indexed: Path, asked: Asked) -> None:
    settings = {"rerank": {"backend": "passthrough"}}
    with (
        Library.open(indexed, settings=settings) as library,
        pytest.raises(InputError, match="passthrough"),
    ):
        library.evaluate(*asked, systems=["rerank"], curves=False)


def test_a_file_of_queries_in_the_library_is_noticed(
    scenes: Path, tmp_path: Path, asked: Asked
) -> None:
    shutil.copytree(scenes / "media" / "pictures", tmp_path / "media" / "pictures")
    shutil.copy(scenes / "all" / "queries.jsonl", tmp_path / "media" / "asked.jsonl")
    with Library.open(tmp_path / "l", preset="starter", settings=SETTINGS) as library:
        library.index([tmp_path / "media"])
        found = library.evaluate(*asked, systems=["clip"], curves=False)
    assert any("are themselves texts in the library" in warning for warning in found.warnings)


def test_a_query_picture_that_is_in_the_library_is_noticed(
    library: Library, scenes: Path, tmp_path: Path
) -> None:
    pictures = sorted((scenes / "media" / "pictures").iterdir())
    clip = next((scenes / "media" / "clips").iterdir())
    for number, file in enumerate((*pictures[:2], clip)):
        shutil.copy(file, tmp_path / f"asked-{number}{file.suffix}")
    with Image.open(pictures[2]) as opened:
        opened.resize((40, 40)).save(tmp_path / "smaller.png")
    queries = [
        described("q0", Query(image=tmp_path / f"asked-0{pictures[0].suffix}")),
        described("q1", Query(image=tmp_path / f"asked-1{pictures[1].suffix}", text="the same")),
        described("q2", Query(video=tmp_path / f"asked-2{clip.suffix}")),
        described("q3", Query(image=tmp_path / "smaller.png")),
    ]
    names = [f"pictures/{path.name}" for path in pictures]
    qrels = {
        "q0": {names[2]: 1},  # itself not judged
        "q1": {names[1]: 1, names[3]: 1},
        "q2": {names[2]: 1, f"clips/{clip.name}": 0},
        "q3": {names[2]: 1},  # the same picture in other bytes, as a query may well be
    }
    found = library.evaluate(queries, qrels, systems=["clip"], curves=False)
    wrong, right = (line for line in found.warnings if "show a file that is itself" in line)
    assert wrong.startswith("2 queries")
    assert f"counts as wrong: q0 ({names[0]}), q2 (clips/{clip.name}); index" in wrong
    assert "1 queries show a file that is itself in the library and judged relevant" in right
    assert f"q1 ({names[1]})" in right
    assert documents(found, "clip", "q0")[0] == names[0]
