"""Hashes of what a score depends on: all that changes it, and nothing else."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.rerank import digests
from secondglance.rerank.digests import (
    FileIdentity,
    checkpoint_digest,
    content_digest,
    fingerprint,
    identify,
)
from secondglance.rerank.score_cache import ScoreCache
from secondglance.types import Content, VideoClip
from tests.media import picture

HOUR_NS = 3600 * 10**9


class Memo:
    """Forgets everything."""

    def file_hash(self, identity: FileIdentity) -> str | None:
        return None

    def keep_file_hash(self, identity: FileIdentity, digest: str) -> None:
        pass


def _digest(content: Content) -> str:
    found = content_digest(content, Memo())
    assert found is not None
    return found.digest


def test_an_unchanged_file_is_read_once(cache: ScoreCache, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    os.utime(path, ns=(HOUR_NS, HOUR_NS))
    content = Content(images=(path,))
    first = content_digest(content, cache)
    assert first is not None
    known = cache.file_hash(identify(path))
    assert known is not None
    cache.keep_file_hash(identify(path), known[::-1])  # what is read now is not the file
    second = content_digest(content, cache)
    assert second is not None
    assert second.digest != first.digest


def test_a_file_that_was_just_written_is_read_again(cache: ScoreCache, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"bytes")
    assert content_digest(Content(images=(path,)), cache) is not None
    assert cache.file_hash(identify(path)) is None


def test_everything_that_changes_what_is_seen_changes_the_digest(photos: list[Path]) -> None:
    one, two, _ = photos
    clip = VideoClip(path=one)
    frames = VideoClip(frames=(one, two), times_s=(0.0, 1.0))
    contents = [
        Content(),
        Content(texts=("ab",)),
        Content(texts=("a", "b")),
        Content(images=(one,)),
        Content(images=(two,)),
        Content(images=(one, two)),
        Content(images=(two, one)),
        Content(images=(one,), texts=("ab",)),
        Content(videos=(clip,)),
        Content(videos=(dataclasses.replace(clip, start_s=1),)),
        Content(videos=(dataclasses.replace(clip, end_s=1),)),
        Content(videos=(dataclasses.replace(clip, start_s=1, end_s=2),)),
        Content(videos=(dataclasses.replace(clip, start_s=1, end_s=2, keyframe_s=1.5),)),
        Content(videos=(frames,)),
        Content(videos=(dataclasses.replace(frames, times_s=None),)),
        Content(videos=(dataclasses.replace(frames, times_s=(0.0, 2.0)),)),
        Content(videos=(dataclasses.replace(frames, frames=(two, one)),)),
        Content(videos=(dataclasses.replace(frames, frames=(picture(0), picture(1))),)),
    ]
    digests = [_digest(content) for content in contents]
    assert len(set(digests)) == len(contents)
    assert [_digest(content) for content in contents] == digests


def test_pictures_count_by_pixels_mode_size_palette_and_orientation() -> None:
    base = picture(1)
    turned = base.copy()
    turned.getexif()[274] = 6
    paletted = base.quantize(4)
    recoloured = paletted.copy()
    recoloured.putpalette(list(range(12)))
    transparent = paletted.copy()
    transparent.info["transparency"] = 0
    spot = base.copy()
    spot.putpixel((0, 0), (1, 2, 3))
    flat = Image.fromarray(np.asarray(base).reshape(96, 72, 3))
    pictures = [base, turned, paletted, recoloured, transparent, spot, flat, base.convert("L")]
    digests = [_digest(Content(images=(each,))) for each in pictures]
    assert len(set(digests)) == len(pictures)
    assert _digest(Content(images=(base.copy(),))) == digests[0]


def test_weights_changed_in_place_change_the_fingerprint(cache: ScoreCache, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("words")
    weights = folder / "model.safetensors"
    found = []
    for middle in (b"1", b"2"):
        weights.write_bytes(b"head" + middle + b"tail")
        os.utime(weights, ns=(HOUR_NS, HOUR_NS))
        found.append(checkpoint_digest(folder, cache))
    (folder / "README.md").write_text("other words")
    assert checkpoint_digest(folder, cache) == found[1]
    (folder / "config.json").write_text('{"x": 1}')
    found.append(checkpoint_digest(folder, cache))
    assert len(set(found)) == 3
    marks = {fingerprint(found[0], {"max_pixels": n}) for n in (1, 2)}
    assert len(marks | {fingerprint(found[1], {"max_pixels": 1})}) == 3


def test_a_long_file_counts_by_its_state_and_is_not_read(
    cache: ScoreCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "WHOLE_BYTES", 1000)
    path = tmp_path / "long.mp4"
    path.write_bytes(b"a" * 2000)
    content = Content(videos=(VideoClip(path=path, start_s=0.0, end_s=5.0),))

    def read(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(digests, "file_hash", read)
    first = digests.content_digest(content, cache)
    assert first is not None
    assert digests.content_digest(content, cache) == first
    path.write_bytes(b"a" * 2001)
    assert not first.still_true()
    changed = digests.content_digest(content, cache)
    assert changed is not None
    assert changed.digest != first.digest
