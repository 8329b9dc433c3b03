"""XMP: in sidecars of photo programs, and inside pictures.

Source: Adobe's XMP Specification, parts 1 (data model, RDF) and 2 (namespaces).
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from secondglance.ingest.facts import Facts, one_line, posix_s, product

MAX_BYTES = 8 << 20
"""Masks of raw developers take megabytes; nothing that is read here does."""

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_EXIF_EX = "{http://cipa.jp/exif/1.0/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_AUX = "{http://ns.adobe.com/exif/1.0/aux/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_PEOPLE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}PersonInImage"

_DATES = (f"{_EXIF}DateTimeOriginal", f"{_PHOTOSHOP}DateCreated", f"{_XMP}CreateDate")


class _NoDoctype(ET.TreeBuilder):
    """XMP has no document type; without one there are no entities to expand or fetch."""

    def doctype(self, *_: Any) -> None:
        raise ValueError("it declares a document type, which XMP has none of")


def xmp_facts(packet: bytes) -> Facts:
    """What an XMP packet or sidecar says.

    Raises:
        ValueError: It is no XML, declares entities, or is too large.
    """
    if len(packet) > MAX_BYTES:
        raise ValueError(f"it has {len(packet)} bytes, over the limit of {MAX_BYTES}")
    parser = ET.XMLParser(target=_NoDoctype())
    try:
        root = ET.fromstring(packet.strip(b"\0 \r\n\t"), parser)
    except (ET.ParseError, LookupError) as error:
        raise ValueError(f"not XML: {error}") from None
    facts = Facts()
    found = _properties(root)
    facts.put("camera", product(_one(found, f"{_TIFF}Make"), _one(found, f"{_TIFF}Model")))
    facts.put("lens", _one(found, f"{_EXIF_EX}LensModel") or _one(found, f"{_AUX}Lens"))
    facts.put("rating", _one(found, f"{_XMP}Rating"))
    for name in _DATES:
        facts.put_taken(posix_s(_one(found, name)))
        if "taken" in facts.values:
            break
    facts.put_place(
        _degrees(_one(found, f"{_EXIF}GPSLatitude")),
        _degrees(_one(found, f"{_EXIF}GPSLongitude")),
        _altitude(_one(found, f"{_EXIF}GPSAltitude"), _one(found, f"{_EXIF}GPSAltitudeRef")),
    )
    for name in (f"{_DC}title", f"{_DC}description"):
        for caption in found.get(name, ()):
            facts.add_caption(caption)
    facts.add_tags(found.get(f"{_DC}subject", ()))
    facts.add_tags(found.get(_PEOPLE, ()))
    return facts


def _properties(root: ET.Element) -> dict[str, list[str]]:
    """The texts of each property: written as attribute, element, or list (Bag, Seq, Alt)."""
    found: dict[str, list[str]] = {}
    for description in root.iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            found.setdefault(name, []).append(value)
        for element in description:
            found.setdefault(element.tag, []).extend(_texts(element))
    return found


def _texts(element: ET.Element) -> Iterator[str]:
    items = [item.text or "" for item in element.iter(f"{_RDF}li")]
    yield from items or [element.text or ""]


def _one(found: dict[str, list[str]], name: str) -> str:
    return next((text for value in found.get(name, ()) if (text := one_line(value))), "")


def _degrees(text: str) -> float | None:
    """`47,22,12.5N` or `47,22.208N`, as XMP writes a coordinate."""
    if not text or text[-1].upper() not in "NSEW":
        return None
    try:
        parts = [float(part) for part in text[:-1].split(",")]
    except ValueError:
        return None
    total = math.fsum(part / 60**i for i, part in enumerate(parts[:3]))
    return -total if text[-1].upper() in "SW" else total


def _altitude(text: str, below: str) -> float | None:
    """`4567/10`, with `below` as 1 under the sea."""
    top, _, bottom = text.partition("/")
    try:
        metres = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return None
    return -metres if below == "1" else metres
