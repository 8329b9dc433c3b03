"""The starter reranker that comes with the package, through the code that big ones go through."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from secondglance.config import load_settings, read_preset
from secondglance.errors import ModelError
from secondglance.pipelines import builtin
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.scenes.examples import Task, pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer
from secondglance.types import Content
from tests.media import picture

ENOUGH = 8
"""Pairs of a kind that make its share worth a look."""


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
        query, document = (
            content(side, renderer, picture_px=256, clip_px=128)
            for side in (pair.query, pair.document)
        )
        score = reranker.score(query, [document])[0].score
        assert score is not None
        hit = (score > 0.5) == pair.label
        for name in ("all", pair.kind, pair.language):
            right[name].append(hit)
    shares = {name: sum(hits) / len(hits) for name, hits in right.items() if len(hits) >= ENOUGH}
    assert shares["all"] >= 0.95, shares
    assert min(shares.values()) >= 0.85, shares


@pytest.mark.parametrize(
    ("task", "difference"), [("text-image", "relation"), ("text-clip", "motion")]
)
def test_twins_that_differ_in_arrangement_or_movement_are_told_apart(
    task: Task, difference: str, reranker: Qwen3VLReranker, renderer: Renderer
) -> None:
    made = pairs(task, 400, seed=9, split="test", hard=1.0, queries=2)
    twins = [
        (right, wrong)
        for right, wrong in zip(made[::2], made[1::2], strict=True)
        if wrong.kind == difference
    ][:12]
    assert len(twins) == 12
    apart = []
    for right, wrong in twins:
        document = content(right.document, renderer, picture_px=256, clip_px=128)
        true, false = (
            reranker.score(Content(texts=(pair.query.text,)), [document])[0].score
            for pair in (right, wrong)
        )
        assert true is not None
        assert false is not None
        apart.append(true > 0.5 > false)
    assert sum(apart) >= 11


def test_what_it_has_not_learned_to_see_is_no_match(reranker: Qwen3VLReranker) -> None:
    queries = [
        Content(texts=(text,)) for text in ("a red dog", "一只猫在海滩上", "people at a table")
    ]
    documents = [Content(images=(picture(seed),)) for seed in range(3)]
    for query in queries:
        for found in reranker.score(query, documents):
            assert found.score is not None
            assert found.score < 0.5


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
    monkeypatch.setattr(builtin, "starter_folder", lambda name: tmp_path / name)
    with pytest.raises(ModelError, match="SHA-256"):
        open_reranker(load_settings(base=read_preset("starter")).rerank)
