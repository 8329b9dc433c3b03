"""Imports point one way: types, errors, config <- stages <- pipelines <- library <- cli."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "secondglance"
BASE = {"types", "errors", "config", "sections", "media"}
STAGES = {"ingest", "retrieve", "rerank"}
# Pure: judgments, measures, statistics, fits, reports. It runs nothing.
EVALUATION = {"evaluation"}
ALLOWED = {
    **dict.fromkeys(BASE, BASE),
    **{stage: BASE | {stage} for stage in STAGES},
    "models": BASE | {"models"},
    "scenes": BASE | {"scenes"},
    "evaluation": BASE | EVALUATION,
    "pipelines": BASE | STAGES | EVALUATION | {"models", "pipelines"},
    "library": BASE | STAGES | EVALUATION | {"pipelines"},
    "adapters": BASE | {"rerank", "library", "adapters"},
    "__main__": {"cli"},
    "cli": BASE | EVALUATION | {"pipelines", "library", "scenes", "server", "cli"},
    "server": BASE | STAGES | {"pipelines", "library", "server"},
}
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_layers(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "secondglance" and len(parts) > 1:
                found.add(parts[1])
    return found - {"__version__", "Library", "Query"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    forbidden = imported_layers(path) - ALLOWED[layer(path)]
    assert not forbidden, f"{path} may not import {sorted(forbidden)}"


def test_every_layer_is_looked_at() -> None:
    assert {layer(path) for path in MODULES} >= BASE | STAGES | {"pipelines", "library", "cli"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 420
