"""The page's files: how they are served, and that every word is there in every language."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from secondglance.server.routes.page import FOLDER, pages

# Keys of words look like `search.title`; so do names of files, which end otherwise.
KEY = re.compile(r"""['"]([a-z]+\.[a-z_]+)['"]""")
FILE = re.compile(r"\.(css|csv|html|js|json|svg)$")
SCRIPTS = sorted(FOLDER.glob("*.js"))
DOCUMENTS = sorted(FOLDER.glob("*.html"))


def words(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((FOLDER / "i18n" / f"{language}.json").read_text("utf-8"))
    return found


def used() -> set[str]:
    texts = [path.read_text("utf-8") for path in (*SCRIPTS, *DOCUMENTS)]
    return {key for text in texts for key in KEY.findall(text) if not FILE.search(key)}


def test_every_word_is_there_in_both_languages_and_used() -> None:
    english, chinese = words("en"), words("zh")
    assert set(english) == set(chinese)
    assert used() == {key for key in english if not key.endswith(".one")}
    assert {key.removesuffix(".one") for key in english} == used()


def test_both_languages_fill_in_the_same_values() -> None:
    english, chinese = words("en"), words("zh")
    for key, text in english.items():
        if not key.endswith(".one"):
            assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", chinese[key])), (
                key
            )
        assert text.strip()
        assert chinese[key].strip()


def test_a_word_that_is_missing_is_noticed() -> None:
    assert KEY.findall("t('search.nowhere') + \"app.gone\"") == ["search.nowhere", "app.gone"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_write_no_html_and_fetch_nothing_from_elsewhere(path: Any) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert set(re.findall(r"https?://[^'\"\s)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert len(text.splitlines()) <= 420


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_page_has_no_script_or_style_of_its_own(path: Path) -> None:
    text = path.read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert re.findall(r"<script[^>]*>[^<]", text) == []
    sources = re.findall(r"""(?:src|href)="([^"#]+)""", text)
    assert sources
    # Relative, for a library among several has its page in a folder.
    assert all(source.startswith(("static/@/", ".")) for source in sources)


def test_the_page_names_files_that_are_there_and_may_be_kept(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    linked = set(re.findall(r'"(static/[^"]+)"', answer.text))
    assert {path.rpartition("/")[2] for path in linked} == {
        "app.css",
        "app.js",
        "icon.svg",
        "theme.js",
        "views.css",
    }
    for path in linked:
        found = http.get(f"/{path}")
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"


def test_modules_that_are_imported_are_there() -> None:
    for path in SCRIPTS:
        for name in re.findall(r"from '\./([\w.]+)'", path.read_text("utf-8")):
            assert name in pages().files, f"{path.name} imports {name}"


def test_a_file_without_the_version_is_asked_for_again(http: httpx.Client) -> None:
    first = http.get("/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/static/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    changed = http.get("/static/app.js", headers={"If-None-Match": '"other"'})
    assert changed.content == first.content
    head = http.head("/")
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/static/",
        "/static/nothing.js",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/i18n",
    ],
)
def test_nothing_else_is_served(http: httpx.Client, path: str) -> None:
    request = http.build_request("GET", "/")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = http.send(request)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
