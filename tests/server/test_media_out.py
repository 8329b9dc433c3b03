"""Files and thumbnails by record: inside the indexed folders, and as types that nobody runs."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from secondglance.library import Library
from secondglance.pipelines import locate
from secondglance.server import intake
from secondglance.server.file_answers import content_type
from secondglance.server.options import ServerOptions
from secondglance.server.thumbnails import SIDES, Thumbnails, side_of
from tests import hazards
from tests.libraries import Open
from tests.media import picture, write_clip, write_pictures
from tests.served import client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is indexed: each test changes files of its own."""
    folder = tmp_path_factory.mktemp("out") / "media"
    write_pictures(folder, 8)
    picture(50).save(folder / "page.svg.jpg", quality=90)
    picture(51, width=1500, height=900).save(folder / "large.png")
    (folder / "sub").mkdir()
    picture(52).save(folder / "sub" / "inner.jpg", quality=90)
    picture(53).save(folder / "sub" / "photo.html", "JPEG", quality=90)
    write_clip(folder / "film.mp4", [20, 21])
    (folder / "notes.txt").write_text("<script>alert(1)</script> Words about a harbour.")
    return folder


@pytest.fixture(scope="module")
def library(folder: Path, untrained_clip: Path, untrained_reranker: Path) -> Iterator[Library]:
    opener = Open(folder.parent, untrained_clip, untrained_reranker)
    library = opener()
    library.index([folder, folder / "sub" / "photo.html"])
    yield library
    opener.close()


@pytest.fixture(scope="module")
def http(library: Library) -> Iterator[httpx.Client]:
    with client(library, ServerOptions(decode_workers=1)) as found:
        yield found


def id_of(library: Library, path: Path) -> str:
    catalog = library._parts.catalog
    file = catalog.file(path)
    assert file is not None
    assert file.hash is not None
    return catalog.record_ids(file.hash)[0]


def test_a_file(http: httpx.Client, library: Library, folder: Path) -> None:
    path = folder / "picture-0000.jpg"
    answer = http.get(f"/v1/media/{id_of(library, path)}")
    assert (answer.status_code, answer.content) == (200, path.read_bytes())
    headers = answer.headers
    assert headers["content-type"] == "image/jpeg"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("sandbox")
    assert headers["cache-control"].startswith("private")
    assert headers["accept-ranges"] == "bytes"
    assert str(folder.parent) not in str(headers)


@pytest.mark.parametrize(
    ("name", "type_", "shown"),
    [
        ("film.mp4", "video/mp4", "inline"),
        ("notes.txt", "text/plain; charset=utf-8", "inline"),
        ("large.png", "image/png", "inline"),
        ("page.svg.jpg", "image/jpeg", "inline"),
    ],
)
def test_types(
    http: httpx.Client, library: Library, folder: Path, name: str, type_: str, shown: str
) -> None:
    headers = http.get(f"/v1/media/{id_of(library, folder / name)}").headers
    assert headers["content-type"] == type_
    assert headers["content-disposition"] == f"{shown}; filename*=UTF-8''{name}"


def test_a_type_that_a_browser_runs_is_never_named() -> None:
    for name in ("x.svg", "x.html", "x.xml", "x.xhtml", "x.js", "x.pdf", "x"):
        assert content_type("image", format_="", name=name) == "application/octet-stream"
        assert content_type("video", format_="", name=name) == "application/octet-stream"
        assert content_type("text", format_="", name=name).startswith("text/plain")
    assert content_type("image", format_="jpeg", name="x.html") == "image/jpeg"
    assert content_type("video", format_="svg", name="x.svg") == "application/octet-stream"


def test_a_file_that_is_called_a_page(http: httpx.Client, library: Library, folder: Path) -> None:
    path = folder / "sub" / "photo.html"
    path.write_text("<script>alert(1)</script>")
    answer = http.get(f"/v1/media/{id_of(library, path)}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=10-", slice(10, None)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=5-99999999", slice(5, None)),
        ("bytes=-99999999", slice(0, None)),
    ],
)
def test_ranges(
    http: httpx.Client, library: Library, folder: Path, asked: str, part: slice
) -> None:
    path = folder / "film.mp4"
    whole = path.read_bytes()
    answer = http.get(f"/v1/media/{id_of(library, path)}", headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.content == whole[part]
    start, stop, _ = part.indices(len(whole))
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0", "bytes=99999999-999999999"])
def test_ranges_behind_the_end(
    http: httpx.Client, library: Library, folder: Path, asked: str
) -> None:
    path = folder / "film.mp4"
    answer = http.get(f"/v1/media/{id_of(library, path)}", headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{path.stat().st_size}"
    assert answer.json()["type"].endswith("range-not-satisfiable")


@pytest.mark.parametrize(
    "asked",
    ["bytes=0-1,3-4", "bytes=9-3", "bytes=-", "lines=0-1", "bytes=a-b", "bytes=" + "9" * 99],
)
def test_ranges_that_are_none(
    http: httpx.Client, library: Library, folder: Path, asked: str
) -> None:
    path = folder / "picture-0000.jpg"
    answer = http.get(f"/v1/media/{id_of(library, path)}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, path.read_bytes())


def test_what_a_client_has_already(http: httpx.Client, library: Library, folder: Path) -> None:
    url = f"/v1/media/{id_of(library, folder / 'picture-0000.jpg')}"
    first = http.get(url).headers
    for given in (first["etag"], f'"x", W/{first["etag"]}', "*"):
        again = http.get(url, headers={"If-None-Match": given})
        assert (again.status_code, again.content) == (304, b"")
    assert http.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    part = {"Range": "bytes=0-3"}
    known, weak = first["etag"], "W/" + first["etag"]
    for given, status in (
        (known, 206),
        (first["last-modified"], 206),
        ('"x"', 200),
        (weak, 200),
    ):
        assert http.get(url, headers={**part, "If-Range": given}).status_code == status


def test_head(http: httpx.Client, library: Library, folder: Path) -> None:
    path = folder / "film.mp4"
    answer = http.head(f"/v1/media/{id_of(library, path)}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(path.stat().st_size)
    assert answer.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize(
    "id",
    [
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "....",
        "0" * 32,
        "A" * 32,
        "0" * 31 + "%00",
        "' or 1=1 --",
        "file:%2f%2f%2fetc%2fpasswd",
        "0" * 32 + "%0a",
        "%ed%a0%80",
    ],
)
def test_what_is_no_record(http: httpx.Client, id: str) -> None:
    for url in (f"/v1/media/{id}", f"/v1/thumbnails/{id}"):
        answer = http.get(url)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert "passwd" not in answer.json()["detail"]


def gone(http: httpx.Client, id: str) -> bool:
    return all(
        http.get(url).status_code == 404 for url in (f"/v1/media/{id}", f"/v1/thumbnails/{id}")
    )


@pytest.fixture
def secret(folder: Path) -> Path:
    path = folder.parent / "secret"
    path.mkdir(exist_ok=True)
    picture(99).save(path / "inner.jpg")
    return path / "inner.jpg"


def test_a_link_that_leads_out(
    http: httpx.Client, library: Library, folder: Path, secret: Path
) -> None:
    path = folder / "picture-0001.jpg"
    id = id_of(library, path)
    assert http.get(f"/v1/media/{id}").status_code == 200
    path.unlink()
    path.symlink_to(secret)
    assert gone(http, id)


def test_a_link_that_stays_inside(http: httpx.Client, library: Library, folder: Path) -> None:
    path = folder / "picture-0002.jpg"
    id, kept = id_of(library, path), folder / "renamed.jpg"
    path.rename(kept)
    path.symlink_to(kept)
    assert http.get(f"/v1/media/{id}").content == kept.read_bytes()


def test_a_folder_that_leads_out(
    http: httpx.Client, library: Library, folder: Path, secret: Path
) -> None:
    id = id_of(library, folder / "sub" / "inner.jpg")
    assert http.get(f"/v1/media/{id}").status_code == 200
    (folder / "sub").rename(folder / "sub-before")
    try:
        (folder / "sub").symlink_to(secret.parent)
        assert gone(http, id)
    finally:
        (folder / "sub").unlink()
        (folder / "sub-before").rename(folder / "sub")


@pytest.mark.parametrize("how", ["pipe", "folder", "loop", "nothing"])
def test_no_regular_file(http: httpx.Client, library: Library, folder: Path, how: str) -> None:
    path = folder / "picture-0003.jpg"
    kept = path.read_bytes()
    id = id_of(library, path)
    path.unlink()
    try:
        if how == "pipe":
            os.mkfifo(path)  # opening it would wait for ever
        elif how == "folder":
            path.mkdir()
        elif how == "loop":
            path.symlink_to(path)
        assert gone(http, id)
    finally:
        if how == "folder":
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(kept)


def test_a_swap_between_the_look_and_the_opening(
    folder: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "picture-0004.jpg"
    real_open = os.open

    def swapped(name: Path, flags: int) -> int:
        path.unlink()
        os.link(secret, path)  # a file as good as any, but not the one that was looked at
        opened = real_open(name, flags)
        path.unlink()
        path.symlink_to(secret)
        return opened

    monkeypatch.setattr(os, "open", swapped)
    assert locate.open_inside(path, folder) is None


def test_a_thumbnail(http: httpx.Client, library: Library, folder: Path) -> None:
    url = f"/v1/thumbnails/{id_of(library, folder / 'large.png')}"
    for size, side in ((None, 256), (64, 64), (65, 128), (1024, 1024)):
        answer = http.get(url, params={"size": size} if size else {})
        assert answer.headers["content-type"] == "image/jpeg"
        with Image.open(io.BytesIO(answer.content)) as shown:
            assert (shown.format, shown.width) == ("JPEG", side)
    again = http.get(url, headers={"If-None-Match": http.get(url).headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(url).headers["etag"] != http.get(url, params={"size": 64}).headers["etag"]


def test_a_thumbnail_of_a_film_is_its_keyframe(
    http: httpx.Client, library: Library, folder: Path
) -> None:
    catalog = library._parts.catalog
    file = catalog.file(folder / "film.mp4")
    assert file is not None
    assert file.hash is not None
    for id in catalog.record_ids(file.hash):
        located = library.located(id)
        assert located is not None
        start_s, _, _ = located.stretch()
        pictures = [picture(20), picture(21)]
        small = [np.asarray(one.resize((8, 6)), dtype=float) for one in pictures]
        expected, other = small if start_s < 4 else small[::-1]
        answer = http.get(f"/v1/thumbnails/{id}", params={"size": 64})
        with Image.open(io.BytesIO(answer.content)) as shown:
            found = np.asarray(shown.resize((8, 6)), dtype=float)
        assert np.abs(found - expected).mean() < 20 < np.abs(found - other).mean()


def test_no_thumbnail_of_a_text(http: httpx.Client, library: Library, folder: Path) -> None:
    answer = http.get(f"/v1/thumbnails/{id_of(library, folder / 'notes.txt')}")
    assert answer.status_code == 404
    assert "no picture" in answer.json()["detail"]


@pytest.mark.parametrize("size", ["0", "63", "1025", "-1", "1e3", "x"])
def test_sizes_that_are_refused(
    http: httpx.Client, library: Library, folder: Path, size: str
) -> None:
    id = id_of(library, folder / "large.png")
    assert http.get(f"/v1/thumbnails/{id}", params={"size": size}).status_code == 422


def test_a_file_that_kills_its_worker(
    library: Library, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = id_of(library, folder / "picture-0005.jpg")
    with client(library, ServerOptions(decode_workers=1)) as http:
        with monkeypatch.context() as patch:
            patch.setattr(intake, "thumbnail", hazards.killing_thumbnail)
            answer = http.get(f"/v1/thumbnails/{id}")
        assert answer.status_code == 404
        assert "crashed" in answer.json()["detail"]
        assert http.get(f"/v1/thumbnails/{id}").status_code == 200


def test_few_sizes_and_bytes_are_kept() -> None:
    assert {side_of(size) for size in range(64, 1025)} == set(SIDES)
    assert len(SIDES) <= 8


class Slow:
    """Decodes when told to."""

    def __init__(self) -> None:
        import asyncio

        self.go = asyncio.Event()
        self.calls = 0

    async def turn(self, *_: object) -> bytes:
        self.calls += 1
        await self.go.wait()
        return bytes(100)


def test_the_cache_is_bounded_and_makes_each_once() -> None:
    import asyncio

    from secondglance.server.problems import ApiError

    async def run() -> None:
        slow = Slow()
        made = Thumbnails(slow, max_pixels=9, max_bytes=250, max_waiting=3)  # type: ignore[arg-type]
        tasks = [asyncio.create_task(made.make((name, 1, 1, None, 64))) for name in "aaabbc"]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await made.make(("d", 1, 1, None, 64))
        assert caught.value.status == 429
        tasks[0].cancel()  # one client went away, the others did not
        slow.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [len(one) for one in found if isinstance(one, bytes)] == [100] * 5
        assert slow.calls == 3
        assert made.held_bytes == 200
        assert made.known(("a", 1, 1, None, 64)) is None
        assert made.known(("c", 1, 1, None, 64)) is not None

    asyncio.run(run())
