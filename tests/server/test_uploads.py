"""Uploads: what is taken in, and everything that is not."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from secondglance.errors import MediaError
from secondglance.library import Library
from secondglance.server import intake
from secondglance.server import uploads as uploads_module
from secondglance.server.decoding import Decoding
from secondglance.server.intake import IntakeLimits
from secondglance.server.options import ServerOptions
from secondglance.server.problems import ApiError
from secondglance.server.uploads import Upload, Uploads
from tests import hazards
from tests.media import picture, write_clip
from tests.served import client

LIMITS = IntakeLimits(
    max_pixels=50_000,
    max_video_s=12.0,
    max_frames=200,
    max_bytes=20_000_000,
    fps=1.0,
    sampled_frames=16,
)

Make = Callable[..., Uploads]


@pytest.fixture(scope="module")
def decoding() -> Iterator[Decoding]:
    found = Decoding(workers=1, timeout_s=30, max_memory_mb=2048)
    yield found
    found.close()


@pytest.fixture
def make(tmp_path: Path, decoding: Decoding) -> Make:
    def made(
        *,
        total_bytes: int = 50_000_000,
        max_bytes: int = 1_000_000,
        ttl_s: float = 60.0,
        idle_s: float = 5.0,
        by: Decoding = decoding,
    ) -> Uploads:
        return Uploads(
            tmp_path / "uploads",
            by,
            LIMITS,
            max_bytes=max_bytes,
            total_bytes=total_bytes,
            ttl_s=ttl_s,
            idle_s=idle_s,
        )

    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", [1, 2], scene_s=2.0)
    return path.read_bytes()


def send(uploads: Uploads, *parts: bytes, declared: int | None = None) -> Upload:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def received() -> Upload:
        return await uploads.receive(body(), declared=declared)

    return asyncio.run(received())


def png(seed: int = 1, *, width: int = 96, height: int = 72) -> bytes:
    return encoded(picture(seed, width=width, height=height), "PNG")


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def gif(frames: int) -> bytes:
    shown = [Image.new("L", (4, 4), 40 * (number % 6)) for number in range(frames)]
    return encoded(shown[0], "GIF", save_all=True, append_images=shown[1:], duration=20)


def bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it has billions of pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def left_over(uploads: Uploads) -> list[Path]:
    return list(uploads._folder.iterdir())


def test_a_picture_is_kept_as_pixels_and_nothing_else(make: Make) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010F] = "a maker's name"
    sent = encoded(picture(1), "JPEG", exif=exif, icc_profile=b"profile" * 9, comment=b"hidden")
    upload = send(make(), sent[:100], sent[100:])
    assert (upload.taken.kind, upload.taken.width, upload.taken.height) == ("image", 72, 96)
    assert upload.taken.picture is not None
    assert {path.name for path in upload.folder.iterdir()} == {
        upload.taken.picture.name,
        intake.THUMBNAIL,
    }
    with Image.open(upload.taken.picture) as kept:
        assert (kept.format, kept.mode, dict(kept.info)) == ("PNG", "RGB", {})
        with Image.open(io.BytesIO(sent)) as before:
            expected = np.rot90(np.asarray(before), -1)
        assert np.array_equal(np.asarray(kept), expected)
    with Image.open(upload.thumbnail) as small:
        assert (small.format, small.size) == ("JPEG", (72, 96))


def test_a_clip_becomes_frames_with_their_times(make: Make, clip: bytes) -> None:
    upload = send(make(), clip)
    taken = upload.taken
    assert (taken.kind, taken.duration_s, taken.frames) == ("video", 4.0, 40)
    assert len(taken.glances) == 8
    assert len(taken.sampled) == len(taken.times_s) == 4
    assert taken.times_s[0] == 0
    assert taken.times_s[-1] == pytest.approx(3.9)
    for frame in (*taken.glances, *taken.sampled):
        with Image.open(frame) as opened:
            assert (opened.format, opened.size) == ("PNG", (96, 72))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "unknown"),
        (b"<!doctype html><script>alert(1)</script>", "unknown"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "unknown"),
        (b"#!/bin/sh\n", "unknown"),
        (png()[:300], "damaged"),
        (bomb(60_000, 60_000), "60000x60000 is over the limit of 50000 pixels"),
        (png(width=300, height=200), "300x200 is over the limit of 50000 pixels"),
        (gif(201), "more than 200 frames"),
    ],
)
def test_what_is_refused(make: Make, sent: bytes, said: str) -> None:
    uploads = make()
    with pytest.raises(MediaError, match=said) as caught:
        send(uploads, sent)
    assert "/" not in str(caught.value).replace("://", "")
    assert left_over(uploads) == []


@pytest.mark.parametrize(
    ("scene_s", "size", "cut", "said"),
    [
        (5.0, (96, 72), 0.5, "unknown or damaged"),  # its index was at the end
        (13.0, (96, 72), 1.0, "13.0 s is over the limit of 12 s"),
        (25.0, (96, 72), 1.0, "more than 200 frames"),
        (0.5, (320, 240), 1.0, "320x240 are over the limit of 50000 pixels"),
    ],
)
def test_clips_that_are_refused(
    make: Make, tmp_path: Path, scene_s: float, size: tuple[int, int], cut: float, said: str
) -> None:
    from tests.media import write_frames

    shown = np.asarray(picture(1, width=size[0], height=size[1]))
    path = write_frames(tmp_path / "clip.mp4", [shown] * round(scene_s * 10))
    sent = path.read_bytes()
    with pytest.raises(MediaError, match=said):
        send(make(), sent[: int(len(sent) * cut)])


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {name}\n",
    ],
)
def test_a_playlist_does_not_reach_other_files(tmp_path: Path, playlist: str) -> None:
    """FFmpeg would open the file that a playlist names, and show it to whoever sent the list."""
    secret = write_clip(tmp_path / "secret.ts", [1], scene_s=1.0)
    path = tmp_path / "original"
    path.write_text(playlist.format(path=secret, name=secret.name))
    (tmp_path / "out").mkdir()
    with pytest.raises(MediaError, match="unknown or damaged"):
        intake.take(path, tmp_path / "out", LIMITS)


def test_pixels_are_counted_as_they_are_written(tmp_path: Path) -> None:
    import dataclasses

    path = tmp_path / "original"
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    path.write_bytes(encoded(Image.fromarray(noise), "JPEG", quality=5))
    few = dataclasses.replace(LIMITS, max_bytes=20_000)
    assert path.stat().st_size < 20_000
    with pytest.raises(MediaError, match="decoded, it takes more than"):
        intake.take(path, tmp_path, few)


def test_a_body_without_end_is_not_read_to_its_end(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "DRAIN_BYTES", 1_000_000)
    given = 0
    on_disk = 0
    uploads = make()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given, on_disk
        while given < 100_000_000:
            given += 100_000
            on_disk = max(on_disk, sum(p.stat().st_size for p in uploads._folder.rglob("*")))
            yield bytes(100_000)

    with pytest.raises(ApiError) as caught:
        asyncio.run(uploads.receive(endless(), declared=None))
    assert caught.value.status == 413
    assert given < 2_500_000
    assert on_disk <= 1_000_000 + 4096
    assert left_over(uploads) == []


def test_what_is_announced_too_large_is_not_written(make: Make) -> None:
    uploads = make()
    with pytest.raises(ApiError) as caught:
        send(uploads, b"x" * 10, declared=1_000_001)
    assert caught.value.status == 413
    assert left_over(uploads) == []


def test_a_slow_client_is_given_up(make: Make) -> None:
    uploads = make(idle_s=0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield png()[:50]
        await asyncio.sleep(30)
        yield b""

    with pytest.raises(ApiError) as caught:
        asyncio.run(asyncio.wait_for(uploads.receive(slow(), declared=None), 10))
    assert caught.value.status == 408
    assert left_over(uploads) == []


def test_a_client_that_gives_a_byte_now_and_then_is_given_up(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "SLOWEST", 10_000_000)

    async def dripping() -> AsyncIterator[bytes]:
        for _ in range(200):
            await asyncio.sleep(0.1)
            yield b"x"

    with pytest.raises(ApiError) as caught:
        asyncio.run(asyncio.wait_for(make(idle_s=0.5).receive(dripping(), declared=None), 10))
    assert caught.value.status == 408


def test_so_many_at_a_time(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "MAX_RECEIVING", 0)
    with pytest.raises(ApiError) as caught:
        send(make(), png())
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("word", "said"), [("kills", "crashed"), ("greedy", "more than 2048 MB"), ("hangs", "longer")]
)
def test_a_file_that_takes_its_worker_along(
    make: Make, monkeypatch: pytest.MonkeyPatch, word: str, said: str
) -> None:
    by = Decoding(workers=1, timeout_s=3, max_memory_mb=2048)
    try:
        uploads = make(by=by)
        with monkeypatch.context() as patch:
            patch.setattr(intake, "take", hazards.hazardous_take)
            with pytest.raises(MediaError, match=said) as caught:
                send(uploads, f"{word} it".encode())
        assert caught.value.remedy is None
        assert left_over(uploads) == []
        assert send(uploads, png()).taken.kind == "image"
    finally:
        by.close()


def test_the_oldest_go_first(make: Make) -> None:
    uploads = make()
    size = send(uploads, png(1)).size
    uploads._total_bytes = round(2.5 * size)
    uploads.remove(next(iter(uploads._kept)))
    first, second, third = (send(uploads, png(1)) for _ in range(3))
    assert not first.folder.exists()
    assert second.folder.exists()
    assert third.folder.exists()
    assert uploads.held_bytes == 2 * size
    with pytest.raises(MediaError, match="no such upload"), uploads.hold(first.id):
        pass
    with uploads.hold(second.id) as found:
        assert found is second


def test_what_a_request_reads_stays_until_it_is_done(make: Make) -> None:
    uploads = make()
    upload = send(uploads, png())
    with uploads.hold(upload.id):
        assert uploads.remove(upload.id)
        assert not uploads.remove(upload.id)
        assert upload.taken.picture is not None
        assert upload.taken.picture.exists()
    assert not upload.folder.exists()


def test_uploads_expire_by_themselves(make: Make) -> None:
    uploads = make(ttl_s=0.3)

    async def come_and_go() -> Upload:
        async def body() -> AsyncIterator[bytes]:
            yield png()

        upload = await uploads.receive(body(), declared=None)
        assert upload.folder.exists()
        await asyncio.sleep(0.6)
        return upload

    upload = asyncio.run(come_and_go())
    assert not upload.folder.exists()
    with pytest.raises(MediaError, match="no such upload"), uploads.hold(upload.id):
        pass


def test_larger_than_all_room_is_refused(make: Make) -> None:
    uploads = make(total_bytes=500)
    with pytest.raises(ApiError) as caught:
        send(uploads, png())
    assert caught.value.status == 413
    assert left_over(uploads) == []


def test_names_cannot_be_guessed(make: Make) -> None:
    uploads = make()
    ids = [send(uploads, png()).id for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(base64.urlsafe_b64decode(id)) == 24 for id in ids)
    for guess in ("", ".", "..", "../uploads", ids[0][:-1], ids[0].swapcase(), "*", "original"):
        with pytest.raises(MediaError, match="no such upload"), uploads.hold(guess):
            pass


@pytest.fixture(scope="module")
def small(library: Library) -> Iterator[httpx.Client]:
    options = ServerOptions(max_upload_mb=0.2, max_video_s=20, decode_workers=1)
    with client(library, options) as found:
        yield found


def test_over_http(small: httpx.Client) -> None:
    lies = {"content-type": "text/html", "content-disposition": "attachment; filename=../x.html"}
    answer = small.post("/v1/uploads", content=png(), headers=lies)
    assert answer.status_code == 201
    found = answer.json()
    assert found["reference"] == f"upload:{found['id']}"
    assert (found["kind"], found["width"], found["height"]) == ("image", 96, 72)
    assert found["expires_s"] == 3600
    shown = small.get(f"/v1/uploads/{found['id']}/thumbnail")
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert shown.content.startswith(b"\xff\xd8")
    assert small.delete(f"/v1/uploads/{found['id']}").status_code == 204
    for gone in (
        small.delete(f"/v1/uploads/{found['id']}"),
        small.get(f"/v1/uploads/{found['id']}/thumbnail"),
        small.get("/v1/uploads/..%2f..%2fetc/thumbnail"),
    ):
        assert gone.status_code == 404
        assert gone.headers["content-type"] == "application/problem+json"


def parts(count: int) -> Iterable[bytes]:
    yield from (bytes(50_000) for _ in range(count))


def test_too_large_over_http(small: httpx.Client) -> None:
    announced = small.post("/v1/uploads", content=bytes(300_000))
    in_parts = small.post("/v1/uploads", content=parts(10))  # without Content-Length
    for answer in (announced, in_parts):
        assert answer.status_code == 413
        assert answer.json()["type"].endswith("too-large")


def test_unreadable_over_http(small: httpx.Client) -> None:
    answer = small.post("/v1/uploads", content=b"not a picture")
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("media-unreadable")
    assert "/tmp" not in answer.text


def test_nothing_stays_behind(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    folders: list[Path] = []
    real = tempfile.TemporaryDirectory

    def noted(*args: object, **kwargs: object) -> object:
        made = real(*args, **kwargs)  # type: ignore[call-overload]
        folders.append(Path(made.name))
        return made

    monkeypatch.setattr(tempfile, "TemporaryDirectory", noted)
    with client(library, ServerOptions(decode_workers=1)) as http:
        assert http.post("/v1/uploads", content=png()).status_code == 201
        assert any(folder.exists() for folder in folders)
    assert folders
    assert not any(folder.exists() for folder in folders)
