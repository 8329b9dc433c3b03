"""Runs of a library in processes of their own, which may be killed; see `tests.killing`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


class Runner:
    """Gives orders to `tests.killing`, which forks a process for each.

    Args:
        clip: Of the libraries that are indexed; None: the starter's.
    """

    def __init__(self, clip: Path | None = None) -> None:
        self._clip = clip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the runner ended with {self._process.wait()}"
        return line

    def __call__(self, library: Path, media: Path, store: str, **order: Any) -> dict[str, Any]:
        """Indexes; the answer is what `tests.killing` says."""
        settings: dict[str, Any] = {"store": {"backend": store}, "ingest": {"workers": 1}}
        if self._clip is not None:
            # Vectors of an untrained model are all alike.
            settings["recall"] = {"model": str(self._clip)}
            settings["ingest"]["alike"] = 1.0
        order = {"settings": settings, **order}
        return self._order(library=str(library), media=str(media), **order)

    def change(self, library: Path, model: Path, **order: Any) -> dict[str, Any]:
        """Changes the model of a library."""
        settings = {"recall": {"model": str(model)}, "ingest": {"workers": 1}}
        return self._order(library=str(library), change=settings, **order)

    def _order(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._answer())
        return answer

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.communicate()
