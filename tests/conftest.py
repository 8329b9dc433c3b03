"""Fixtures for every suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from secondglance.models.untrained import build_untrained_clip, build_untrained_reranker
from tests.browser import browser

__all__ = ["browser"]


@pytest.fixture(scope="session")
def untrained_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_clip(tmp_path_factory.mktemp("models") / "untrained-clip")


@pytest.fixture(scope="session")
def untrained_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_untrained_reranker(tmp_path_factory.mktemp("models") / "untrained-reranker")
