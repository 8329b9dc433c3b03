"""The guide to moving names only options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from secondglance.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "moving.md").read_text("utf-8")


def test_every_option_of_the_guide_exists() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {
        option
        for name in ("migrate", "export", "import", "index")
        for parameter in commands[name].params
        for option in parameter.opts
    }
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE))
    assert {"--to", "--out", "--embedder", "--sample"} <= named
    assert named <= known, named - known


def test_the_numbers_of_the_guide_are_those_of_the_program() -> None:
    from secondglance.pipelines import copying, import_check

    assert f"(`--sample`, {copying.SAMPLE})" in PAGE
    assert f"{copying.RECALL_FLOOR:.0%}".replace("%", " %") in PAGE
    assert f"{import_check.SAMPLE} of the files (`--sample`)" in PAGE
    assert f"below {import_check.MIN_COSINE} (`--min-cosine`)" in PAGE
