"""Hostile and unusual files, mixed with good ones: each is indexed or listed with its reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from tests.libraries import Open, verify
from tests.media import write_pictures

pytestmark = pytest.mark.usefixtures("own_workers")

SHARED = Path(os.environ.get("SECONDGLANCE_SHARED", Path(__file__).parents[3] / "shared"))
MALFORMED = SHARED / "data" / "malformed"
LIMIT_MB = 4096
# Read by no decoder here, and rightly so.
MUST_FAIL = {
    "zero.png", "zero.mp4", "text_named.mp4", "html_named.jpg", "bomb_20000x20000_rgb.png",
    "bomb_50000x50000_1bit.png", "pillow_decompression_bomb.gif", "lying_ihdr.png",
    "mp4_truncated_no_moov.mp4", "subtitles_only.mp4", "moz_green.jxl",
}  # fmt: skip
MUST_WORK = {
    "mp4_named.jpg", "NO_EXTENSION", "-rf --help.jpg", "pillow_pil_sample_cmyk.jpg", "rotate90.mp4",
    "pillow_tiff_16bit_RGB.tiff", "ten_hours_600_frames.mp4", "uhd_8k_3frames.mp4", "one_frame.mp4",
    "torchcodec_h265_10bits.mp4", "moz_gizmo_av1_10bit_420.webm", "moz_944353.jpg", "tiny_1x1.jpg",
    "pillowheif_RGBA_12__128x128.heif", "pillow_avif_rot1mir0.avif", "extreme_aspect_6000x3.png",
}  # fmt: skip


@pytest.mark.skipif(not MALFORMED.is_dir(), reason=f"no malformed files in {MALFORMED}")
def test_every_file_is_indexed_or_listed(tmp_path: Path, open_library: Open) -> None:
    names = [
        Path(json.loads(line)["file"]).name
        for line in (MALFORMED / "INDEX.jsonl").read_text("utf-8").splitlines()
    ]
    good = write_pictures(tmp_path / "good", 20)
    largest = 0.0

    def watch(_: object) -> None:
        nonlocal largest
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            try:
                largest = max(largest, process.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                continue

    library = open_library()
    report = library.index([MALFORMED / "files", tmp_path / "good"], on_progress=watch)
    failed = {Path(error.path).name: error.reason for error in report.errors}
    assert report.files == len(names) + len(good) == 119
    assert report.indexed + report.failed == report.files
    assert all(reason and "\n" not in reason and "/" not in reason for reason in failed.values())
    assert failed.keys() <= set(names)
    assert failed.keys() >= MUST_FAIL
    assert not failed.keys() & MUST_WORK
    assert largest < LIMIT_MB
    verify(library)
    for path in good:
        assert library._parts.catalog.file(path) is not None
    again = library.index([MALFORMED / "files", tmp_path / "good"])
    assert (again.indexed, again.failed) == (0, report.failed)
