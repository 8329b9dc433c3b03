"""kill -9 in the middle of a run, and at random moments, again and again on one library."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forking import Runner
from tests.media import picture, write_clip, write_pictures

KILLS = 8
"""For each store; the moments come from the seed, what they hit from the machine."""
WRITE_RECORDS = 4
"""Many small writes, so that kills hit them."""


@pytest.fixture(scope="module")
def runner(untrained_clip: Path) -> Iterator[Runner]:
    runner = Runner(untrained_clip)
    yield runner
    runner.close()


def change(media: Path, round_: int, chosen: random.Random) -> None:
    """Adds, changes, moves, copies and deletes files."""
    files = sorted(media.rglob("*.jpg"))
    victims = chosen.sample(files, 6)
    victims[0].unlink()
    victims[1].rename(media / f"moved-{round_}.jpg")
    shutil.copy(victims[2], media / f"copy-{round_}.jpg")
    picture(5000 + round_).save(victims[3])
    (media / f"folder-{round_}").mkdir()
    victims[4].rename(media / f"folder-{round_}" / victims[4].name)
    write_pictures(media, 12, first=100 * (round_ + 1))


@pytest.mark.parametrize("store", ["milvus", "faiss", "exact"])
def test_killed_in_the_middle_loses_nothing(tmp_path: Path, runner: Runner, store: str) -> None:
    library, media = tmp_path / "library", tmp_path / "media"
    write_pictures(media, 120)
    write_clip(media / "clip.mp4", [1, 2, 3])
    killed = runner(library, media, store, write_records=40, kill_after_files=70)
    assert killed == {"killed": True}
    interrupted = sqlite3.connect(library / "catalog.sqlite")
    done = interrupted.execute("SELECT count(*) FROM files WHERE state = 'done'").fetchone()[0]
    interrupted.close()
    assert 0 < done < 121, "the kill came too early or too late to test anything"
    found = runner(library, media, store, write_records=40)
    assert found["before"]["agrees"], found["before"]
    report = found["report"]
    assert (report["files"], report["indexed"], report["unchanged"]) == (121, 121 - done, done)
    assert found["after"]["agrees"], found["after"]
    assert found["after"]["unfinished"] == 0
    assert found["after"]["stored"] == found["after"]["records"] == 123
    once = dict.fromkeys((str(path) for path in media.glob("*.jpg")), 1)
    assert found["stored"] == {**once, str(media / "clip.mp4"): 3}


@pytest.mark.parametrize("store", ["faiss", "milvus"])
def test_killed_at_any_moment_every_file_is_there_once(
    tmp_path: Path, runner: Runner, store: str
) -> None:
    chosen = random.Random(f"kills of {store}")
    library, media = tmp_path / "library", tmp_path / "media"
    write_pictures(media, 40)
    small = {"write_records": WRITE_RECORDS}
    whole = runner(library, media, store, **small)
    assert whole["report"]["indexed"] == 40
    unfinished = killed = 0
    for round_ in range(KILLS):
        change(media, round_, chosen)
        # The first run took longer than those to come: few moments fall behind their end.
        moment = chosen.uniform(0.02, 0.8 * whole["report"]["seconds"] + 0.3)
        killed += runner(library, media, store, kill_after_s=moment, **small)["killed"]
        found = runner(library, media, store, **small)
        # Right after the kill: what is done is stored, and nothing is stored that nobody knows.
        assert found["before"].get("agrees", True), found["before"]
        unfinished += found["before"].get("unfinished", 0)
        files = {str(path) for path in media.rglob("*.jpg")}
        assert found["after"]["agrees"], found["after"]
        assert found["after"]["unfinished"] == 0
        assert found["report"]["errors"] == []
        assert found["after"]["stored"] == found["after"]["records"]
        assert found["stored"] == dict.fromkeys(files, 1)
    # Where the machine's speed changes, runs end before their kill; each kill counts for itself.
    assert killed >= KILLS // 4, "the kills came too late to test anything"
