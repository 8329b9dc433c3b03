"""Index jobs over HTTP: what they may index, how they wait, end and are cancelled."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from filelock import FileLock

from secondglance.library import Library
from secondglance.server import jobs
from secondglance.server.options import ServerOptions
from tests.libraries import Open, verify
from tests.media import picture, write_pictures
from tests.served import client

SETTLE_S = 120

# Jobs that take a while: workers have to start.
pytestmark = pytest.mark.usefixtures("own_workers")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    write_pictures(folder / "first", 3)
    return folder


@pytest.fixture
def opened(
    tmp_path: Path, pictures: Path, untrained_clip: Path, untrained_reranker: Path
) -> Iterator[Library]:
    opener = Open(tmp_path, untrained_clip, untrained_reranker)
    library = opener()
    library.index([pictures])
    yield library
    opener.close()


def wait(
    http: httpx.Client, url: str, until: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """A job once something holds of it; if nothing is said, once it has ended."""
    ends = time.monotonic() + SETTLE_S
    while time.monotonic() < ends:
        job: dict[str, Any] = http.get(url).json()
        if until(job) if until else job["ended"] is not None:
            return job
        time.sleep(0.02)
    raise AssertionError(f"the job stays as it is: {job}")


def paths_found(http: httpx.Client) -> set[str]:
    answer = http.post("/v1/search", json={"query": "anything", "k": 100, "rerank": False})
    assert answer.status_code == 200
    return {hit["path"] for hit in answer.json()["hits"]}


def test_a_job_brings_new_files_to_searches_of_the_same_server(
    opened: Library, pictures: Path
) -> None:
    with client(opened) as http:
        assert paths_found(http) == {f"first/picture-{n:04}.jpg" for n in range(3)}
        picture(7).save(pictures / "first" / "harbour.jpg")
        (pictures / "first" / "broken.jpg").write_text("no picture")
        answer = http.post("/v1/index", json={})
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
        job = wait(http, answer.headers["location"])
        assert (job["state"], job["paths"], job["problem"]) == ("done", ["album"], None)
        assert job["created"] <= job["started"] <= job["ended"]
        report = job["report"]
        counted = ("files", "indexed", "unchanged", "failed", "segments", "error_count")
        assert [report[name] for name in counted] == [5, 1, 3, 1, 1, 1]
        assert [error["path"] for error in report["errors"]] == ["album/first/broken.jpg"]
        assert job["progress"]["stage"] in ("tidy", "describe")
        assert "first/harbour.jpg" in paths_found(http)
        words = http.post("/v1/search", json={"query": "harbour", "rerank": False}).json()
        [hit] = [hit for hit in words["hits"] if hit["path"] == "first/harbour.jpg"]
        assert hit["lexical_score"] > 0
        assert str(pictures.parent) not in http.get("/v1/jobs").text


def test_a_job_of_one_folder_leaves_the_rest_and_the_roots(opened: Library, pictures: Path) -> None:
    write_pictures(pictures / "second", 1, first=10)
    write_pictures(pictures / "third", 1, first=11)
    with client(opened) as http:
        posted = http.post("/v1/index", json={"paths": ["album/second"]})
        job = wait(http, posted.headers["location"])
        assert (job["report"]["files"], job["report"]["indexed"]) == (1, 1)
        found = paths_found(http)
        assert "second/picture-0010.jpg" in found
        assert not any(path.startswith("third") for path in found)
        roots = http.get("/v1/library").json()["roots"]
        assert [(root["name"], root["files"]) for root in roots] == [("album", 4)]


def test_a_cancelled_job_keeps_what_it_has_and_the_next_goes_on(
    opened: Library, pictures: Path
) -> None:
    write_pictures(pictures / "many", 60, first=100)
    with client(opened) as http:
        url = http.post("/v1/index", json={}).headers["location"]
        wait(http, url, lambda job: job["progress"] is not None)
        assert len(paths_found(http)) >= 3  # searches go on
        assert http.delete(url).status_code == 202
        job = wait(http, url)
        assert job["state"] == "cancelled"
        assert (job["problem"], job["report"]["failed"]) == (None, 0)
        verify(opened)
        kept = opened.status()["counts"]["image"]
        assert kept == 3 + job["report"]["indexed"] < 63
        again = http.delete(url)
        assert (again.status_code, again.json()["ended"]) == (202, job["ended"])
        job = wait(http, http.post("/v1/index", json={}).headers["location"])
        assert (job["state"], job["report"]["indexed"]) == ("done", 63 - kept)
        verify(opened)


def test_jobs_wait_for_another_process_and_for_each_other(
    opened: Library, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_WAITING", 2)
    monkeypatch.setattr(jobs, "BUSY_EVERY_S", 0.05)
    lock = FileLock(opened.folder / "index.lock")
    with client(opened) as http:
        with lock:
            first = http.post("/v1/index", json={}).headers["location"]
            job = wait(http, first, lambda job: bool(job["message"]))
            assert job["state"] == "waiting"
            assert job["message"] == "another process is indexing into the library"
            second = http.post("/v1/index", json={"paths": ["album/first"]})
            same = http.post("/v1/index", json={"paths": ["album/first"]})
            full = http.post("/v1/index", json={"paths": ["album/first/picture-0001.jpg"]})
            assert same.json()["id"] == second.json()["id"]
            assert full.status_code == 429
            assert int(full.headers["retry-after"]) >= 1
            cancelled = http.delete(second.headers["location"]).json()
            assert (cancelled["state"], cancelled["report"]) == ("cancelled", None)
            third = http.post("/v1/index", json={"paths": ["album/first/picture-0001.jpg"]})
            assert third.json()["state"] == "waiting"
        done = wait(http, first)
        assert (done["state"], done["message"]) == ("done", "")
        later = wait(http, third.headers["location"])
        assert later["state"] == "done"
        assert later["started"] >= done["ended"]
        listed = [job["id"] for job in http.get("/v1/jobs").json()]
        assert listed == [later["id"], cancelled["id"], done["id"]]


def test_the_end_of_the_server_stops_a_job_and_says_so(
    opened: Library, pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(pictures / "many", 60, first=100)
    with caplog.at_level(logging.INFO, logger="secondglance"), client(opened) as http:
        url = http.post("/v1/index", json={}).headers["location"]
        wait(http, url, lambda job: job["progress"] is not None)
    assert "was stopped" in caplog.text
    assert str(pictures) not in caplog.text
    verify(opened)
    assert opened.status()["counts"]["image"] < 63


REFUSED = {
    "../album": 404,
    "album/../../etc": 400,
    "album/..": 400,
    "/etc": 404,
    "album//etc": 400,
    "album\\first": 400,
    "album/first\0": 400,
    "etc": 404,
    "album/none": 404,
    "album/away": 404,
    "album/away/picture-0000.jpg": 404,
    "album/loop": 404,
    "album/.hidden": 404,
    "album/" + 400 * "x": 404,
    "album/\ud800": 422,
    "": 422,
    5000 * "x": 422,
}


def test_only_what_lies_in_a_root_may_be_indexed(opened: Library, pictures: Path) -> None:
    write_pictures(pictures / ".hidden", 1)
    (pictures / "away").symlink_to(write_pictures(pictures.parent / "outside", 1)[0].parent)
    (pictures / "loop").symlink_to(pictures / "loop")
    with client(opened) as http:
        for path, status in REFUSED.items():
            body = json.dumps({"paths": [path]})  # httpx would not write half a character
            headers = {"Content-Type": "application/json"}
            answer = http.post("/v1/index", content=body, headers=headers)
            assert answer.status_code == status, (path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert str(pictures.parent) not in answer.text
        assert http.get("/v1/jobs").json() == []


def test_a_folder_that_the_operator_allows_may_be_indexed(opened: Library, tmp_path: Path) -> None:
    write_pictures(tmp_path / "more" / "album", 2, first=50)
    options = ServerOptions(index_roots=(tmp_path / "more" / "album", tmp_path / "gone"))
    with client(opened, options) as http:
        roots = {root["name"]: root for root in http.get("/v1/library").json()["roots"]}
        above = tmp_path.name
        assert set(roots) == {f"album ({above})", "album (more)", "gone"}
        assert roots["album (more)"] == {
            "name": "album (more)",
            "files": 0,
            "present": True,
            "absence": None,
        }
        assert roots["gone"]["absence"] == "missing"
        posted = http.post("/v1/index", json={"paths": ["album (more)"]})
        assert wait(http, posted.headers["location"])["report"]["indexed"] == 2
        assert {"picture-0050.jpg", "picture-0051.jpg"} <= paths_found(http)
        gone = http.post("/v1/index", json={"paths": ["gone"]})
        problem = wait(http, gone.headers["location"])
        assert problem["state"] == "failed"
        assert problem["problem"]["detail"] == "there is no file or folder 'gone'"


def test_the_library_is_described_without_paths(http: httpx.Client, media: Path) -> None:
    answer = http.get("/v1/library")
    found = answer.json()
    assert found["counts"] == {"failed": 0, "image": 6, "records": 11, "text": 1, "video": 1}
    assert (found["store"], found["vectors"], found["failure_count"]) == ("exact", 11, 0)
    assert found["roots"] == [{"name": "media", "files": 8, "present": True, "absence": None}]
    assert (found["embedder"], found["reranker"]) == ("untrained-clip", "untrained-reranker")
    assert str(media.parent) not in answer.text
    assert "/tmp" not in answer.text


def test_a_library_without_folders_has_nothing_to_index(
    tmp_path: Path, untrained_clip: Path, untrained_reranker: Path
) -> None:
    opener = Open(tmp_path, untrained_clip, untrained_reranker)
    with client(opener()) as http:
        answer = http.post("/v1/index", json={})
        assert answer.status_code == 400
        assert "--index-root" in answer.json()["remedy"]
        assert http.get("/v1/library").json()["vectors"] == 0
    opener.close()


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_job_is_404(http: httpx.Client, method: str) -> None:
    answer = http.request(method, "/v1/jobs/nothing")
    assert answer.status_code == 404
    assert "nothing" in answer.json()["detail"]
