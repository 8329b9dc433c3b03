"""Reports over HTTP: found by name, shown in a sandbox, whatever their files say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from secondglance.library import Library
from secondglance.server import reports
from secondglance.server.options import ServerOptions
from tests.served import client

SECRET = "not for you"


def write(folder: Path, *, page: str = "<title>x</title>", numbers: str | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(page)
    if numbers is not None:
        (folder / "evaluation.json").write_text(numbers)
    return folder


def saved(**evaluation: object) -> str:
    return json.dumps({"format": 1, "paths": [], "evaluation": evaluation})


@pytest.fixture
def http(library: Library, tmp_path: Path) -> Iterator[httpx.Client]:
    shelf = tmp_path / "shelf"
    systems = [{"name": "clip"}, {"name": "rerank"}]
    where = "/srv/R & D/my.library"
    write(
        shelf / "spring",
        page=f"<h1>{where.replace('&', '&amp;')}/a.jpg</h1><script>1</script>",
        numbers=saved(
            library=where,
            created="2026-01-02T03:04:05Z",
            queries={"a": {}, "b": {}},
            systems=systems,
        ),
    )
    write(shelf / "odd", numbers=saved(library=7, created=[1], queries=3, systems={"name": 1}))
    write(shelf / "broken", numbers="{" * 50_000)
    write(shelf / "bare")
    (shelf / "no-report").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report.html").write_text(SECRET)
    (shelf / "link").symlink_to(tmp_path / "elsewhere")
    (shelf / "leak").mkdir()
    (shelf / "leak" / "report.html").symlink_to(tmp_path / "elsewhere" / "report.html")
    alone = write(tmp_path / "alone", numbers=saved(library="l", systems=[{"name": "\ud800"}]))
    twin = write(tmp_path / "twins" / "spring", page="another").parent
    options = ServerOptions(reports=(shelf, alone, twin, tmp_path / "gone"))
    with client(library, options) as found:
        yield found


def test_reports_are_listed_with_what_their_files_say(http: httpx.Client) -> None:
    found = {report["name"]: report for report in http.get("/v1/reports").json()}
    assert set(found) == {"spring", "odd", "broken", "bare", "alone", "spring 2"}
    assert found["spring"] == {
        "name": "spring",
        "title": "my.library: clip, rerank",
        "created": "2026-01-02T03:04:05Z",
        "queries": 2,
    }
    for name in ("odd", "broken", "bare"):
        assert found[name] == {"name": name, "title": name, "created": None, "queries": None}
    assert found["alone"]["title"] == "l: ?"


def test_a_report_is_shown_in_a_sandbox_without_paths(http: httpx.Client) -> None:
    answer = http.get("/v1/reports/spring")
    assert answer.status_code == 200
    assert answer.text == "<h1>my.library/a.jpg</h1><script>1</script>"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "script-src 'unsafe-inline'" in policy
    assert "default-src 'none'" in policy
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert http.get("/v1/reports/spring 2").text == "another"


@pytest.mark.parametrize(
    "name",
    ["link", "leak", "no-report", "gone", "%2e%2e", "..%2felsewhere", "%2fetc", "a%00b"],
)
def test_nothing_else_is_shown(http: httpx.Client, name: str) -> None:
    answer = http.get(f"/v1/reports/{name}")
    assert SECRET not in answer.text
    assert answer.status_code == 404


def test_a_large_file_is_not_read(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_NUMBERS_MB", 0)
    monkeypatch.setattr(reports, "MAX_PAGE_MB", 0)
    found = {report["name"]: report for report in http.get("/v1/reports").json()}
    assert found["spring"]["queries"] is None
    answer = http.get("/v1/reports/spring")
    assert (answer.status_code, answer.json()["type"][-16:]) == (503, "report-too-large")
