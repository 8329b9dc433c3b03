"""Another model for a library, as a user changes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from secondglance.library import Library
from tests.commands import Run, run
from tests.media import write_pictures


def test_a_model_is_changed_shown_kept_and_given_up(tmp_path: Path, untrained_clip: Path) -> None:
    media, folder = tmp_path / "media", tmp_path / "library"
    write_pictures(media, 4)
    settings = {
        "recall": {"model": str(untrained_clip)},
        "store": {"backend": "exact"},
        "ingest": {"workers": 1},
    }
    with Library.open(folder, preset="starter", settings=settings) as library:
        library.index([media])

    def call(*arguments: str) -> Run:
        wide = {"COLUMNS": "400", "SECONDGLANCE_INGEST__WORKERS": "1"}
        done = run(*arguments, "--library", folder, **wide)
        assert done.returncode == 0, done.stderr
        return done

    same = str(shutil.copytree(untrained_clip, tmp_path / "same"))
    changed = call("index", "--preset", "starter", "--keep-old")
    assert f"the library has builtin:starter now, instead of {untrained_clip}" in changed.stdout
    assert f"kept: {folder / 'exact'}" in changed.stdout
    assert f"old vectors of {untrained_clip}: 4 files, kept" in call("status").stdout
    # The same command again finds nothing to do.
    assert "has builtin:starter already" in call("index", "--preset", "starter").stdout
    back = json.loads(
        call("index", str(media), "--set", f"recall.model={untrained_clip}", "--json").stdout
    )
    assert (back["indexed"], back["unchanged"], back["failed"]) == (0, 4, 0)
    assert back["change"]["model"] == str(untrained_clip)
    assert back["change"]["before"] == "builtin:starter"
    assert "beside" not in call("status").stdout
    assert "0 sets of vectors given up" in call("index", "--discard").stdout
    assert "4 unchanged" in call("index", str(media)).stdout
    renamed = call("index", "--set", f"recall.model={same}", "--json")
    assert json.loads(renamed.stdout)["indexed"] == 0
