"""Metadata and sidecars through the whole job: stored, filtered, shown, and kept up to date."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from secondglance.ingest import metadata
from secondglance.library import Library
from secondglance.pipelines import render
from secondglance.types import IndexReport
from tests.libraries import Open, counts, stored_ids, verify
from tests.media import picture, write_clip
from tests.unit.test_metadata import XMP, full_exif

pytestmark = pytest.mark.usefixtures("one_embedder")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for seed, name in enumerate(("plain.jpg", "harbour.jpg", "beach.png")):
        exif = full_exif() if name == "harbour.jpg" else Image.Exif()
        picture(seed).save(folder / name, exif=exif)
    (folder / "beach.xmp").write_text(XMP)
    (folder / "beach.txt").write_text("Waves")
    write_clip(folder / "clip.mp4", [20], scene_s=2)
    (folder / "clip.mp4.json").write_text(json.dumps({"caption": "A clip", "tags": ["Film"]}))
    return folder


def names(library: Library, expression: str) -> list[str]:
    found = library.search("x", k=50, rerank=False, filter=expression)
    return sorted(Path(hit.path).name for hit in found.hits)


def dies_on_one(files: Sequence[Any], *, max_pixels: int) -> list[metadata.Description | None]:
    """Runs in a worker."""
    if any(path.name == "harbour.jpg" for path, *_ in files):
        os._exit(3)
    return metadata.describe_files(files, max_pixels=max_pixels)


def described(report: IndexReport) -> tuple[int, int, int]:
    return report.indexed, report.unchanged, report.described


@pytest.mark.parametrize("store", ["milvus", "faiss"])
def test_filters_find_what_files_and_sidecars_say(
    album: Path, open_library: Open, store: str
) -> None:
    library = open_library(store=store)
    report = library.index([album])
    assert counts(report) == {"files": 4, "indexed": 4}
    assert (report.errors, report.described) == ((), 0)
    for expression, expected in {
        'tags has "BEACH" and rating >= 4': ["beach.png"],
        'tags has "ada lovelace"': ["beach.png"],
        'tags has "film" and codec == "h264" and duration_s < 3': ["clip.mp4"],
        'camera == "NIKON D850" and iso_speed in (640) and exposure_s < 0.005': ["harbour.jpg"],
        "near(-33.86, 151.2, 10)": ["harbour.jpg"],
        "lat > 0": ["beach.png"],
        "taken >= 2024-05-06 and taken < 2024-05-07": ["harbour.jpg"],
        'text like "%Waves%" and text like "Two dogs%"': ["beach.png"],
        'text == "A clip"': ["clip.mp4"],
        "width == 72 and height == 96": ["harbour.jpg"],
        'format == "png" or format == "mp4"': ["beach.png", "clip.mp4"],
        'not camera like "%"': ["clip.mp4", "plain.jpg"],
        'kind == "text"': [],
        "fps == 10": ["clip.mp4"],
    }.items():
        assert names(library, expression) == expected, expression
    verify(library)


def test_a_sidecar_that_changes_is_read_without_embedding(
    album: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = open_library()
    library.index([album])
    ids = stored_ids(library)
    assert described(library.index([album])) == (0, 4, 0)

    def refuse(*_: Any) -> Any:
        raise AssertionError("nothing is to be embedded")

    monkeypatch.setattr(library._parts.embedder(), "begin_pixels", refuse)
    (album / "clip.mp4.json").write_text(json.dumps({"caption": "Another", "tags": ["New"]}))
    (album / "plain.jpg.txt").write_text("Now with words")
    assert described(library.index([album])) == (0, 4, 2)
    assert names(library, 'tags has "new" and text == "Another"') == ["clip.mp4"]
    assert names(library, 'tags has "film"') == []
    assert names(library, "duration_s > 1 and fps == 10") == ["clip.mp4"]
    assert names(library, 'text == "Now with words"') == ["plain.jpg"]

    (album / "beach.xmp").unlink()
    (album / "plain.jpg.txt").unlink()
    assert described(library.index([album])) == (0, 4, 2)
    assert names(library, 'tags has "beach" or text like "Now%"') == []
    assert names(library, 'text == "Waves"') == ["beach.png"]
    assert described(library.index([album])) == (0, 4, 0)
    assert stored_ids(library) == ids
    verify(library)


def test_moves_and_manifests_keep_what_files_say(album: Path, open_library: Open) -> None:
    library = open_library()
    library.index([album])
    (album / "harbour.jpg").rename(album / "moved.jpg")
    manifest = album / "captions.csv"
    manifest.write_text("file,caption\nmoved.jpg,From the manifest\n")
    report = library.index([album])
    assert (report.moved, report.described) == (1, 0)
    text = "From the manifest\nA harbour at dusk"
    [hit] = library.search("x", rerank=False, filter='camera == "NIKON D850"').hits
    assert (Path(hit.path).name, hit.text) == ("moved.jpg", text)
    manifest.write_text("file,caption\nmoved.jpg,Other words\n")
    (album / "moved.jpg.txt").write_text("Beside it")
    assert library.index([album]).described == 1
    [hit] = library.search("x", rerank=False, filter='camera == "NIKON D850"').hits
    assert hit.text == "Other words\nBeside it\nA harbour at dusk"
    manifest.unlink()
    library.index([album])
    [hit] = library.search("x", rerank=False, filter='camera == "NIKON D850"').hits
    assert hit.text == "Beside it\nA harbour at dusk"
    verify(library)


def make_old(library: Library) -> None:
    """As a library was before there was metadata: no tables, and the text indexed by itself."""
    with library._parts.catalog.transaction() as database:
        database.execute("DROP TABLE described")
        database.execute("DROP TABLE sidecars")
        ids = [row[0] for row in database.execute("SELECT id FROM records")]
    store = library._parts.store()
    keys = metadata.KEYS - {"width", "height"}
    old = []
    for record in store.get(ids):
        kept = {k: v for k, v in record.payload.items() if k not in keys}
        if kept["kind"] != "text":
            kept.pop("text", None)
        old.append(type(record)(id=record.id, vector=record.vector, payload=kept))
    store.upsert(old)
    store.flush()


def test_an_older_library_gets_its_metadata(album: Path, open_library: Open) -> None:
    words = album / "beach.txt"
    words.rename(album / "other.txt")
    library = open_library(store="milvus")
    library.index([album])
    make_old(library)
    assert names(library, 'tags has "beach"') == []
    (album / "other.txt").rename(words)
    with library._parts.catalog.transaction() as database:
        database.execute("UPDATE files SET path = ? WHERE kind = 'text'", (str(words),))
    open_library.close()

    library = open_library(store="milvus")
    assert names(library, "size > 0 and width >= 72") == sorted(
        ["beach.png", "clip.mp4", "harbour.jpg", "plain.jpg"]
    )
    report = library.index([album])
    assert described(report) == (0, 4, 4)
    assert report.removed == 1  # the words are a caption now, no text of their own
    assert names(library, 'tags has "beach" and text like "%Waves%"') == ["beach.png"]
    assert names(library, 'camera == "NIKON D850" and text == "A harbour at dusk"') == [
        "harbour.jpg"
    ]
    assert names(library, 'kind == "text"') == []
    assert described(library.index([album])) == (0, 4, 0)
    verify(library)


def test_folders_that_were_not_scanned_wait(album: Path, open_library: Open) -> None:
    other = album.parent / "other"
    other.mkdir()
    picture(7).save(other / "seven.jpg", exif=full_exif())
    library = open_library()
    library.index([album, other])
    make_old(library)
    open_library.close()
    library = open_library()
    (other / "seven.jpg").rename(album.parent / "away.jpg")
    assert library.index([album]).described == 4
    (album.parent / "away.jpg").rename(other / "seven.jpg")
    assert library.index([album]).described == 0
    assert library.index([other]).described == 1


def test_damaged_sidecars_and_files_that_kill_their_reader(
    album: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "plain.json").write_text("{")
    library = open_library()
    report = library.index([album])
    assert counts(report) == {"files": 4, "indexed": 4}
    [failure] = report.errors
    assert failure.path == str(album / "plain.json")
    assert failure.reason.startswith("sidecar cannot be used: not JSON")
    assert library.index([album]).errors == ()
    (album / "plain.json").write_text("{{")
    report = library.index([album])
    assert described(report) == (0, 4, 1)
    assert [failure.path for failure in report.errors] == [str(album / "plain.json")]

    make_old(library)
    open_library.close()
    library = open_library()
    monkeypatch.setattr("secondglance.pipelines.describe.describe_files", dies_on_one)
    assert library.index([album]).described == 4
    assert names(library, 'tags has "beach" or tags has "film"') == ["beach.png", "clip.mp4"]
    assert names(library, 'camera like "%"') == ["beach.png"]  # harbour.jpg killed its reader
    assert names(library, "size > 0 and width >= 72 and height >= 72") == sorted(
        ["beach.png", "clip.mp4", "harbour.jpg", "plain.jpg"]
    )
    assert library.index([album]).described == 0


def test_a_sidecar_by_itself_is_a_text(album: Path, open_library: Open) -> None:
    library = open_library()
    assert counts(library.index([album / "beach.txt"])) == {"files": 1, "indexed": 1}
    assert counts(library.index([album / "beach.png"])) == {"files": 1, "indexed": 1}
    assert names(library, 'tags has "beach" and text like "%Waves%"') == ["beach.png"]


def test_results_show_metadata(album: Path, open_library: Open) -> None:
    library = open_library()
    library.index([album])
    result = library.search("x", k=10, rerank=False)
    by_name = {Path(hit["path"]).name: hit for hit in result.to_dict()["hits"]}
    beach = by_name["beach.png"]["metadata"]
    assert beach.pop("modified").endswith("Z")
    assert beach == {
        "taken": "2023-07-14T16:30:00.500Z",
        "size": (album / "beach.png").stat().st_size,
        "width": 96,
        "height": 72,
        "tags": ["beach", "dog / puppy", "Ada Lovelace"],
        "rating": 4,
        "camera": "Canon EOS R5",
        "lens": "RF24-70mm F2.8 L",
        "lat": pytest.approx(47.37, abs=0.01),
        "lon": pytest.approx(-8.54, abs=0.01),
        "altitude_m": 456.7,
        "format": "png",
    }
    clip = by_name["clip.mp4"]["metadata"]
    assert (clip["duration_s"], clip["codec"], clip["fps"]) == (2.0, "h264", 10)

    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(render.render(result, "csv")))}
    row = rows[str(album / "beach.png")]
    assert row["tags"] == "beach; dog / puppy; Ada Lovelace"
    assert (row["taken"], row["camera"]) == ("2023-07-14T16:30:00.500Z", "Canon EOS R5")
    assert rows[str(album / "plain.jpg")]["camera"] == ""
    table = render.plain_table(result)
    assert "2023-07-14, 96x72" in table
    assert "0:02, 96x72" in table
    page = render.render(result, "html")
    assert "2023-07-14, 96x72, Canon EOS R5" in page
    assert "Ada Lovelace" in page
