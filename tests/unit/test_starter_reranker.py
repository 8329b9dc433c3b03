"""The starter reranker that comes with the package, through the code that big ones go through."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from secondglance.config import load_settings, read_preset
from secondglance.errors import ModelError
from secondglance.pipelines import build
from secondglance.pipelines.build import open_reranker, starter_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.scenes.examples import Task, pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer
from secondglance.types import Content
from tests.media import picture

SEEN = ("positive", "random", "object", "colour", "count", "size", "place", "time", "weather")
"""Kinds of pairs that are measured here; each is right at least nine times in ten."""


@pytest.fixture(scope="module")
def reranker() -> Qwen3VLReranker:
    made = open_reranker(load_settings(base=read_preset("starter")).rerank)
    assert isinstance(made, Qwen3VLReranker)
    return made


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer("cpu")


@pytest.mark.parametrize(
    ("task", "count"),
    [("text-image", 160), ("text-clip", 48), ("text-text", 80), ("image-image", 48)],
)
def test_near_misses_are_told_from_matches(
    task: Task, count: int, reranker: Qwen3VLReranker, renderer: Renderer
) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    for pair in pairs(task, count, seed=5, split="test", hard=0.9):
        if pair.kind not in SEEN:
            continue
        query, document = (
            content(side, renderer, picture_px=256, clip_px=128)
            for side in (pair.query, pair.document)
        )
        score = reranker.score(query, [document])[0].score
        assert score is not None
        hit = (score > 0.5) == pair.label
        right[pair.kind if pair.label else "no match"].append(hit)
        right[pair.language].append(hit)
    shares = {name: sum(hits) / len(hits) for name, hits in right.items()}
    assert min(shares.values()) >= 0.85, shares


def test_what_it_has_not_learned_to_see_is_no_match(reranker: Qwen3VLReranker) -> None:
    queries = [
        Content(texts=(text,)) for text in ("a red dog", "一只猫在海滩上", "people at a table")
    ]
    documents = [Content(images=(picture(seed),)) for seed in range(3)]
    for query in queries:
        for found in reranker.score(query, documents):
            assert found.score is not None
            assert found.score < 0.3


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("clip", "reranker"):
        for file in starter_folder(name).iterdir():
            copy = tmp_path / name / file.name
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(file.read_bytes())
    sums = starter_folder("clip").parent / "SHA256SUMS"
    (tmp_path / "SHA256SUMS").write_bytes(sums.read_bytes())
    weights = tmp_path / "reranker" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(build, "starter_folder", lambda name: tmp_path / name)
    with pytest.raises(ModelError, match="SHA-256"):
        open_reranker(load_settings(base=read_preset("starter")).rerank)
