"""The Ray engine on a cluster of several nodes, all of them on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from secondglance.errors import ClusterError
from secondglance.pipelines import ray_engine
from secondglance.pipelines.index import Progress
from tests.integration.test_malformed import MALFORMED, MUST_FAIL
from tests.integration.test_ray_engine import same
from tests.libraries import Open, counts, verify
from tests.media import picture, write_pictures

pytest.importorskip("ray", reason="ray is not installed")
# Each node starts a dozen processes, which takes a while on a busy machine.
pytestmark = [pytest.mark.usefixtures("one_embedder", "own_workers"), pytest.mark.timeout(900)]

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
# By itself the head believes for 15 s that a killed node only rests.
HEALTH = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000}


class Nodes:
    """A head, and further nodes for a test to kill."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.address: str = cluster.address

    def add(self) -> Any:
        with warnings.catch_warnings(action="ignore"):
            return self._cluster.add_node(**NODE)

    def kill(self, node: Any) -> None:
        with warnings.catch_warnings(action="ignore"):
            self._cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else they wait for all else on a busy machine
        # What the nodes import; theirs is no pytest.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with warnings.catch_warnings(action="ignore"):
            from ray.cluster_utils import Cluster

            head = {**NODE, "include_dashboard": False, "_system_config": HEALTH}
            cluster = Cluster(initialize_head=True, head_node_args=head)
        yield Nodes(cluster)
        with warnings.catch_warnings(action="ignore"):
            cluster.shutdown()


Drivers = Callable[[], list[psutil.Process]]


def spawned() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.fixture
def drivers() -> Drivers:
    """Processes below this one that speak to Ray as an ingestion job."""
    before = spawned()  # decode workers of other tests
    return lambda: [process for process in spawned() if process not in before]


def test_a_node_killed_half_way_leaves_the_library_that_one_machine_does(
    media: Path,
    open_library: Open,
    nodes: Nodes,
    drivers: Drivers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copy(media / "photos" / "picture-0001.jpg", media / "a-copy.jpg")
    (media / "captions.jsonl").write_text('{"file": "clip.mp4", "caption": "three scenes"}')
    (media / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no jpeg")
    picture(5, width=2000, height=1500).save(media / "large.jpg", quality=90)
    content = (media / "large.jpg").read_bytes()
    for number in range(40):  # large enough that decoding takes a while, each of its own content
        (media / f"{number:02}.jpg").write_bytes(content + number.to_bytes(2, "big"))
    if MALFORMED.is_dir():
        for name in (*sorted(MUST_FAIL), "mp4_named.jpg", "rotate90.mp4"):
            shutil.copy(MALFORMED / "files" / name, media)
    recall = {**open_library.settings["recall"], "batch_size": 4}
    locally, on_ray = open_library("locally"), open_library("on-ray", recall=recall)
    expected = locally.index([media])
    seen: list[Progress] = []
    killed_at: list[int] = []
    second = nodes.add()

    def told(progress: Progress) -> None:
        seen.append(progress)
        if progress.stage == "embed" and progress.done >= 10 and not killed_at:
            killed_at.append(progress.done)
            nodes.kill(second)

    found = on_ray.index([media], engine="ray", address=nodes.address, on_progress=told)
    assert 10 <= killed_at[0] < found.files - 10
    assert counts(found) == counts(expected)
    assert found.failed >= 1
    assert found.errors == expected.errors
    assert (found.segments, found.warnings) == (expected.segments, expected.warnings)
    same(on_ray, locally)
    verify(on_ray)
    embedding = [progress.done for progress in seen if progress.stage == "embed"]
    assert embedding == sorted(embedding)
    assert embedding[-1] == found.files
    assert drivers() == []

    def start(*_: object) -> None:
        raise AssertionError("Ray is started for nothing")

    monkeypatch.setattr(ray_engine.RayEngine, "_start", start)
    again = on_ray.index([media], engine="ray", address=nodes.address)
    assert (again.unchanged, again.failed) == (found.indexed, found.failed)
    assert counts(again).keys() == {"files", "unchanged", "failed"}


def test_nodes_with_another_version_are_refused(
    media: Path,
    open_library: Open,
    nodes: Nodes,
    drivers: Drivers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_engine, "__version__", "0.0.0")
    with pytest.raises(ClusterError, match=r"has secondglance \S+, this program is 0\.0\.0"):
        open_library().index([media], engine="ray", address=nodes.address)
    assert drivers() == []


def test_without_an_address_ray_is_started_here_and_says_nothing(
    tmp_path: Path, open_library: Open
) -> None:
    write_pictures(tmp_path / "media", 3)
    clip = open_library.settings["recall"]["model"]
    command = ["index", str(tmp_path / "media"), "--library", str(tmp_path / "library")]
    options = [
        "--preset",
        "starter",
        "--set",
        f"recall.model={clip}",
        "--set",
        "store.backend=exact",
    ]
    before = set(Path("/tmp").glob("sg-ray-*"))
    done = subprocess.run(
        [sys.executable, "-m", "secondglance", *command, *options, "--engine", "ray", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "RAY_ADDRESS": "", "RAY_worker_niceness": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["indexed"] == 3
    assert not any(
        word in done.stderr.lower() for word in ("ray::", "raylet", "warning", "dashboard")
    )
    assert set(Path("/tmp").glob("sg-ray-*")) <= before
