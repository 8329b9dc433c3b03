"""The page of `judge` in a real browser: what an annotator does with keys and fingers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from secondglance.evaluation.judgment_log import JudgmentLog, read_grades
from secondglance.evaluation.types import EvaluationQuery
from secondglance.pipelines import judge_server
from secondglance.pipelines.judge import Pool, PooledDocument, PooledQuery, Stretch
from secondglance.pipelines.judging import Judging
from secondglance.types import Query
from tests.browser import PHONE, sideways
from tests.media import write_clip, write_pictures

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "secret-token"
LONG = "an_unbroken_name_" * 12
COMMAND = f"secondglance evaluate --library /{LONG} --queries q.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "judgments.ann.jsonl"


@pytest.fixture
def address(tmp_path: Path, log: Path) -> Iterator[str]:
    """Of a running page about three queries, four candidates in all."""
    one, other = write_pictures(tmp_path, 2)
    clip = write_clip(tmp_path / "clip.mp4", [3], scene_s=2.0)
    documents = (
        PooledDocument(document=f"{LONG}.jpg", path=one, kind="image", caption=f"a cat {LONG}"),
        PooledDocument(
            document="clip.mp4",
            path=clip,
            kind="video",
            stretches=(
                Stretch(start_s=0.0, end_s=1.0, keyframe_s=0.5),
                Stretch(start_s=1.0, end_s=2.0, keyframe_s=1.5),
            ),
        ),
        PooledDocument(
            document="t.txt", path=tmp_path / "t.txt", kind="text", passages=("<b>x</b>", LONG)
        ),
        PooledDocument(document="other.jpg", path=other, kind="image"),
    )
    queries = (
        EvaluationQuery(id="cat", query=Query(text=f"a cat {LONG}", not_text=LONG), kind="text"),
        EvaluationQuery(id="like", query=Query(image=one), kind="image"),
    )
    pool = Pool(
        queries=(
            PooledQuery(query=queries[0], documents=documents[:3]),
            PooledQuery(query=queries[1], documents=documents[3:]),
        ),
        systems=("clip",),
        depth=10,
    )
    judging = Judging(pool, JudgmentLog(log, annotator="ann"), qrels=tmp_path / "ann.qrels")
    listening = judge_server.listen("127.0.0.1", 0)
    server = judge_server.make_server(
        judging, host="127.0.0.1", listening=listening, token=TOKEN, next_command=COMMAND
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield judge_server.address("127.0.0.1", listening, TOKEN)
    server.should_exit = True
    thread.join(timeout=10)
    listening.close()
    judging.close()
    assert not thread.is_alive()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Opened at a desk; every error of the page, and what its policy refuses, fails the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(10_000)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    opened.goto(address)
    shown(opened, 1)
    yield opened
    context.close()
    assert problems == []


def shown(page: Page, place: int, *, query: int = 1, of: int = 3) -> None:
    page.get_by_text(f"Query {query} of 2, candidate {place} of {of}", exact=True).wait_for()


def counted(page: Page, text: str) -> None:
    page.locator("#count").get_by_text(text, exact=True).wait_for()


def grades(log: Path) -> dict[str, int]:
    """What the file holds, by document."""
    by_annotator, warnings = read_grades([log])
    assert not warnings
    return {document: grade for (_, document), grade in by_annotator["ann"].items()}


def test_a_key_grades_and_the_next_one_comes(page: Page, log: Path) -> None:
    counted(page, "0 of 4")
    page.locator("#stage img").wait_for()
    page.keyboard.press("2")
    shown(page, 2)
    counted(page, "1 of 4")
    assert page.locator("#stage video, #stage img").count() == 1
    assert page.locator(".chip").all_inner_texts() == ["0:00-0:01", "0:01-0:02"]
    page.keyboard.press("0")
    shown(page, 3)
    assert page.locator(".passages p").first.inner_text() == "<b>x</b>"
    assert grades(log) == {f"{LONG}.jpg": 2, "clip.mp4": 0}
    page.keyboard.press("ArrowLeft")
    shown(page, 2)
    assert page.locator(".grade[aria-pressed=true]").get_attribute("data-grade") == "0"


def test_undo_takes_the_last_answer_back(page: Page, log: Path) -> None:
    page.keyboard.press("3")
    shown(page, 2)
    page.keyboard.press("u")
    shown(page, 1)
    counted(page, "0 of 4")
    page.get_by_text("Undone").wait_for()
    assert page.locator(".grade[aria-pressed=true]").count() == 0
    page.keyboard.press("u")
    page.get_by_text("There is nothing to undo").wait_for()
    page.keyboard.press("1")
    shown(page, 2)
    assert grades(log) == {f"{LONG}.jpg": 1}


def test_help_lies_over_the_page_and_takes_its_keys(page: Page) -> None:
    dialog = page.get_by_role("dialog")
    assert not dialog.is_visible()
    page.keyboard.press("?")
    dialog.wait_for()
    assert "Undo the last answer" in dialog.inner_text()
    page.keyboard.press("3")
    page.keyboard.press("u")
    page.keyboard.press("?")
    dialog.wait_for(state="hidden")
    shown(page, 1)
    counted(page, "0 of 4")
    page.locator("#help-button").click()
    dialog.wait_for()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    page.keyboard.press("1")
    shown(page, 2)
    counted(page, "1 of 4")


def test_the_end_says_what_comes_next(page: Page, log: Path) -> None:
    page.keyboard.press("3")
    shown(page, 2)
    page.keyboard.press("s")
    shown(page, 3)
    page.keyboard.press("b")
    shown(page, 1, query=2, of=1)
    assert page.locator("#query-text").inner_text() == "Like this picture"
    assert page.locator("#query-picture").evaluate("async x => (await x.decode(), x.naturalWidth)")
    page.keyboard.press("0")
    page.get_by_text("Only skipped ones are left").wait_for()
    ids = ("graded", "broken", "skipped")
    assert [page.locator(f"#done-{name}").inner_text() for name in ids] == ["2", "1", "1"]
    assert page.locator("#done-command").inner_text() == COMMAND
    assert not page.locator("#answers").is_visible()
    page.get_by_role("button", name="Judge the skipped ones").click()
    shown(page, 2)
    page.keyboard.press("1")
    page.get_by_text("All is judged").wait_for()
    assert grades(log) == {f"{LONG}.jpg": 3, "clip.mp4": 1, "other.jpg": 0}


def test_a_held_key_judges_one(page: Page, log: Path) -> None:
    page.keyboard.down("2")
    shown(page, 2)
    page.keyboard.down("2")  # comes as a repeated one
    page.keyboard.up("2")
    page.keyboard.press("?")  # handled after it
    page.get_by_role("dialog").wait_for()
    page.wait_for_function("() => !busy")
    shown(page, 2)
    counted(page, "1 of 4")
    assert grades(log) == {f"{LONG}.jpg": 2}


def test_a_phone_needs_no_scrolling_sideways(page: Page) -> None:
    page.set_viewport_size({"width": PHONE, "height": 844})
    for place in (1, 2, 3):
        shown(page, place)
        assert sideways(page) == 0
        for button in page.locator("footer button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE
            assert box["y"] + box["height"] <= 844
        page.locator('.grade[data-grade="2"]').click()
    page.locator("#help-button").click()
    page.get_by_role("dialog").wait_for()
    assert sideways(page) == 0
    page.get_by_role("button", name="Go on").click()
    page.locator('.grade[data-grade="1"]').click()
    page.get_by_text("All is judged").wait_for()
    assert sideways(page) == 0
