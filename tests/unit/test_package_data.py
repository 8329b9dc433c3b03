"""Files that are no code: found beside the code, and not left out when the wheel is built."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import re
from importlib import resources
from pathlib import Path

import pytest

from secondglance.config import PRESET_NAMES, configs_folder

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
DATA = (
    "py.typed",
    "evaluation/templates/fit.html.j2",
    "evaluation/templates/report.html.j2",
    "pipelines/rates.toml",
    "pipelines/templates/contact_sheet.html",
    "pipelines/templates/judge.html",
    "server/templates/docs.css",
    "server/templates/docs.html",
    "server/web/api.js",
    "server/web/app.css",
    "server/web/app.js",
    "server/web/around.js",
    "server/web/candidates.js",
    "server/web/details.js",
    "server/web/evaluate.js",
    "server/web/explain.js",
    "server/web/exports.js",
    "server/web/filters.js",
    "server/web/grid.js",
    "server/web/i18n.js",
    "server/web/i18n/en.json",
    "server/web/i18n/zh.json",
    "server/web/icon.svg",
    "server/web/index.html",
    "server/web/libraries.html",
    "server/web/libraries.js",
    "server/web/library.js",
    "server/web/media.js",
    "server/web/query.js",
    "server/web/rerank.js",
    "server/web/search.js",
    "server/web/shell.js",
    "server/web/theme.js",
    "server/web/ui.js",
    "server/web/views.css",
    "scenes/SPRITES-LICENSE.txt",
    "scenes/kinds.csv",
    "scenes/sprites.webp",
    "models/starter/SHA256SUMS",
    "models/starter/clip/README.md",
    "models/starter/clip/open_clip_config.json",
    "models/starter/clip/open_clip_model.safetensors",
    "models/starter/clip/tokenizer.json",
    "models/starter/clip/tokenizer_config.json",
    "models/starter/reranker/README.md",
    "models/starter/reranker/chat_template.jinja",
    "models/starter/reranker/config.json",
    "models/starter/reranker/model.safetensors",
    "models/starter/reranker/preprocessor_config.json",
    "models/starter/reranker/tokenizer.json",
    "models/starter/reranker/tokenizer_config.json",
    "models/starter/reranker/video_preprocessor_config.json",
)


@pytest.mark.parametrize("name", DATA)
def test_the_package_holds_its_data(name: str) -> None:
    assert resources.files("secondglance").joinpath(name).is_file()


def test_no_data_is_missing_from_this_list_or_ignored_by_git() -> None:
    package = ROOT / "secondglance"
    present = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert set(DATA) <= present
    unlisted = {name for name in present - set(DATA) if not name.startswith("models/starter/")}
    assert not unlisted
    # The build leaves out what git ignores.
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").split()]
    for name in present:
        for part in ("secondglance", *name.split("/")):
            assert not any(fnmatch.fnmatch(part, pattern) for pattern in patterns), name


def test_presets_are_packaged() -> None:
    assert '"configs" = "secondglance/configs"' in PROJECT
    assert {path.stem for path in configs_folder().glob("*.toml")} == set(PRESET_NAMES)


def test_licences_are_declared() -> None:
    [listed] = re.findall(r"^license-files = \[(.*)\]$", PROJECT, re.MULTILINE)
    files = re.findall(r'"([^"]+)"', listed)
    assert files == ["LICENSE", "secondglance/scenes/SPRITES-LICENSE.txt"]
    assert all((ROOT / file).is_file() for file in files)


def test_exact_versions_cover_what_is_declared() -> None:
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    lines = (ROOT / "constraints.txt").read_text("utf-8").split()
    exact = {plain(line.partition("==")[0]) for line in lines}
    assert len(exact) == len(lines)
    assert all("==" in line for line in lines)
    wanted = importlib.metadata.requires("secondglance") or []
    assert wanted
    optional = {"faiss-gpu-cu12", "gradio", "secondglance", "tomli"}  # not in every environment
    names = {plain(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in wanted}
    assert names - optional <= exact
