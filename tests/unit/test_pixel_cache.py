"""Prepared media in memory: what is the same, what is not, and how much is held."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secondglance.errors import MediaError
from secondglance.rerank import pixel_cache
from secondglance.rerank.limits import Limits
from secondglance.rerank.pixel_cache import PixelCache
from secondglance.rerank.preprocess import Side, prepare
from secondglance.types import Content, VideoClip
from tests.media import picture, write_clip, write_pictures

LIMITS = Limits(max_pixels=16_384, total_pixels=65_536, max_frames=4)
ROOM = 1 << 24


@pytest.fixture
def photos(tmp_path: Path) -> list[Content]:
    return [Content(images=(path,)) for path in write_pictures(tmp_path, 3)]


def _path(content: Content) -> Path:
    [path] = content.images
    assert isinstance(path, Path)
    return path


def _equal(one: Side, two: Side) -> bool:
    pixels = zip((*one.images, *one.videos), (*two.images, *two.videos), strict=True)
    return one.pieces == two.pieces and all(a.equal(b) for a, b in pixels)


def test_the_second_time_comes_from_memory(photos: list[Content]) -> None:
    cache = PixelCache(ROOM)
    side = cache.get(photos[0], LIMITS)
    assert _equal(side, prepare(photos[0], LIMITS))
    assert cache.get(photos[0], LIMITS) is side
    assert cache.get(photos[1], LIMITS) is not side
    assert cache.held_bytes >= side.pixel_bytes > 0


def test_limits_texts_and_kinds_tell_sides_apart(photos: list[Content]) -> None:
    cache = PixelCache(ROOM)
    large = cache.get(photos[0], LIMITS)
    smaller = dataclasses.replace(LIMITS, min_pixels=1024, max_pixels=2048)
    assert cache.get(photos[0], smaller).pixel_bytes < large.pixel_bytes
    captioned = dataclasses.replace(photos[0], texts=("words",))
    assert cache.get(captioned, LIMITS).pieces == (*large.pieces, "words")
    assert cache.get(photos[0], LIMITS) is large


def test_stretches_of_a_clip_are_told_apart(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", [1, 2], scene_s=1)
    cache = PixelCache(ROOM)
    stretches = [(None, None), (0.0, 1.0), (1.0, 2.0), (1.0, None)]
    contents = [
        Content(videos=(VideoClip(path=path, start_s=start, end_s=end),))
        for start, end in stretches
    ]
    sides = [cache.get(content, LIMITS) for content in contents]
    for content, side in zip(contents, sides, strict=True):
        assert cache.get(content, LIMITS) is side
        assert _equal(side, prepare(content, LIMITS))
    assert not _equal(sides[1], sides[2])


def test_a_changed_file_is_read_again(photos: list[Content]) -> None:
    cache = PixelCache(ROOM)
    path = _path(photos[0])
    before = cache.get(photos[0], LIMITS)
    _path(photos[1]).replace(path)
    after = cache.get(photos[0], LIMITS)
    assert not _equal(before, after)
    assert _equal(after, prepare(photos[0], LIMITS))


def test_what_is_in_memory_already_is_not_held(photos: list[Content]) -> None:
    cache = PixelCache(ROOM)
    path = _path(photos[0])
    for content in (
        Content(images=(picture(1),)),
        Content(videos=(VideoClip(frames=(path, picture(2))),)),
        Content(images=(path, picture(2))),
        Content(texts=("words",)),
        Content(),
    ):
        first = cache.get(content, LIMITS)
        assert _equal(first, prepare(content, LIMITS))
        assert cache.get(content, LIMITS) is not first
    assert cache.held_bytes == 0


def test_memory_is_bounded_and_the_least_recently_used_go(photos: list[Content]) -> None:
    one = PixelCache(ROOM)
    one.get(photos[0], LIMITS)
    room = 2 * one.held_bytes
    cache = PixelCache(room)
    sides = [cache.get(content, LIMITS) for content in photos[:2]]
    assert cache.get(photos[0], LIMITS) is sides[0]
    cache.get(photos[2], LIMITS)
    assert cache.held_bytes <= room
    assert cache.get(photos[0], LIMITS) is sides[0]
    assert cache.get(photos[1], LIMITS) is not sides[1]
    for size in (0, 100):
        small = PixelCache(size)
        assert _equal(small.get(photos[0], LIMITS), sides[0])
        assert small.held_bytes == 0


def test_errors_are_not_remembered(tmp_path: Path) -> None:
    cache = PixelCache(ROOM)
    path = tmp_path / "later.png"
    content = Content(images=(path,))
    with pytest.raises(MediaError, match=r"later\.png: no such file"):
        cache.get(content, LIMITS)
    path.write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"later\.png: not a picture"):
        cache.get(content, LIMITS)
    picture(1).save(path)
    assert _equal(cache.get(content, LIMITS), prepare(content, LIMITS))


def _slowly(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[Content, Limits], Side]
) -> list[Content]:
    """Makes preparation take long enough to meet; returns the list of what is prepared."""
    begun: list[Content] = []

    def slow(content: Content, limits: Limits) -> Side:
        begun.append(content)
        time.sleep(0.2)
        return work(content, limits)

    monkeypatch.setattr(pixel_cache, "prepare", slow)
    return begun


@pytest.mark.parametrize("room", [ROOM, 100])
def test_threads_that_ask_at_once_prepare_once(
    room: int, photos: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = _slowly(monkeypatch, prepare)
    cache = PixelCache(room)
    together = threading.Barrier(6)

    def ask(content: Content) -> Side:
        together.wait()
        return cache.get(content, LIMITS)

    with ThreadPoolExecutor(6) as threads:
        sides = list(threads.map(ask, [*photos[:2]] * 3))
    assert len(begun) == 2
    assert len({id(side) for side in sides}) == 2
    assert sides[0] is sides[2] is sides[4]


def test_threads_that_wait_for_a_failure_get_an_error_each(
    photos: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: Content, limits: Limits) -> Side:
        raise MediaError("broken")

    _slowly(monkeypatch, fail)
    cache = PixelCache(ROOM)
    together = threading.Barrier(3)

    def ask(_: int) -> MediaError:
        together.wait()
        with pytest.raises(MediaError, match="broken") as caught:
            cache.get(photos[0], LIMITS)
        return caught.value

    with ThreadPoolExecutor(3) as threads:
        errors = list(threads.map(ask, range(3)))
    assert len({id(error) for error in errors}) == 3
    monkeypatch.undo()
    assert cache.get(photos[0], LIMITS).images


def test_a_file_that_changes_while_it_is_read_is_not_held(
    photos: list[Content], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(content: Content, limits: Limits) -> Side:
        side = prepare(content, limits)
        picture(9).save(_path(content), quality=50)
        return side

    monkeypatch.setattr(pixel_cache, "prepare", change)
    cache = PixelCache(ROOM)
    before = cache.get(photos[0], LIMITS)
    assert cache.held_bytes == 0
    monkeypatch.undo()
    assert not _equal(cache.get(photos[0], LIMITS), before)
