"""The page in a real browser, against a real server."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from secondglance.errors import RerankError
from secondglance.library import Library
from secondglance.retrieve.filters import And, Compare, Like, parse_filter
from secondglance.server.options import ServerOptions
from secondglance.types import Content, PairScore
from tests.browser import PHONE, browser, sideways
from tests.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from playwright.sync_api import Browser, Page, Request

__all__ = ["browser"]

KEY = "a-key-that-is-long-enough-to-be-taken-0123456789"
WORDS = "a red square"
RESULTS = ".results-head strong"
REPORT = "<!doctype html><title>Report</title><h1>What was measured</h1>"


@pytest.fixture(scope="module")
def url(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of `library` with one report."""
    reports = tmp_path_factory.mktemp("reports")
    (reports / "today").mkdir()
    (reports / "today" / "report.html").write_text(REPORT)
    library.load()
    with served(library, ServerOptions(reports=(reports,))) as found:
        yield found


@pytest.fixture
def open_page(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the page in a window of its own; an error or a foreign request fails the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: opened(stack, browser, url, *args, **options)


def opened(
    stack: contextlib.ExitStack,
    browser: Browser,
    url: str,
    address: str = "",
    *,
    ready: str | None = "body[data-ready]",
    allowed: str = "\0",
    **options: Any,
) -> Page:
    wrong: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options})
    page = context.new_page()
    page.set_default_timeout(15_000)

    def close() -> None:
        context.close()
        assert wrong == []

    def said(kind: str, text: str) -> None:
        # Chromium logs each answer that is no success; the page shows those.
        if kind in ("error", "warning") and "the server responded with" not in text:
            wrong.append(text)

    stack.callback(close)
    page.on("console", lambda message: said(message.type, message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((url, "blob:", "data:"))
            else wrong.append(f"asked {request.url}")
        ),
    )
    page.goto(f"{url}/{address}")
    if ready:
        page.wait_for_selector(ready)
    return page


def body_of(request: Request) -> Any:
    """The JSON that a request sends."""
    return request.post_data_json


def is_search(request: Request) -> bool:
    """Whether a request is what the user looked for; the start page looks around by itself."""
    return request.url.endswith("/v1/search") and "stream" in body_of(request)


def closed_dialog(page: Page) -> bool:
    page.wait_for_selector("dialog", state="detached")
    return True


def module(name: str) -> str:
    """A script's address as the page has it, so that it is the same module."""
    return f"document.querySelector('script[type=module]').src.replace('app.js', '{name}.js')"


def names(page: Page) -> list[str]:
    return page.locator(".card .name").all_text_contents()


def found_by(library: Library, **asked: Any) -> list[str]:
    return [Path(hit.path).name for hit in library.search(WORDS, **asked).hits]


def dropped(page: Page, selector: str, path: Path, kind: str) -> None:
    """Drops a file on an element, as a person would."""
    page.evaluate(
        """([selector, name, kind, data]) => {
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, { type: kind }));
            const place = document.querySelector(selector);
            for (const name of ['dragenter', 'dragover', 'drop']) {
                place.dispatchEvent(new DragEvent(name, {
                    dataTransfer: transfer, bubbles: true, cancelable: true }));
            }
        }""",
        [selector, path.name, kind, base64.b64encode(path.read_bytes()).decode()],
    )


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.locator(button).click()
    return Path(download.value.path()).read_text("utf-8")


def test_search_by_words(open_page: Callable[..., Page], library: Library) -> None:
    page = open_page()
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type(WORDS)
    page.keyboard.press("Enter")
    page.wait_for_selector(RESULTS)
    expected = library.search(WORDS, k=30).hits
    assert names(page) == [Path(hit.path).name for hit in expected]
    assert page.locator(".card .numbers .recall").first.text_content() == (
        f"{expected[0].recall_score:.3f}"
    )
    assert "in all" in (page.locator(".timings").text_content() or "")
    assert page.evaluate("location.hash") == "#search?q=a+red+square"
    # The address holds it all: another search, and back.
    page.fill("#q", "something else")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('something')")
    page.wait_for_selector(RESULTS)
    page.go_back()
    page.wait_for_selector(RESULTS)
    assert page.input_value("#q") == WORDS
    page.reload()
    page.wait_for_selector(RESULTS)
    assert names(page) == [Path(hit.path).name for hit in expected]


def test_pictures_keep_their_shape_and_do_not_overlap(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything&kind=image")
    page.wait_for_selector(".card img.there")
    shapes = page.evaluate(
        """[...document.querySelectorAll('.card')].map((card) => {
            const box = card.querySelector('.shot').getBoundingClientRect();
            const image = card.querySelector('img');
            return { shown: box.width / box.height, real: image.naturalWidth / image.naturalHeight,
                     left: box.left, right: box.right, top: box.top };
        })"""
    )
    assert len(shapes) == 6
    assert shapes[0]["shown"] == pytest.approx(shapes[0]["real"], rel=0.03)
    for one, next_ in pairwise(shapes):
        assert next_["top"] > one["top"] or next_["left"] >= one["right"]


def test_the_first_pass_alone_is_a_new_order_and_no_request(
    open_page: Callable[..., Page], library: Library
) -> None:
    page = open_page(f"#search?q={WORDS}")
    page.wait_for_selector(RESULTS)
    both = names(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("r")
    first = names(page)
    assert first == found_by(library, k=30, rerank=False)
    assert sorted(first) == sorted(both)
    assert page.locator(".card .rank").all_text_contents()[:3] == ["1", "2", "3"]
    page.get_by_role("radio", name="Both passes").click()
    assert names(page) == both
    assert [each for each in asked if "/v1/search" in each] == []


def test_search_by_a_dropped_picture(
    open_page: Callable[..., Page], media: Path, library: Library
) -> None:
    picture = sorted((media / "photos").iterdir())[3]
    page = open_page()
    with page.expect_request(is_search) as request:
        dropped(page, "#view-search", picture, "image/jpeg")
    page.wait_for_selector(RESULTS)
    query = body_of(request.value)["query"]
    assert query["image"].startswith("upload:")
    page.keyboard.press("r")
    assert names(page)[0] == picture.name
    chip = page.locator(".chip")
    assert picture.name in (chip.text_content() or "")
    assert chip.locator("img").evaluate("(image) => image.decode().then(() => image.naturalWidth)")
    # Words beside it, and then without it.
    page.fill("#q", WORDS)
    page.keyboard.press("Enter")
    page.wait_for_selector(RESULTS)
    chip.get_by_role("button").click()
    page.wait_for_selector(RESULTS)
    assert names(page) == found_by(library, k=30)


def test_a_dropped_text_is_refused(open_page: Callable[..., Page], media: Path) -> None:
    page = open_page()
    dropped(page, "#view-search", media / "notes.txt", "text/plain")
    assert "Only pictures and clips" in (page.locator(".toast").text_content() or "")


def test_more_like_this(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything&kind=image")
    page.wait_for_selector(RESULTS)
    page.locator(".card .open").nth(2).focus()
    name = names(page)[2]
    with page.expect_request(is_search) as request:
        page.keyboard.press("m")
    assert body_of(request.value)["query"]["image"].startswith("id:")
    page.wait_for_selector(RESULTS)
    page.keyboard.press("r")
    assert names(page)[0] == name


def test_keys_move_among_results_and_open_them(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything")
    page.wait_for_selector(RESULTS)
    place = (
        "[...document.querySelectorAll('.card')].indexOf(document.activeElement.closest('.card'))"
    )
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(place) == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate(place) == 1
    page.keyboard.press("ArrowDown")
    below = page.evaluate(place)
    assert below > 1
    page.keyboard.press("ArrowUp")
    assert page.evaluate(place) in (0, 1)
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    title = page.locator("dialog h2").first
    assert title.text_content() == names(page)[0]
    page.keyboard.press("ArrowRight")
    assert title.text_content() == names(page)[1]
    page.keyboard.press("Escape")
    assert closed_dialog(page)
    assert page.evaluate(place) == 0
    page.keyboard.press("?")
    assert "Keyboard" in (page.locator("dialog h2").text_content() or "")
    page.keyboard.press("Escape")
    assert closed_dialog(page)


def test_a_film_plays_its_moment_and_seeks_to_others(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything&kind=video")
    page.wait_for_selector(RESULTS)
    assert page.locator(".card .badge").last.text_content() == "0:15"
    page.locator(".card").hover()
    video = page.wait_for_selector(".shot.playing video", state="attached")
    assert video is not None
    assert video.get_attribute("src").startswith("/v1/media/")  # type: ignore[union-attr]
    assert video.evaluate("(video) => video.muted && !video.paused")
    page.locator(".card .open").click()
    page.wait_for_selector("dialog video")
    moments = page.locator(".moment")
    assert moments.count() >= 2
    moments.last.click()
    start = moments.last.locator("span").text_content()
    page.wait_for_function(
        "(start) => document.querySelector('dialog video').currentTime >= start",
        arg=int((start or "0:00").split(":")[1]),
    )


def test_why_it_matched_is_drawn_over_the_picture(open_page: Callable[..., Page]) -> None:
    page = open_page(f"#search?q={WORDS}&kind=image")
    page.wait_for_selector(RESULTS)
    # The answer is given here: what is looked at is the drawing.
    answer = {
        "id": "x", "kind": "image", "score": 0.9, "log_odds": 2.2, "words": [], "at_s": None,
        "regions": {"rows": 2, "cols": 2, "effects": [[0, 0], [0, 2]], "width": 64, "height": 48},
        "query_words": [
            {"start": 2, "end": 5, "text": "red", "effect": 1.5},
            {"start": 6, "end": 12, "text": "square", "effect": -0.75},
        ],
        "pairs": 7, "timings_ms": {"total": 12}, "warnings": [],
    }  # fmt: skip
    page.route("**/v1/explain", lambda route: route.fulfill(json=answer))
    page.locator(".card .open").first.click()
    with page.expect_request("**/v1/explain") as request:
        page.get_by_role("button", name="Why it matched").click()
    asked = body_of(request.value)
    assert set(asked) == {"query", "id", "query_words"}
    page.wait_for_selector("canvas.heat")
    corner = """(canvas, [x, y]) => {
        const copy = document.createElement('canvas').getContext('2d');
        copy.drawImage(canvas, x * (1 - canvas.width), y * (1 - canvas.height));
        return [...copy.getImageData(0, 0, 1, 1).data]; }"""
    strong = page.locator("canvas.heat").evaluate(corner, [1, 1])
    weak = page.locator("canvas.heat").evaluate(corner, [0, 0])
    assert strong[:3] == pytest.approx([253, 231, 37], abs=20)
    assert strong[3] > 240
    assert weak[3] < 80
    boxes = page.evaluate(
        """['canvas.heat', '.frame img'].map((each) => {
            const box = document.querySelector(each).getBoundingClientRect();
            return [box.left, box.top, box.width, box.height]; })"""
    )
    assert boxes[0] == pytest.approx(boxes[1], abs=1)
    assert page.locator(".marked mark.raised").all_text_contents() == ["red"]
    assert page.locator(".marked mark.lowered").all_text_contents() == ["square"]
    assert page.locator(".marked").text_content() == WORDS
    slider = page.get_by_label("Strength of the overlay")
    slider.fill("10")
    assert page.locator("canvas.heat").evaluate("(canvas) => canvas.style.opacity") == "0.1"


def test_results_are_exported_as_they_are_shown(
    open_page: Callable[..., Page], library: Library
) -> None:
    page = open_page(f"#search?q={WORDS}&k=10")
    page.wait_for_selector(RESULTS)
    shown = json.loads(saved(page, "button:has-text('JSON')"))
    expected = library.search(WORDS, k=10).hits
    assert [hit["id"] for hit in shown["hits"]] == [hit.id for hit in expected]
    assert shown["query"] == {"text": WORDS}
    text = saved(page, "button:has-text('CSV')")
    assert text.startswith("\ufeff")
    rows = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert [row["id"] for row in rows] == [hit.id for hit in expected]
    assert [float(row["score"]) for row in rows] == pytest.approx([hit.score for hit in expected])
    assert [row["text"] for row in rows] == [hit.text for hit in expected]


def test_cells_of_a_table_are_quoted_and_are_no_formulas(open_page: Callable[..., Page]) -> None:
    page = open_page()
    text = page.evaluate(
        """async () => {
            const { csv } = await import(MODULE_exports);
            return csv(['a', 'b'], [{ a: '=1+1', b: 'one, "two"\\nthree' }, { a: -2.5, b: null }]);
        }""".replace("MODULE_exports", module("exports"))
    )
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert rows == [["a", "b"], ["'=1+1", 'one, "two"\nthree'], ["-2.5", ""]]


@pytest.mark.parametrize("text", ['a "quoted" word', "100%_\\done", "tab\tand\nline", "it's"])
def test_what_users_type_is_no_filter_of_its_own(open_page: Callable[..., Page], text: str) -> None:
    page = open_page()
    composed = page.evaluate(
        """async (text) => {
            const { composed } = await import(MODULE_filters);
            return composed({ from: '2024-02-28', to: '2024-02-29', path: text, tags: 'sea',
                              filter: 'width > 1 or height > 1' });
        }""".replace("MODULE_filters", module("filters")),
        text,
    )
    parsed = parse_filter(composed)
    assert isinstance(parsed, And)
    first, last, path, _, raw = parsed.parts
    assert first == parse_filter("taken >= 2024-02-28")
    assert last == parse_filter("taken < 2024-03-01")
    assert isinstance(path, Like)
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    assert path == Like("path", f"%{escaped}%")
    assert raw == parse_filter("width > 1 or height > 1")
    assert isinstance(first, Compare)


def test_filters_of_the_form_are_searched_with(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything")
    page.wait_for_selector(RESULTS)
    page.click("#more-filters")
    page.fill("#path", "photos/")
    with page.expect_request(is_search) as request:
        page.keyboard.press("Enter")
    assert body_of(request.value)["filter"] == 'path like "%photos/%"'
    page.wait_for_function("() => document.querySelectorAll('.card').length === 6")
    assert "path=photos" in page.evaluate("location.hash")
    assert page.locator("#filter-count").text_content() == "1"


def test_nothing_matches_and_what_to_do(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything&path=nowhere")
    state = page.locator(".state")
    state.wait_for()
    assert "Nothing matches" in (state.text_content() or "")
    state.get_by_role("button", name="Reset filters").click()
    page.wait_for_selector(RESULTS)
    assert len(names(page)) == 9


def test_a_bad_filter_says_where(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything&filter=nonsense+%3D%3D+1")
    problem = page.get_by_role("alert").filter(has_text="filter")
    problem.wait_for()
    assert "unknown field 'nonsense'" in (problem.text_content() or "")
    assert "use one of" in (problem.text_content() or "")
    assert page.locator("#filter[aria-invalid=true]").is_visible()
    page.fill("#filter", "width > 1")
    page.keyboard.press("Enter")
    page.wait_for_selector(RESULTS)
    assert page.locator("#filter[aria-invalid=true]").count() == 0


class Held:
    """A reranker that works until it is let go."""

    name = "held"

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.begun.set()
        if not self.go.wait(30):
            raise RerankError("nobody let it go")
        return [PairScore(score=0.5, log_odds=0.0) for _ in documents]


def test_a_busy_server_is_asked_again(
    browser: Browser, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(library._parts, "reranker", lambda: held)
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(served(library, ServerOptions(concurrency=1, queue=0)))
        asking = threading.Thread(
            target=lambda: httpx.post(f"{busy}/v1/search", json={"query": "x"}, timeout=60)
        )
        asking.start()
        try:
            assert held.begun.wait(20)
            page = opened(stack, browser, busy, f"#search?q={WORDS}")
            toast = page.locator(".toast")
            toast.wait_for()
            assert "The server is busy. Trying again in" in (toast.text_content() or "")
        finally:
            held.go.set()
            asking.join(30)
        page.wait_for_selector(RESULTS)
        assert len(names(page)) == 9
        assert page.locator(".toast").count() == 0


def test_a_key_is_asked_for(browser: Browser, library: Library) -> None:
    with contextlib.ExitStack() as stack:
        closed = stack.enter_context(served(library, ServerOptions(api_keys=(KEY,))))
        page = opened(stack, browser, closed, f"#search?q={WORDS}", ready="dialog")
        field = page.locator("dialog input")
        assert field.get_attribute("type") == "password"
        field.fill("not the key")
        page.keyboard.press("Enter")
        page.get_by_text("This key is not known.").wait_for()
        field.fill(KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector(".card img.there")
        assert closed_dialog(page)
        assert KEY not in page.evaluate("document.cookie + JSON.stringify(localStorage)")


def test_rerank_candidates_of_every_kind(
    open_page: Callable[..., Page], url: str, media: Path
) -> None:
    photos = sorted((media / "photos").iterdir())
    page = open_page("#rerank")
    go = page.get_by_role("button", name="Rank", exact=True)
    assert go.is_disabled()
    page.locator("[data-side=query] textarea").first.fill(WORDS)
    page.get_by_label("Candidates, one a line").fill("A red thing.\n\nOpening hours")
    page.get_by_role("button", name="Add lines").click()
    page.locator(".adding input[type=file]").set_input_files([photos[0], media / "clip.mp4"])
    page.wait_for_function("() => document.querySelectorAll('.candidate').length === 4")
    # A candidate of words and a picture: one score.
    dropped(page, ".candidate .editor", photos[1], "image/jpeg")
    page.wait_for_selector(".candidate:first-child .thumb")
    page.locator(".candidate").nth(1).get_by_label("Move up").click()
    texts = page.locator(".candidate textarea").evaluate_all("(all) => all.map((e) => e.value)")
    assert texts == ["Opening hours", "A red thing.", "", ""]
    with page.expect_request("**/v1/rerank") as request:
        go.click()
    page.wait_for_selector(".ranking")
    asked = body_of(request.value)
    assert [sorted(each) if isinstance(each, dict) else each for each in asked["documents"]] == [
        "Opening hours",
        ["image", "text"],
        ["image"],
        ["video"],
    ]
    results = httpx.post(f"{url}/v1/rerank", json=asked, timeout=60).json()["results"]
    rows = list(csv.DictReader(io.StringIO(saved(page, "#view-rerank button:has-text('CSV')"))))
    assert [int(row["index"]) for row in rows] == [each["index"] for each in results]
    shown = json.loads(saved(page, "#view-rerank button:has-text('JSON')"))
    assert [each["relevance_score"] for each in shown["results"]] == pytest.approx(
        [each["relevance_score"] for each in results], abs=1e-4
    )
    mixed = next(each for each in shown["results"] if each["index"] == 1)
    assert (mixed["text"], mixed["files"]) == ("A red thing.", [photos[1].name])
    page.locator(".result").first.click()
    assert page.locator("dialog h2").text_content() == "1 of 4"
    page.keyboard.press("Escape")
    page.locator(".candidate").first.get_by_label("Remove this candidate").click()
    assert page.locator(".candidate").count() == 3


def test_an_example_is_filled_in_from_the_library(open_page: Callable[..., Page]) -> None:
    page = open_page("#rerank")
    page.get_by_role("button", name="Example").click()
    page.wait_for_selector(".candidate .thumb img")
    assert page.locator("[data-side=query] textarea").first.input_value() == "A dog on a beach."
    page.get_by_role("button", name="Rank", exact=True).click()
    page.wait_for_selector(".ranking")
    assert page.locator(".result").count() == page.locator(".candidate").count() > 5


def test_a_clip_that_is_too_long_is_not_sent(open_page: Callable[..., Page], media: Path) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    problem = page.evaluate(
        """async (data) => {
            const { upload } = await import(MODULE_media);
            Object.defineProperty(HTMLMediaElement.prototype, 'duration', { get: () => 95 });
            const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
            const file = new File([bytes], 'long.mp4', { type: 'video/mp4' });
            return upload(file).then(() => '', (error) => error.detail);
        }""".replace("MODULE_media", module("media")),
        base64.b64encode((media / "clip.mp4").read_bytes()).decode(),
    )
    assert "long.mp4 lasts 1:35; a clip may last 30 seconds" in problem
    assert [each for each in asked if "uploads" in each] == []


def test_the_library_is_indexed_again(open_page: Callable[..., Page]) -> None:
    page = open_page("#library")
    page.wait_for_selector(".tile")
    tiles = page.locator(".tile").all_text_contents()
    assert tiles[0] == "8files"
    assert tiles[3] == "0failures"
    page.get_by_role("button", name="Index again", exact=True).click()
    page.wait_for_selector(".jobs .notice")
    assert "8 files, 0 new or changed, 0 failed" in (
        page.locator(".jobs .notice").text_content() or ""
    )


def test_reports_are_shown_in_a_frame_that_can_reach_nothing(
    open_page: Callable[..., Page],
) -> None:
    page = open_page("#evaluate")
    frame = page.wait_for_selector("iframe")
    assert frame is not None
    assert frame.get_attribute("sandbox") == "allow-scripts"
    inside = frame.content_frame()
    assert inside is not None
    inside.wait_for_selector("h1")
    assert inside.locator("h1").text_content() == "What was measured"
    assert inside.evaluate("self.origin") == "null"


@pytest.mark.parametrize("tab", ["search", "search?q=anything", "rerank", "evaluate", "library"])
def test_a_phone_shows_everything_without_scrolling_sideways(
    open_page: Callable[..., Page], tab: str
) -> None:
    page = open_page(
        f"#{tab}", viewport={"width": PHONE, "height": 844}, has_touch=True, is_mobile=True
    )
    view = page.locator(f"[data-view={tab.partition('?')[0]}]")
    assert view.is_visible()
    if "?" in tab:
        page.wait_for_selector(RESULTS)
        page.click("#more-filters")
        assert sideways(page) == 0
        page.locator(".card .open").first.click()
        page.wait_for_selector("dialog .facts")
        assert page.evaluate("document.querySelector('dialog').scrollWidth") <= PHONE
        page.keyboard.press("Escape")
    assert sideways(page) == 0
    link = page.locator(".tabs a").last.bounding_box()
    assert link is not None
    assert link["x"] + link["width"] <= PHONE
    assert link["y"] > 700


def luminance(page: Page) -> float:
    colour = page.evaluate(
        """() => {
            const context = document.createElement('canvas').getContext('2d');
            context.fillStyle = getComputedStyle(document.body).backgroundColor;
            context.fillRect(0, 0, 1, 1);
            return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
        }"""
    )
    return float(sum(colour)) / 3


def test_dark_and_light(open_page: Callable[..., Page]) -> None:
    page = open_page(color_scheme="dark")
    assert luminance(page) < 40
    page.click("#theme")
    assert luminance(page) > 230
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert luminance(page) > 230


def test_chinese_and_english(open_page: Callable[..., Page]) -> None:
    page = open_page("#search?q=anything", locale="zh-CN")
    page.wait_for_selector(RESULTS)
    assert page.locator(RESULTS).text_content() == "9 个结果"
    assert page.get_attribute("html", "lang") == "zh-CN"
    page.click("#language")
    page.wait_for_function("() => document.documentElement.lang === 'en'")
    assert page.locator(RESULTS).text_content() == "9 results"
    assert names(page) != []
    assert page.locator("#q").get_attribute("placeholder") == "Words, a picture or a clip"
