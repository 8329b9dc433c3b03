"""The README's pictures of the page: generated scenes, indexed, served, and looked at.

Needs Chromium and Playwright (`pip install 'secondglance[dev]'`). The scenes and the models are the
same each time, so the pictures are, but for the timings and fonts of the machine.

    python tools/screenshots.py --out docs/images
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageColor
from rich.console import Console

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

console = Console(highlight=False)
MAX_BYTES = 300_000
COLOURS = (256, 192, 128, 96, 64)
OWN = ("#12804a", "#a15c07", "#3d4fd8", "#4cc38a", "#d9a05b", "#5465ec", "#8f9cff")
"""Colours of the page that are rare in a picture; the median cut would merge them."""
RESULTS = ".results-head strong"
QUERY = "picture-009-en"
LINES = ("A cat sits beside a pie in the snow.", "Opening hours of the town library.")


def run(*arguments: str | Path) -> None:
    """Runs a command of secondglance."""
    subprocess.run([sys.executable, "-m", "secondglance", *map(str, arguments)], check=True)


def prepare(folder: Path) -> tuple[Path, Path]:
    """A library of generated scenes: its folder, and that of the scenes."""
    scenes, library = folder / "scenes", folder / "library"
    if not library.exists():
        run("scenes", scenes, "--pictures", "120", "--clips", "10", "--texts", "8")
        kinds = [scenes / name for name in ("pictures", "clips", "texts")]
        run("index", *kinds, "--library", library, "--preset", "starter")
    return library, scenes


@contextlib.contextmanager
def serving(library: Path) -> Iterator[str]:
    """The address of a server of the library."""
    command = [sys.executable, "-m", "secondglance", "serve", "--library", str(library)]
    # A file, for a pipe that nobody reads would fill with the log and stop the server.
    with (
        tempfile.NamedTemporaryFile("r", encoding="utf-8") as log,
        subprocess.Popen(
            [*command, "--port", "0", "--preload"], stderr=Path(log.name).open("w")
        ) as server,
    ):
        try:
            url = None
            while url is None:
                if server.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.2)
                log.seek(0)
                url = re.search(r"http://[\d.]+:\d+", log.read())
            wait_until_ready(url.group())
            yield url.group()
        finally:
            server.terminate()


def wait_until_ready(url: str) -> None:
    """Waits for the models."""
    for _ in range(600):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz"):
            return
        time.sleep(0.2)
    raise SystemExit("the models were not loaded")


def keep(page: Page, path: Path) -> None:
    """Saves what is seen, with as many colours as the size allows."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        page.screenshot(path=raw)
        picture = Image.open(raw).convert("RGB")
    own = [ImageColor.getrgb(colour) for colour in OWN]
    counts = picture.getcolors(picture.width * picture.height) or []
    own += [colour for _, colour in sorted(counts, reverse=True)[:16]]
    for colours in COLOURS:
        cut = picture.quantize(colours - len(own), Image.Quantize.MEDIANCUT)
        palette = Image.new("P", (1, 1))
        palette.putpalette([*(cut.getpalette() or []), *(part for each in own for part in each)])
        picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < MAX_BYTES:
            break
    console.print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def open_page(browser: Browser, url: str, address: str, **options: object) -> Page:
    """The page at an address, when it is ready."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{url}/{address}")
    page.wait_for_selector("body[data-ready]")
    return page


def settle(page: Page) -> None:
    """Waits until results are in place and their pictures are there."""
    page.wait_for_selector(RESULTS)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.card img')].slice(0, 8).every((i) => i.complete)"
    )
    page.wait_for_timeout(1200)  # the cards have to come to rest


def show(browser: Browser, url: str, out: Path, text: str, scenes: Path) -> None:
    """Makes all pictures."""
    words = text.replace(" ", "+")
    page = open_page(browser, url, f"#search?q={words}")
    settle(page)
    keep(page, out / "search.png")

    page = open_page(
        browser,
        url,
        f"#search?q={words}",
        viewport={"width": 390, "height": 780},
        color_scheme="dark",
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
    )
    settle(page)
    keep(page, out / "phone.png")

    page = open_page(browser, url, "#rerank", viewport={"width": 1200, "height": 1280})
    page.locator("[data-side=query] textarea").first.fill(text)
    page.get_by_label("Candidates, one a line").fill("\n".join(LINES))
    page.get_by_role("button", name="Add lines").click()
    files = [scenes / "pictures" / f"{n:04}.jpg" for n in (58, 55)] + [scenes / "clips/0001.mp4"]
    page.locator(".adding input[type=file]").set_input_files(files)
    page.wait_for_function("() => document.querySelectorAll('.candidate .thumb img').length === 3")
    page.get_by_role("button", name="Rank", exact=True).click()
    page.wait_for_selector(".ranking")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(800)
    keep(page, out / "rerank.png")

    page = open_page(browser, url, f"#search?q={words}")
    settle(page)
    page.locator(".card .open").first.click()
    page.get_by_role("button", name="Why it matched").click()
    page.wait_for_selector("canvas.heat")
    page.mouse.move(0, 0)
    page.wait_for_timeout(600)
    keep(page, out / "details.png")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--work", type=Path, help="kept and used again; else made and removed")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("SECONDGLANCE_CHROMIUM") or shutil.which("chromium")
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        library, scenes = prepare(work)
        queries = (scenes / "queries.jsonl").read_text("utf-8").splitlines()
        text = next(q["text"] for q in map(json.loads, queries) if q["id"] == QUERY)
        url = stack.enter_context(serving(library))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        show(browser, url, options.out, text, scenes)
        browser.close()


if __name__ == "__main__":
    main()
