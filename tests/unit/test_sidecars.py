"""Which files describe which, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from secondglance.ingest.facts import Facts
from secondglance.ingest.metadata import describe
from secondglance.ingest.sidecars import match, sidecar_facts, stamp
from tests.unit.test_metadata import XMP

LONG = "PXL_20230714_163000123.PORTRAIT.ORIGINAL-edited-x.jpg"


@pytest.mark.parametrize(
    ("media", "beside", "expected"),
    [
        ("photo.jpg", ["photo.jpg.txt"], ["photo.jpg.txt"]),
        ("photo.jpg", ["photo.txt", "photo.json", "photo.xmp"], ["xmp", "json", "txt"]),
        ("photo.jpg", ["photo.xmp", "photo.jpg.xmp"], ["photo.jpg.xmp", "photo.xmp"]),
        ("PHOTO.JPG", ["photo.jpg.XMP", "Photo.TXT"], ["photo.jpg.XMP", "Photo.TXT"]),
        ("clip.mp4", ["clip.txt"], ["clip.txt"]),
        ("photo.jpg", ["photo.jpg.supplemental-metadata.json"], ["json"]),
        ("photo.jpg", ["photo.jpg.supplemental-meta.json"], ["json"]),
        ("photo.jpg", ["photo.jpg.s.json"], ["json"]),
        ("photo(1).jpg", ["photo.jpg(1).json"], ["json"]),
        ("photo(1).jpg", ["photo.jpg.supplemental-metadata(1).json"], ["json"]),
        (LONG, [f"{LONG[:46]}.json"], ["json"]),
        ("photo.jpg", ["photo.jpg.supplemental-metadata(1).json"], []),
        ("photo.jpg", ["photo.jpg.settings.json", "other.txt", "photos.txt"], []),
        ("photo.jpg", ["photo.md", "photo.csv"], []),
        ("notes.md", ["notes.txt"], []),
    ],
)
def test_names(tmp_path: Path, media: str, beside: list[str], expected: list[str]) -> None:
    files = [tmp_path / name for name in (media, *beside)]
    for path in files:
        path.touch()
    found = match(files)
    names = [path.name for path in found.get(tmp_path / media, ())]
    assert [name[-len(end) :] for name, end in zip(names, expected, strict=True)] == expected


def test_one_sidecar_for_all_of_a_stem_but_not_of_another_folder(tmp_path: Path) -> None:
    names = ["a/live.heic", "a/live.mov", "a/live.xmp", "b/live.jpg", "a/live.heic.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    heic, mov, xmp, _, txt = (tmp_path / name for name in names)
    assert match([tmp_path / name for name in names]) == {heic: (xmp, txt), mov: (xmp,)}


def test_a_long_text_is_a_text_of_its_own(tmp_path: Path) -> None:
    cover, book = tmp_path / "book.jpg", tmp_path / "book.txt"
    cover.touch()
    book.write_text("Call me Ishmael. " * 5000)
    assert match([cover, book]) == {}
    book.write_text("A white whale")
    assert match([cover, book]) == {cover: (book,)}


def test_the_stamp_follows_every_change(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "a.xmp"
    first.write_text("x")
    second.write_text("y")
    stamps = {stamp([]), stamp([first]), stamp([second]), stamp([first, second])}
    first.write_text("xx")
    stamps.add(stamp([first]))
    assert len(stamps) == 5
    assert stamp([]) == stamp([tmp_path / "none"]) == ""


def said(tmp_path: Path, name: str, content: str | bytes | dict[str, Any]) -> Facts:
    path = tmp_path / name
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return sidecar_facts(path)


def test_text(tmp_path: Path) -> None:
    assert said(tmp_path, "a.txt", "\ufeffTwo dogs\n\n on a beach \n").captions == [
        "Two dogs\non a beach"
    ]
    assert said(tmp_path, "a.txt", "Gruß aus Köln".encode("utf-16")).captions == ["Gruß aus Köln"]
    assert said(tmp_path, "a.txt", b"") == Facts()


def test_plain_json(tmp_path: Path) -> None:
    facts = said(
        tmp_path,
        "a.json",
        {
            "caption": "Two dogs",
            "Tags": ["beach", "dog", 3, None],
            "rating": 5,
            "date": "2023-07-14T18:30:00+02:00",
            "latitude": 47.37,
            "lng": "8.54",
            "camera": "Leica M6",
        },
    )
    assert facts.values == {
        "rating": 5,
        "taken": 1689352200,
        "lat": 47.37,
        "lon": 8.54,
        "camera": "Leica M6",
    }
    assert facts.captions == ["Two dogs"]
    assert facts.tags == ["beach", "dog"]
    assert said(tmp_path, "b.json", {"keywords": "sea, sun;sand"}).tags == ["sea", "sun", "sand"]


def test_google_takeout(tmp_path: Path) -> None:
    facts = said(
        tmp_path,
        "IMG_1.jpg.supplemental-metadata.json",
        {
            "title": "IMG_1.jpg",
            "description": "At the lake",
            "imageViews": "12",
            "creationTime": {"timestamp": "1690000000", "formatted": "Jul 22, 2023"},
            "photoTakenTime": {"timestamp": "1689352200", "formatted": "Jul 14, 2023"},
            "geoData": {"latitude": 0.0, "longitude": 0.0, "altitude": 0.0},
            "geoDataExif": {"latitude": 47.37, "longitude": 8.54, "altitude": 0.0},
            "people": [{"name": "Ada"}, {"name": "Grace"}, {}],
            "favorited": True,
        },
    )
    assert facts.values == {"taken": 1689352200, "lat": 47.37, "lon": 8.54}
    assert facts.captions == ["At the lake"]
    assert facts.tags == ["Ada", "Grace"]


def test_xmp(tmp_path: Path) -> None:
    facts = said(tmp_path, "a.xmp", XMP)
    assert facts.values["rating"] == 4
    assert facts.captions[0] == "Two dogs on a beach"


@pytest.mark.parametrize(
    "content",
    [
        {"caption": 5, "tags": {"a": 1}, "rating": True, "date": [], "geoData": 3, "people": "x"},
        {"rating": 1e999, "lat": "x", "lon": 3, "date": 1e300, "title": None},
        {"photoTakenTime": {"timestamp": "0"}, "caption": ["", None]},
    ],
)
def test_json_of_other_shapes_says_nothing(tmp_path: Path, content: dict[str, Any]) -> None:
    facts = said(tmp_path, "a.json", content)
    assert facts.values == {}
    assert facts.captions == []
    assert facts.tags in ([], ["x"])
    assert said(tmp_path, "list.json", "[1, 2]") == Facts()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "sidecar cannot be used: not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json", b"\xff\xff", "not JSON"),
        ("a.json", b'{"a": ' + b"1" * 9_000_000 + b"}", "over the limit"),
        ("a.xmp", b"<x", "not XML"),
        ("a.xmp", b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "document type"),
        ("a.txt", b"\0\xff\xfd\x81" * 100, "not a text"),
    ],
)
def test_a_damaged_sidecar_is_a_line_in_the_report(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    payload, problems = describe(Facts(values={"rating": 1}), [path, tmp_path / "gone.txt"])
    assert payload == {"rating": 1}
    assert [where for where, _ in problems] == [str(path), str(tmp_path / "gone.txt")]
    assert reason in problems[0][1]
    assert "cannot be read" in problems[1][1]


def test_sidecars_correct_the_file(tmp_path: Path) -> None:
    text, xmp = tmp_path / "a.txt", tmp_path / "a.xmp"
    text.write_text("From the text")
    xmp.write_text(XMP)
    own = Facts(values={"rating": 1, "camera": "Own", "iso_speed": 100}, captions=["Own words"])
    payload, _ = describe(own, [xmp, text])
    assert (payload["rating"], payload["camera"]) == (4, "Canon EOS R5")
    assert payload["iso_speed"] == 100
    assert payload["caption"] == (
        "Two dogs on a beach\nZwei Hunde am Strand\nFrom the text\nOwn words"
    )
