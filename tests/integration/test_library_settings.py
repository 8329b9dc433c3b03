"""Which settings a library has when it is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secondglance.config import PRESET_NAMES, read_preset
from secondglance.library import Library

SOMETHING = {"store": {"backend": "exact"}}


def settings(folder: Path, **options: Any) -> dict[str, Any]:
    with Library.open(folder, **options) as library:
        found: dict[str, Any] = library.settings.model_dump(mode="json")
    return found


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_a_library_is_opened_again_with_all_that_its_preset_says(
    preset: str, tmp_path: Path
) -> None:
    made = settings(tmp_path / "library", preset=preset, settings=SOMETHING)
    again = settings(tmp_path / "library")
    assert again == made
    for section, values in read_preset(preset).items():
        if section not in ("preset", "store"):
            assert again[section] | values == again[section]


def test_what_was_said_when_it_was_made_stays_and_the_rest_may_change(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    chosen = {**SOMETHING, "rerank": {"model": "someone/reranker"}}
    settings(folder, preset="starter", settings=chosen)
    again = settings(folder, settings={"search": {"recall": 7}})
    assert again["rerank"]["model"] == "someone/reranker"
    assert again["store"]["backend"] == "exact"
    assert again["search"]["recall"] == 7


def test_another_preset_brings_its_reranker_for_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    chosen = {**SOMETHING, "recall": {"model": "builtin:starter"}}
    settings(folder, preset="starter", settings=chosen)
    recall = {"recall": {"model": "builtin:starter", "pretrained": ""}}
    again = settings(folder, preset="laptop", settings=recall)
    assert again["rerank"]["model"] == read_preset("laptop")["rerank"]["model"]
    assert again["search"]["rerank_floor"] == 0  # which is for the starter's reranker
    assert settings(folder)["rerank"]["model"] == "builtin:starter"
