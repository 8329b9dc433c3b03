"""What pictures and videos say of themselves, as cameras and programs write it, and damaged."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from secondglance.ingest.exif import exif_facts, picture_facts
from secondglance.ingest.facts import Facts, merged, posix_s, product
from secondglance.ingest.metadata import describe, describe_files, video_facts
from secondglance.ingest.xmp import xmp_facts
from secondglance.media.pictures import open_picture, upright
from secondglance.types import split_tags
from tests.media import picture

BASE, GPS, IFD = ExifTags.Base, ExifTags.GPS, ExifTags.IFD

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
    xmlns:ext="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:aux="http://ns.adobe.com/exif/1.0/aux/"
    xmp:Rating="4" tiff:Make="Canon" tiff:Model="Canon EOS R5" aux:Lens="RF24-70mm F2.8 L"
    exif:DateTimeOriginal="2023-07-14T18:30:00.50+02:00"
    exif:GPSLatitude="47,22,12.6N" exif:GPSLongitude="8,32.5W"
    exif:GPSAltitude="4567/10" exif:GPSAltitudeRef="0">
   <dc:description><rdf:Alt>
     <rdf:li xml:lang="x-default">Two dogs on a beach</rdf:li>
     <rdf:li xml:lang="de">Zwei Hunde am Strand</rdf:li></rdf:Alt></dc:description>
   <dc:subject><rdf:Bag><rdf:li>beach</rdf:li><rdf:li>dog | puppy</rdf:li></rdf:Bag></dc:subject>
   <ext:PersonInImage><rdf:Bag><rdf:li>Ada Lovelace</rdf:li></rdf:Bag></ext:PersonInImage>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta><?xpacket end="w"?>"""


def full_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[BASE.Make], exif[BASE.Model] = "NIKON CORPORATION\0", "NIKON D850"
    exif[BASE.ImageDescription] = "A harbour at dusk"
    exif[BASE.Orientation] = 6
    exif[0x9C9E] = "sea;Harbour".encode("utf-16-le") + b"\0\0"
    ifd = exif.get_ifd(IFD.Exif)
    ifd[BASE.DateTimeOriginal], ifd[BASE.OffsetTimeOriginal] = "2024:05:06 07:08:09", "+02:00"
    ifd[BASE.SubsecTimeOriginal] = "25"
    ifd[BASE.LensModel], ifd[BASE.ISOSpeedRatings] = "24-70mm f/2.8", 640
    ifd[BASE.FNumber], ifd[BASE.ExposureTime] = IFDRational(28, 10), IFDRational(1, 250)
    ifd[BASE.FocalLength] = IFDRational(50)
    gps = exif.get_ifd(IFD.GPSInfo)
    gps[GPS.GPSLatitudeRef], gps[GPS.GPSLatitude] = "S", (33.0, 51.0, 24.84)
    gps[GPS.GPSLongitudeRef], gps[GPS.GPSLongitude] = "E", (151.0, 12.0, 54.0)
    gps[GPS.GPSAltitudeRef], gps[GPS.GPSAltitude] = b"\x01", 12.5
    return exif


def facts_of(path: Path) -> Facts:
    with open_picture(path) as image:
        return picture_facts(image)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "a.heic"])
def test_exif_of_every_format(tmp_path: Path, name: str) -> None:
    if name == "a.heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / name
    picture(1).save(path, exif=full_exif())
    facts = facts_of(path)
    said = dict(facts.values)
    assert said.pop("format") == {"a.jpg": "jpeg", "a.heic": "heif"}.get(name, name[2:])
    size = said.pop("width"), said.pop("height")
    # libheif turns the picture itself, and says so by orientation 1.
    assert size == ((96, 72) if name == "a.heic" else (72, 96))
    assert said.pop("lat") == pytest.approx(-33.8569, abs=1e-4)
    assert said.pop("lon") == pytest.approx(151.215, abs=1e-4)
    assert said == {
        "camera": "NIKON D850",
        "lens": "24-70mm f/2.8",
        "taken": 1714972089.25,  # 2024-05-06T05:08:09.25Z
        "iso_speed": 640,
        "f_number": pytest.approx(2.8),
        "exposure_s": pytest.approx(0.004),
        "focal_mm": 50,
        "altitude_m": pytest.approx(-12.5),
    }
    assert facts.captions == ["A harbour at dusk"]
    assert facts.tags == ["sea", "Harbour"]


def test_a_tiff_is_upright_once(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.tiff", exif=full_exif())  # Pillow leaves the directories out
    facts = facts_of(tmp_path / "a.tiff")
    assert facts.values == {"camera": "NIKON D850", "format": "tiff", "width": 72, "height": 96}
    with open_picture(tmp_path / "a.tiff") as image:
        assert upright(image).size == (72, 96)


def test_xmp_inside_a_picture(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.jpg", xmp=XMP.encode())
    facts = facts_of(tmp_path / "a.jpg")
    assert facts.values["camera"] == "Canon EOS R5"
    assert facts.values["lens"] == "RF24-70mm F2.8 L"
    assert facts.values["rating"] == 4
    assert facts.values["taken"] == 1689352200.5
    assert facts.values["lat"] == pytest.approx(47.37017, abs=1e-4)
    assert facts.values["lon"] == pytest.approx(-8.54167, abs=1e-4)
    assert facts.values["altitude_m"] == 456.7
    assert facts.captions == ["Two dogs on a beach", "Zwei Hunde am Strand"]
    assert facts.tags == ["beach", "dog / puppy", "Ada Lovelace"]


def iptc_block(*fields: tuple[int, bytes]) -> bytes:
    """Photoshop's resource 0x0404 in a JPEG's APP13."""
    data = b"".join(b"\x1c\x02" + struct.pack(">BH", n, len(value)) + value for n, value in fields)
    data += b"\0" * (len(data) % 2)
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def test_iptc_inside_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture(1).save(path)
    jpeg = path.read_bytes()
    block = iptc_block(
        (5, b"Title"),
        (25, "Zürich".encode()),
        (25, b"Fu\xdfball"),  # Latin-1
        (55, b"20190304"),
        (60, b"101530+0100"),
        (120, b"The words"),
    )
    path.write_bytes(jpeg[:2] + block + jpeg[2:])
    facts = facts_of(path)
    assert facts.captions == ["Title", "The words"]
    assert facts.tags == ["Zürich", "Fußball"]
    assert facts.values["taken"] == 1551690930  # 2019-03-04T09:15:30Z


@pytest.mark.parametrize(
    ("make", "model", "shown"),
    [
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("NIKON CORPORATION", "NIKON D850", "NIKON D850"),
        ("Apple", "iPhone 15 Pro", "Apple iPhone 15 Pro"),
        ("OLYMPUS IMAGING CORP.", "E-M5", "OLYMPUS E-M5"),
        ("HASSELBLAD", None, "HASSELBLAD"),
        (None, "X100V", "X100V"),
        (None, None, ""),
        (b"SONY\0\0", "ILCE-7M3\n", "SONY ILCE-7M3"),
        (5, ["x"], ""),
    ],
)
def test_camera_names(make: Any, model: Any, shown: str) -> None:
    assert product(make, model) == shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024:05:06 07:08:09", 1714979289.0),
        ("2024:05:06 07:08:09+02:00", 1714972089.0),
        ("2024-05-06T07:08:09.123456Z", 1714979289.123456),
        ("2024-05-06T07:08:09-0130", 1714984689.0),
        ("2024-05-06T07:08", 1714979280.0),
        ("2024-05-06", 1714953600.0),
        ("1912:04:15 02:20:00", -1821303600.0),
        ("0000:00:00 00:00:00", None),
        ("2024:13:01 00:00:00", None),
        ("2024:02:30 00:00:00", None),
        ("2024:05:06 25:00:00", None),
        ("2024-05-06T07:08:09+99:99", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (3, None),
        (b"2024:05:06 07:08:09\0", 1714979289.0),
    ],
)
def test_dates(text: Any, seconds: float | None) -> None:
    assert posix_s(text) == seconds


@pytest.mark.parametrize("moment", [-2082844800.0, 0.0, -1e12, 1e12, math.nan, math.inf])
def test_dates_that_no_clock_had_are_left_out(moment: float) -> None:
    facts = Facts()
    facts.put_taken(moment)
    assert facts.values == {}


def test_absurd_values_are_left_out() -> None:
    absurd: dict[int, Any] = {
        BASE.Make: "\x00\x01\x02",
        BASE.Model: "x" * 100_000,
        BASE.ImageDescription: "OLYMPUS DIGITAL CAMERA         ",
        BASE.ISOSpeedRatings: 0,
        BASE.FNumber: IFDRational(1, 0),
        BASE.FocalLength: IFDRational(0, 0),
        BASE.ExposureTime: "long",
        BASE.DateTimeOriginal: "0000:00:00 00:00:00",
        BASE.DateTime: "2020:01:02 03:04:05",
        0x4746: 99,
        0x9C9E: b"\x00",
        IFD.GPSInfo: {
            GPS.GPSLatitude: (IFDRational(91, 1), IFDRational(0, 0), IFDRational(0, 1)),
            GPS.GPSLongitude: (8.0,),
        },
    }
    facts = exif_facts(absurd)
    camera = facts.values.pop("camera")
    assert camera == "x" * 120
    assert facts.values == {"taken": 1577934245}  # of the file, for want of a better one
    assert (facts.captions, facts.tags) == ([], [])
    for gps in (
        {},
        {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (10.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (), GPS.GPSLongitude: ()},
        {GPS.GPSLatitude: 5, GPS.GPSLongitude: "x"},
        {GPS.GPSLatitude: (1.0,), GPS.GPSLongitude: (181.0,)},
        "no directory",
    ):
        assert exif_facts({IFD.GPSInfo: gps}).values == {}
    north_east = exif_facts({IFD.GPSInfo: {GPS.GPSLatitude: (10,), GPS.GPSLongitude: (20,)}})
    assert north_east.values == {"lat": 10, "lon": 20}


def test_damaged_exif_costs_nothing_but_itself(tmp_path: Path) -> None:
    whole = full_exif().tobytes()
    random = np.random.default_rng(0)
    for number in range(40):
        damaged = bytearray(whole[: len(whole) - number * 4])
        for position in random.integers(6, len(damaged), 12):
            damaged[position] = random.integers(256)
        path = tmp_path / f"{number}.jpg"
        picture(1).save(path, exif=bytes(damaged))
        payload, problems = describe(facts_of(path), [])
        assert {payload["width"], payload["height"]} == {96, 72}
        assert problems == ()
        for value in payload.values():
            assert isinstance(value, str) or math.isfinite(value)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"<x",
        b"no xml",
        b"\xff\xfe\x00",
        b"<?xml version='1.0' encoding='nonsense'?><x/>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>',
        '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode("utf-16"),
        b"<x>" + b" " * (9 << 20) + b"</x>",
    ],
)
def test_bad_xmp_is_refused(packet: bytes) -> None:
    with pytest.raises(ValueError, match=r"XML|document type|bytes"):
        xmp_facts(packet)


def test_xmp_in_a_picture_with_entities_is_ignored(tmp_path: Path) -> None:
    evil = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>' + XMP.split("?>", 1)[1]
    picture(1).save(tmp_path / "a.jpg", xmp=evil.encode())
    assert facts_of(tmp_path / "a.jpg").captions == []


def write_video(path: Path, metadata: dict[str, str], *, codec: str = "libx264") -> Path:
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture(1)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_phones_video(tmp_path: Path) -> None:
    apple = "com.apple.quicktime."
    path = write_video(
        tmp_path / "a.mov",
        {
            f"{apple}location.ISO6709": "-33.8569+151.2150+012.500/",
            f"{apple}make": "Apple",
            f"{apple}model": "iPhone 15",
            f"{apple}creationdate": "2023-05-01T10:00:00+0200",
            "creation_time": "2024-01-01T00:00:00Z",
            "title": "At the opera house",
            f"{apple}keywords": "opera,Sydney",
        },
    )
    facts = video_facts(path)
    assert facts.values == {
        "lat": -33.8569,
        "lon": 151.215,
        "altitude_m": 12.5,
        "camera": "Apple iPhone 15",
        "taken": 1682928000,  # 2023-05-01T08:00:00Z
        "fps": 25,
        "codec": "h264",
        "format": "mov",
    }
    assert facts.captions == ["At the opera house"]
    assert facts.tags == ["opera", "Sydney"]


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("+47.3769+008.5417/", (47.3769, 8.5417)),
        ("+4722.614-00832.502/", (47.3769, -8.5417)),
        ("-472236.84+0083230.12+400CRSWGS_84/", (-47.3769, 8.5417)),
        ("+00.0000+000.0000/", None),
        ("+99.0+008.5/", None),
        ("somewhere", None),
    ],
)
def test_places_of_videos(tmp_path: Path, location: str, place: tuple[float, float] | None) -> None:
    values = video_facts(write_video(tmp_path / "a.mkv", {"location": location})).values
    if place is None:
        assert "lat" not in values
    else:
        assert (values["lat"], values["lon"]) == pytest.approx(place, abs=1e-4)


def test_other_containers(tmp_path: Path) -> None:
    matroska = write_video(tmp_path / "a.mkv", {"creation_time": "1904-01-01T00:00:00Z"})
    assert video_facts(matroska).values == {"fps": 25, "codec": "h264", "format": "matroska"}
    webm = write_video(tmp_path / "a.webm", {}, codec="libvpx")
    assert video_facts(webm).values == {"fps": 25, "codec": "vp8", "format": "webm"}
    (tmp_path / "b.mp4").write_bytes(b"no video")
    assert video_facts(tmp_path / "b.mp4") == Facts()


def test_the_first_source_is_believed_and_places_stay_whole() -> None:
    first = Facts(values={"lat": 1.0, "lon": 2.0, "rating": 3}, captions=["a"], tags=["x"])
    second = Facts(
        values={"lat": 5.0, "lon": 6.0, "altitude_m": 7.0, "camera": "C"},
        captions=["b", "a"],
        tags=["X", "y"],
    )
    payload = merged([first, second]).payload()
    assert payload == {
        "lat": 1.0,
        "lon": 2.0,
        "rating": 3,
        "camera": "C",
        "caption": "a\nb",
        "tags": "|x|y|",
    }


def test_captions_and_tags_are_bounded() -> None:
    facts = Facts()
    facts.add_caption("w" * 1_000_000)
    facts.add_caption("line one\r\n\x00\x07 line   two \n\n")
    facts.add_tags([f"tag {number} " + "t" * 500 for number in range(10_000)])
    facts.add_tags([None, 3, "", " | "])
    payload = facts.payload()
    assert len(str(payload["caption"])) == 4000
    assert facts.captions[1] == "line one\nline two"
    tags = split_tags(str(payload["tags"]))
    assert len(tags) == 40
    assert {len(tag) for tag in tags} == {100}


def test_metadata_alone_of_files_that_are_there_or_not(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.jpg", exif=full_exif())
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 broken")
    found = describe_files(
        [(tmp_path / name, "image", ()) for name in ("a.jpg", "b.jpg", "c.jpg")],
        max_pixels=10**6,
    )
    assert found[0] is not None
    assert found[0].payload is not None
    assert found[0].payload["camera"] == "NIKON D850"
    assert found[1] is not None
    assert found[1].payload is None
    assert found[2] is None
