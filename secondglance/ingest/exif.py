"""What a picture says of itself: EXIF, XMP and IPTC inside the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ExifTags, Image, ImageFile, IptcImagePlugin

from secondglance.ingest import xmp
from secondglance.ingest.facts import Facts, merged, one_line, posix_s, product
from secondglance.media.pictures import quiet

_SWAPS_SIDES = (5, 6, 7, 8)
# Windows Explorer's own tags, UTF-16.
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F
_RATING = 0x4746
_DATES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal, "SubsecTimeOriginal"),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized, "SubsecTimeDigitized"),
    (ExifTags.Base.DateTime, ExifTags.Base.OffsetTime, "SubsecTime"),
)
_FORMATS = {"mpo": "jpeg"}  # several JPEGs in one file, as phones write


def picture_facts(image: Image.Image) -> Facts:
    """EXIF, then XMP, then IPTC; `width` and `height` are of the upright picture, in pixels."""
    with quiet():
        exif = _safely(_exif, image) or {}
        own = _safely(exif_facts, exif), _safely(_xmp, image), _safely(_iptc, image)
    size = Facts()
    width, height = image.size
    # Of a TIFF, Pillow says the upright size already.
    if exif.get(ExifTags.Base.Orientation) in _SWAPS_SIDES and image.format != "TIFF":
        width, height = height, width
    size.values.update(width=width, height=height)
    format_ = (image.format or "").lower()
    size.put("format", _FORMATS.get(format_, format_))
    return merged([size, *(facts for facts in own if facts is not None)])


def _safely(read: Callable[[Any], Any], source: Any) -> Any:
    # Metadata in the wild is often damaged in ways that no library foresees.
    try:
        return read(source)
    except Exception:
        return None


def _exif(image: Image.Image) -> dict[int, Any]:
    exif = image.getexif()
    found = dict(exif)
    found.update(_safely(exif.get_ifd, ExifTags.IFD.Exif) or {})
    found[ExifTags.IFD.GPSInfo] = _safely(exif.get_ifd, ExifTags.IFD.GPSInfo)
    return found


def exif_facts(exif: Mapping[int, Any]) -> Facts:
    """What EXIF says; the GPS directory stands under its own tag."""
    facts = Facts()
    tag = ExifTags.Base
    facts.put("camera", product(exif.get(tag.Make), exif.get(tag.Model)))
    facts.put("lens", product(exif.get(tag.LensMake), exif.get(tag.LensModel)))
    facts.put("iso_speed", _first(exif.get(tag.ISOSpeedRatings)))
    facts.put("f_number", exif.get(tag.FNumber))
    facts.put("focal_mm", exif.get(tag.FocalLength))
    facts.put("exposure_s", exif.get(tag.ExposureTime))
    facts.put("rating", exif.get(_RATING))
    for date, offset, fraction in _DATES:
        words = one_line(exif.get(date))
        fractions = one_line(exif.get(tag[fraction]))
        if words and fractions.isdecimal():
            words += f".{fractions}"
        zoned = posix_s(words + one_line(exif.get(offset)))
        facts.put_taken(posix_s(words) if zoned is None else zoned)
        if "taken" in facts.values:
            break
    gps = exif.get(ExifTags.IFD.GPSInfo)
    if isinstance(gps, Mapping):
        _put_gps(facts, gps)
    facts.add_caption(exif.get(tag.ImageDescription))
    for key in (_XP_TITLE, _XP_SUBJECT, _XP_COMMENT):
        facts.add_caption(_utf16(exif.get(key)))
    facts.add_tags(_utf16(exif.get(_XP_KEYWORDS)).split(";"))
    return facts


def _put_gps(facts: Facts, gps: Mapping[int, Any]) -> None:
    tag = ExifTags.GPS
    altitude = _first(gps.get(tag.GPSAltitude))
    below = gps.get(tag.GPSAltitudeRef) in (1, b"\x01", "\x01")
    facts.put_place(
        _degrees(gps.get(tag.GPSLatitude), negative=_letter(gps.get(tag.GPSLatitudeRef)) == "S"),
        _degrees(gps.get(tag.GPSLongitude), negative=_letter(gps.get(tag.GPSLongitudeRef)) == "W"),
        -altitude if below and altitude is not None else altitude,
    )


def _degrees(parts: Any, *, negative: bool) -> float | None:
    """Degrees, minutes and seconds, the latter two optional."""
    try:
        numbers = [float(part) for part in parts][:3]
        total = math.fsum(part / 60**i for i, part in enumerate(numbers))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (-total if negative else total) if numbers else None


def _letter(value: Any) -> str:
    return one_line(value)[:1].upper()


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) and value else value


def _utf16(value: Any) -> str:
    if isinstance(value, tuple | list):
        value = bytes(value)
    return value.decode("utf-16-le", "ignore").strip("\0") if isinstance(value, bytes) else ""


def _xmp(image: Image.Image) -> Facts | None:
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return xmp.xmp_facts(packet) if packet else None


def _iptc(image: Image.Image) -> Facts | None:
    """IPTC-IIM, which Photoshop's resources carry.

    Source: IPTC-NAA Information Interchange Model 4.2, record 2.
    """
    found = IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None
    if not found:
        return None
    facts = Facts()
    facts.add_caption(found.get((2, 5)))  # object name: a title
    facts.add_caption(found.get((2, 120)))
    words = found.get((2, 25), [])
    facts.add_tags(words if isinstance(words, list) else [words])
    date, clock = one_line(found.get((2, 55))), one_line(found.get((2, 60)))
    day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    hour = f"T{clock[:2]}:{clock[2:4]}:{clock[4:]}" if clock else ""
    moment = posix_s(day + hour)
    facts.put_taken(posix_s(day) if moment is None else moment)
    return facts
