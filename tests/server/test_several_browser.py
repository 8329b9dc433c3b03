"""The page to choose a library, in a real browser."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from secondglance.library import Library
from secondglance.pipelines.sharing import SharedModels
from secondglance.server.options import ServerOptions
from secondglance.server.several import Member, create_app_of_several
from tests.browser import PHONE, browser, sideways
from tests.media import write_pictures
from tests.served import running
from tests.server.test_page_browser import names, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Response

__all__ = ["browser"]

KEY = "the-key-of-the-family-0123456789"


@pytest.fixture
def members(
    tmp_path: Path, untrained_clip: Path, untrained_reranker: Path
) -> Iterator[list[Member]]:
    """Two libraries with a few pictures, and one that is away."""
    settings = {
        "recall": {"model": str(untrained_clip)},
        "rerank": {"model": str(untrained_reranker)},
        "store": {"backend": "exact"},
    }
    models, found = SharedModels(), []
    with contextlib.ExitStack() as stack:
        for name, title, first, keys in (
            ("photos", "Our photos", 0, ()),
            ("family", "Family", 50, (KEY,)),
        ):
            write_pictures(tmp_path / f"media-{name}", 4, first=first)
            library = stack.enter_context(
                Library.open(tmp_path / name, preset="starter", settings=settings, models=models)
            )
            library.index([tmp_path / f"media-{name}"])
            found.append(Member(name=name, title=title, library=library, api_keys=keys))
        found.append(Member(name="lost", reason="there is no library in lost"))
        yield found


def test_the_chooser_leads_to_each_library_and_to_no_other(
    browser: Browser, members: list[Member]
) -> None:
    app = create_app_of_several(members, ServerOptions())
    with running(app) as url, contextlib.ExitStack() as stack:
        page = opened(stack, browser, url)
        answers: list[Response] = []
        page.on("response", lambda answer: answers.append(answer))
        cards = page.locator(".libraries a")
        assert cards.locator("b").all_text_contents() == ["Our photos"]
        assert "4 images" in (cards.first.text_content() or "")
        away = page.locator(".libraries .away")
        assert "Unavailable: there is no library in lost" in (away.text_content() or "")
        cards.first.click()
        page.wait_for_selector("body[data-ready]")
        assert page.url == f"{url}/libraries/photos/"
        assert page.text_content("#place") == "Our photos"
        page.fill("#q", "a red square")
        page.keyboard.press("Enter")
        page.wait_for_selector(".card .name")
        page.wait_for_load_state("networkidle")
        shown = {each.url: each.status for each in answers if "/thumbnails/" in each.url}
        assert len(shown) == 4
        assert all(address.startswith(f"{url}/libraries/photos/v1/") for address in shown)
        assert set(shown.values()) == {200}
        assert sorted(names(page)) == [f"picture-{n:04}.jpg" for n in range(4)]
        assert page.title() == "a red square – Our photos"
        page.click("#place")
        page.wait_for_selector(".libraries a")
        # A key shows what it opens, and opens it.
        page.click("#key")
        page.fill("dialog input", KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector("a[href='/libraries/family/']")
        assert cards.locator("b").all_text_contents() == ["Our photos", "Family"]
        page.click("a[href='/libraries/family/']")
        page.wait_for_selector("body[data-ready]")
        assert page.locator("dialog").count() == 0
        page.fill("#q", "a red square")
        page.keyboard.press("Enter")
        page.wait_for_selector(".card .name")
        assert sorted(names(page)) == [f"picture-{n:04}.jpg" for n in range(50, 54)]
        page.set_viewport_size({"width": PHONE, "height": 800})
        assert sideways(page) == 0
        page.click("#place")
        page.wait_for_selector(".libraries a")
        assert sideways(page) == 0
        page.click("#language")
        page.wait_for_selector("html[lang=zh-CN]")
        page.wait_for_selector("text=4 张图片")
        assert re.search("资料库", page.title())
