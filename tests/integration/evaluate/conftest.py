"""A small generated library, and what is asked of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from secondglance.evaluation.judgments import read_qrels, read_queries
from secondglance.library import Library
from secondglance.pipelines.build import Parts
from secondglance.rerank.score_cache import CachedReranker
from secondglance.scenes.collection import write_collection
from tests.second_passes import SETTINGS, Asked, Quick


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_collection(folder / "all", pictures=8, clips=2, texts=2, family=4, image_queries=1)
    for name in ("pictures", "clips", "texts"):
        shutil.copytree(folder / "all" / name, folder / "media" / name)
    return folder


@pytest.fixture(scope="session")
def indexed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library without captions, once."""
    folder = tmp_path_factory.mktemp("libraries") / "library"
    with Library.open(folder, preset="starter", settings=SETTINGS) as library:
        library.index([scenes / "media"])
    return folder


@pytest.fixture
def library(indexed: Path, tmp_path: Path, one_embedder: None) -> Iterator[Library]:
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
