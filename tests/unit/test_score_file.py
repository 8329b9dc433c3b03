"""The file under the cache of scores: its size, what it survives, and who may share it."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secondglance.rerank import score_file
from secondglance.rerank.answers import answer
from secondglance.rerank.digests import FileIdentity
from secondglance.rerank.score_cache import ScoreCache


def test_the_file_stays_within_its_bound_and_old_scores_go_first(
    cache: ScoreCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "USE_NOTED_NS", 0)
    old = [secrets.token_bytes(32) for _ in range(20)]
    cache.put(dict.fromkeys(old, answer(1.0)))
    used, unused = old[:10], old[10:]
    last: list[bytes] = []
    for round_ in range(50):
        last = [secrets.token_bytes(32) for _ in range(600)]
        cache.put(dict.fromkeys(last, answer(2.0)))
        for name in range(20):
            path = f"/{'folder/' * 10}{round_}-{name}"
            cache.keep_file_hash(FileIdentity(path=path, size=1, mtime_ns=1, ctime_ns=1), "0" * 64)
        assert len(cache.get(used)) == 10
        assert cache.path.stat().st_size <= 1 << 20
    assert cache.get(unused) == {}
    assert len(cache.get(last)) == len(last)


def test_a_lower_bound_makes_a_large_file_small(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    large = ScoreCache(path, max_mb=8)
    for _ in range(10):
        large.put({secrets.token_bytes(32): answer(1.0) for _ in range(4000)})
    large.close()
    assert path.stat().st_size > 2 << 20
    small = ScoreCache(path, max_mb=1)
    small.put({b"new": answer(3.0)})
    assert path.stat().st_size <= 1 << 20
    assert small.get([b"new"]) == {b"new": answer(3.0)}
    small.close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"no database at all, not even nearly" * 99)


def _holes(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        for start in range(4096, size, 4096):
            file.seek(start)
            file.write(b"\xff" * 2048)


def _foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def _emptied(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE scores")
    db.close()


@pytest.mark.parametrize("damage", [_garbage, _holes, _foreign, _emptied])
def test_a_damaged_file_is_moved_aside_with_one_warning(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "scores.sqlite"
    keys = [secrets.token_bytes(32) for _ in range(500)]
    for _ in range(2):  # the second time over what was moved aside before
        cache = ScoreCache(path, max_mb=1)
        cache.put(dict.fromkeys(keys, answer(1.0)))
        cache.close()
        damage(path)
        caplog.clear()
        healed = ScoreCache(path, max_mb=1)
        assert healed.get(keys) == {}
        healed.put({keys[0]: answer(2.0)})
        assert healed.get(keys) == {keys[0]: answer(2.0)}
        healed.close()
        [record] = caplog.records
        assert record.levelno == logging.WARNING
        assert "scores.sqlite.damaged" in record.message
        assert (tmp_path / "scores.sqlite.damaged").is_file()


def test_damage_under_an_open_file_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    keys = [secrets.token_bytes(32) for _ in range(2000)]
    caches = [ScoreCache(path, max_mb=1) for _ in range(2)]
    caches[0].put(dict.fromkeys(keys, answer(1.0)))
    assert len(caches[1].get(keys)) == len(keys)
    for cache in caches:
        cache._disconnect()
    _holes(path)
    for number, cache in enumerate(caches):
        cache.get(keys)
        cache.put({keys[number]: answer(3.0 + number)})
    # The second finds the file that the first has made, and leaves it there.
    for cache in caches:
        assert cache.get(keys) == {keys[0]: answer(3.0), keys[1]: answer(4.0)}
        cache.close()


FULL_DISK = """
import logging, resource, secrets, signal, sys
from pathlib import Path
from secondglance.rerank.score_cache import ScoreCache
from secondglance.types import PairScore

logging.basicConfig(format="%(levelname)s %(message)s")
cache = ScoreCache(Path(sys.argv[1]), max_mb=8)
cache.put({b"first": PairScore(score=0.5)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for _ in range(40):
    cache.put({secrets.token_bytes(32): PairScore(score=0.5) for _ in range(500)})
    cache.get([b"first"])
cache.close()
print("done")
"""


def test_a_disk_that_fills_up_costs_one_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "scores.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "done\n", done.stderr
    assert done.stderr.count("WARNING") == 1
    assert "cannot be used" in done.stderr


MANY = """
import sys
from pathlib import Path
from secondglance.rerank.score_cache import ScoreCache
from secondglance.types import PairScore

mine, path = int(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
cache = ScoreCache(path, max_mb=8)
for number in range(200):
    key = b"%d-%d" % (mine, number)
    cache.put({key: PairScore(score=0.5, log_odds=float(number))})
    assert cache.get([key])[key].log_odds == number
cache.close()
"""


def test_several_processes_share_one_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, str(number), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:  # all at once, with a file that is not there yet
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    cache = ScoreCache(path, max_mb=8)
    keys = [b"%d-%d" % (mine, number) for mine in range(3) for number in range(200)]
    assert len(cache.get(keys)) == 600
    cache.close()


def test_several_threads_share_one_cache(cache: ScoreCache) -> None:
    def work(mine: int) -> int:
        found = 0
        for number in range(100):
            key = b"%d-%d" % (mine, number)
            cache.put({key: answer(number)})
            found += cache.get([key]) == {key: answer(number)}
        return found

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8))) == [100] * 8


def test_after_closing_nothing_is_found_and_nothing_fails(cache: ScoreCache) -> None:
    cache.put({b"k": answer(1.0)})
    cache.close()
    cache.close()
    cache.put({b"l": answer(1.0)})
    assert cache.get([b"k", b"l"]) == {}
