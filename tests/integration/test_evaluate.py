"""An evaluation of a small generated library: every system, what it costs, what is wrong."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from secondglance.errors import InputError
from secondglance.evaluation import metrics
from secondglance.evaluation.judgments import read_qrels, read_queries
from secondglance.evaluation.queries import described
from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.library import Library
from secondglance.pipelines.build import Parts
from secondglance.pipelines.evaluate_run import Progress
from secondglance.rerank.score_cache import CachedReranker
from secondglance.scenes.collection import write_collection
from secondglance.types import Content, PairScore, Query

SYSTEMS = ("bm25", "clip", "clip+bm25", "rerank", "fusion")
Asked = tuple[tuple[EvaluationQuery, ...], Qrels]


class Quick:
    """A second pass that is quick: probability by the name of the file, or by the words."""

    name = "quick"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.stop_after: int | None = None

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += [("".join(query.texts), _named(document)) for document in documents]
        return [PairScore(score=_probability(_named(document))) for document in documents]


def _named(document: Content) -> str:
    if document.texts:
        return document.texts[0]
    if document.images:
        return Path(str(document.images[0])).name
    return Path(str(document.videos[0].path)).name


def _probability(name: str) -> float:
    return 0.9 + sum(map(ord, name)) % 89 / 1000


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_collection(folder / "all", pictures=8, clips=2, texts=2, family=4, image_queries=1)
    for name in ("pictures", "clips", "texts"):
        shutil.copytree(folder / "all" / name, folder / "media" / name)
    return folder


@pytest.fixture(scope="module")
def indexed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library without captions, once."""
    folder = tmp_path_factory.mktemp("libraries") / "library"
    with Library.open(folder, preset="starter", settings=SETTINGS) as library:
        library.index([scenes / "media"])
    return folder


SETTINGS = {"store": {"backend": "exact"}, "ingest": {"workers": 1}}


@pytest.fixture
def library(indexed: Path, tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(indexed, tmp_path / "library")
    with Library.open(tmp_path / "library") as opened:
        yield opened


@pytest.fixture
def asked(scenes: Path) -> Asked:
    queries, warnings = read_queries(scenes / "all" / "queries.jsonl")
    qrels, more = read_qrels(scenes / "all" / "qrels.txt")
    assert not [*warnings, *more]
    return queries, qrels


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Quick:
    """Takes the place of the model, behind the library's own cache of scores."""
    made = Quick()

    def reranker(self: Parts) -> CachedReranker:
        from secondglance.rerank.score_cache import FILE_NAME, ScoreCache

        if self._scores is None:
            self._scores = ScoreCache(self.folder / FILE_NAME, max_mb=16)
        return CachedReranker(made, self._scores, fingerprint="quick")

    monkeypatch.setattr(Parts, "reranker", reranker)
    return made


def documents(found: Any, system: str, query: str) -> list[str]:
    run = next(run for run in found.systems if run.name == system)
    return [ranked.document for ranked in run.rankings[query]]


def test_every_system_is_the_search_that_it_says(
    library: Library, asked: Asked, quick: Quick, scenes: Path
) -> None:
    found = library.evaluate(*asked, systems=SYSTEMS, curves=False)
    assert [run.name for run in found.systems] == list(SYSTEMS)
    assert found.baseline == "clip"
    assert set(found.queries) == {query.id for query in asked[0]}
    root = scenes / "media"
    for query in asked[0]:
        for system, rerank, words in (
            ("clip", False, False),
            ("clip+bm25", False, True),
            ("fusion", True, True),
        ):
            hits = library.search(
                query.query, k=50, group_duplicates=False, rerank=rerank, words=words
            ).hits
            shown = [Path(hit.path).relative_to(root).as_posix() for hit in hits]
            assert documents(found, system, query.id) == shown, (system, query.id)
        by_cosine = documents(found, "clip", query.id)
        wanted = sorted(by_cosine, key=lambda name: (-_score(root, name), by_cosine.index(name)))
        assert documents(found, "rerank", query.id) == wanted
        if query.kind == "text":
            told = library._parts.words().index.search(query.query.text, limit=100)
            assert len(documents(found, "bm25", query.id)) == len(told)
    assert "bm25 answers none of the 1 queries without words" in " ".join(found.warnings)


def _score(root: Path, name: str) -> float:
    is_text = name.startswith("texts/")
    return _probability((root / name).read_text("utf-8").strip() if is_text else Path(name).name)


def test_values_are_those_of_the_rankings(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(*asked, systems=["clip", "rerank"], curves=False, measures=["MRR"])
    for run in found.systems:
        for query, ranking in run.rankings.items():
            [answer] = asked[1][query]
            rank = [ranked.document for ranked in ranking].index(answer) + 1
            assert found.values[run.name]["MRR"][query] == pytest.approx(1 / rank)
            graded = [ranked.grade for ranked in ranking]
            assert graded[rank - 1] == 1
            assert graded.count(None) == len(graded) - 1
        again = metrics.compute(["MRR"], asked[1], run.run())["MRR"]
        assert again == pytest.approx(dict(found.values[run.name]["MRR"]))
    assert {each.system for each in found.differences} == {"rerank"}
    summary = next(s for s in found.summaries if s.system == "clip" and s.group == "all")
    assert summary.value.mean == pytest.approx(
        sum(found.values["clip"]["MRR"].values()) / len(asked[0])
    )
    assert found.ceiling[100].mean == 1.0
    assert found.ceiling[5].mean <= 1.0


def test_each_pair_is_scored_once_and_never_again(
    library: Library, asked: Asked, quick: Quick
) -> None:
    first = library.evaluate(*asked, systems=["rerank", "fusion"], curves=False)
    pairs = len(asked[0]) * 12
    assert len(quick.asked) == pairs
    assert {cost.system: cost.pairs for cost in first.costs} == {"rerank": pairs, "fusion": pairs}
    for cost in first.costs:
        assert cost.pairs_per_s is not None
        assert math.isfinite(cost.pairs_per_s)
        assert {"embed", "recall", "rerank", "total"} <= set(cost.stages)
        assert cost.stages["total"].median_ms >= cost.stages["rerank"].median_ms
        assert cost.peak_memory_mb is None or cost.peak_memory_mb > 10
    again = library.evaluate(*asked, systems=["rerank", "fusion"], curves=False)
    assert len(quick.asked) == pairs
    assert again.values == first.values
    assert [cost.pairs for cost in again.costs] == [0, 0]
    assert all("rerank" not in cost.stages for cost in again.costs)


def test_an_interrupted_evaluation_goes_on(library: Library, asked: Asked, quick: Quick) -> None:
    pairs = len(asked[0]) * 12
    quick.stop_after = pairs // 2
    with pytest.raises(KeyboardInterrupt):
        library.evaluate(*asked, systems=["rerank"], curves=False)
    before = len(quick.asked)
    assert pairs // 2 <= before < pairs
    quick.stop_after = None
    found = library.evaluate(*asked, systems=["rerank"], curves=False)
    assert len(quick.asked) == pairs
    assert len(set(quick.asked)) == pairs
    assert len(found.values["rerank"]["nDCG@10"]) == len(asked[0])


def test_curves_run_over_depth_and_time(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(
        *asked,
        systems=["clip", "rerank"],
        depths=(1, 4),
        recall=8,
        budgets_ms=(0.0, 60_000.0),
        budget_queries=3,
        measures=["nDCG@10", "Hit@1"],
    )
    by_depth, by_time = found.curves
    assert (by_depth.over, [point.x for point in by_depth.points]) == ("candidates", [1, 4, 8])
    assert (by_time.over, [point.x for point in by_time.points]) == ("budget_ms", [0.0, 60_000.0])
    means = {s.system: s.value.mean for s in found.summaries
             if s.group == "all" and s.measure == "nDCG@10"}  # fmt: skip
    # One candidate has no other place to go to; all of them are the system itself.
    assert by_depth.points[0].values["nDCG@10"].mean == pytest.approx(means["clip"])
    assert by_depth.points[2].values["nDCG@10"].mean == pytest.approx(means["rerank"])
    times = [point.latency_ms for point in by_depth.points]
    assert None not in times
    assert times == sorted(times, key=lambda ms: ms or 0.0)
    # Without time nothing is scored; with plenty all is, though the cache knows it. Before the
    # first run one pair makes the model ready.
    assert len(quick.asked) == len(asked[0]) * 8 + 1 + 3 * 8
    three = [query.id for query in asked[0]]
    three = [three[place * len(three) // 3] for place in range(3)]
    for point, system in zip(by_time.points, ("clip", "rerank"), strict=True):
        values = [found.values[system]["Hit@1"][name] for name in three]
        assert point.values["Hit@1"].mean == pytest.approx(sum(values) / 3)
        assert point.latency_ms is not None


def test_another_reranker_and_a_replayed_run(
    library: Library, asked: Asked, quick: Quick, untrained_reranker: Path, tmp_path: Path
) -> None:
    name, answers = next(iter(asked[1].items()))
    run = tmp_path / "golden.trec"
    run.write_text(
        f"{name} Q0 {next(iter(answers))} 1 0.5 golden\n{name} Q0 nowhere 2 0.1 golden\n"
    )
    other = f"rerank@{untrained_reranker}"
    stages: list[Progress] = []
    found = library.evaluate(
        *asked,
        systems=["clip", other, f"replay:{run}"],
        limit=2,
        recall=2,
        curves=False,
        baseline="replay:golden",
        on_progress=stages.append,
    )
    assert [run.name for run in found.systems] == ["clip", other, "replay:golden"]
    assert str(untrained_reranker) in found.systems[1].description
    assert not quick.asked
    assert {cost.system: cost.pairs for cost in found.costs} == {"clip": 0, other: 4}
    assert found.values["replay:golden"]["Hit@1"][name] == 1.0
    assert {each.baseline for each in found.differences} == {"replay:golden"}
    warnings = " ".join(found.warnings)
    assert "golden.trec has no results for 1 queries" in warnings
    assert "1 documents that the library does not know: nowhere" in warnings
    assert "2 of the" in warnings
    assert {"load", "recall", "rerank", "measure"} == {each.stage for each in stages}
    assert [p.done for p in stages if p.stage == "rerank"] == [0, 1]


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


def test_too_few_judgments_for_a_fit_are_said(library: Library, asked: Asked, quick: Quick) -> None:
    found = library.evaluate(*asked, systems=["clip", "fusion"], curves=False, fit=True)
    assert found.fit is None
    assert any(line.startswith("nothing was fitted: too few") for line in found.warnings)
    assert json.loads(json.dumps(dict(found.settings)))["fitted"] is False


def test_a_fit_is_kept_and_used_and_said(library: Library, asked: Asked, quick: Quick) -> None:
    texts = [query for query in asked[0] if query.kind == "text"]
    queries = [
        EvaluationQuery(id=f"{query.id}-{number}", query=query.query, kind="text")
        for number in range(24 // len(texts) + 1)
        for query in texts
    ]
    qrels = {query.id: asked[1][query.id.rpartition("-")[0]] for query in queries}
    first = library.evaluate(queries, qrels, systems=["fusion"], curves=False, fit=True)
    assert first.fit is not None
    assert first.fit["lines"]
    assert first.fit["queries"] == len(queries)
    assert Path(str(first.fit["path"])) == library.folder / "fusion.json"
    assert first.settings["fitted"] is False
    second = library.evaluate(queries, qrels, systems=["fusion"], curves=False)
    assert second.settings["fitted"] is True
    [line] = [line for line in second.warnings if "uses the fit" in line]
    assert f"from {len(queries)} queries" in line
    hits = library.search(queries[0].query, k=50, group_duplicates=False).hits
    ranking = second.systems[0].rankings[queries[0].id]
    # Each of the same score is lower by a hair, so that trec_eval keeps their order.
    assert [each.score for each in ranking] == pytest.approx([h.score for h in hits], abs=1e-4)


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
