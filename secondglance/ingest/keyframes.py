"""From shots to segments: long shots are split, and each part is represented by its best frame."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from secondglance.ingest.shots import Look
from secondglance.types import Segment

DARK, BRIGHT = 16.0, 240.0
"""Mean brightness out of 255 beyond which a frame is black or white: fades, leaders, flashes."""
FLAT = 2.0
"""Sharpness below which there is nothing to see: one colour, or all blurred."""
SHARP_SHARE = 0.7
"""Of the sharpest frame's sharpness: so sharp a frame may be chosen for being different."""
BORDER_S = 0.12
"""Frames that near to a cut may be mixed with the other shot's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A stretch between two cuts, with the frames of it that were looked at.

    Attributes:
        start_s: Of its first frame.
        end_s: Exclusive.
        looks: In order of time; none if the shot was not looked into.
    """

    start_s: float
    end_s: float
    looks: tuple[Look, ...]


def shots_between(cuts: Sequence[float], looks: Sequence[Look], duration_s: float) -> list[Shot]:
    """The shots of a video, without gaps.

    Args:
        cuts: Times at which a new shot begins, rising.
        looks: In order of time.
        duration_s: Of the video.
    """
    edges = [0.0, *(cut for cut in cuts if 0.0 < cut < duration_s), duration_s]
    times = [look.time_s for look in looks]
    places = [bisect_left(times, edge - 1e-3) for edge in edges[:-1]] + [len(looks)]
    return [
        Shot(start_s=edges[i], end_s=edges[i + 1], looks=tuple(looks[places[i] : places[i + 1]]))
        for i in range(len(edges) - 1)
    ]


def segments_of(
    shots: Sequence[Shot], *, max_segment_s: float, max_segments: int
) -> list[tuple[Segment, bool]]:
    """Segments with their keyframes; True where the keyframe is one that was looked at.

    A shot longer than `max_segment_s` is split into equal parts. If that makes more than
    `max_segments`, neighbours are put together, whole shots or not.
    """
    parts = [part for shot in shots for part in _parts(shot, max_segment_s)]
    if len(parts) > max_segments:
        edges = np.linspace(0, len(parts), max_segments + 1).round().astype(int)
        parts = [_joined(parts[a:b]) for a, b in pairwise(edges)]
    found: list[tuple[Segment, bool]] = []
    before: Look | None = None
    for position, part in enumerate(parts):
        chosen = choose(part, before)
        before = chosen or before
        time_s = (part.start_s + part.end_s) / 2 if chosen is None else chosen.time_s
        segment = Segment(
            kind="video",
            start_s=round(part.start_s, 3),
            end_s=round(part.end_s, 3),
            keyframe_s=round(time_s, 3),
            position=position,
        )
        found.append((segment, chosen is not None))
    return found


def choose(part: Shot, before: Look | None) -> Look | None:
    """The frame that stands for a part of a shot; None if none was looked at that could.

    Of those that are neither black nor white nor flat, nor beside a cut if there are others, and
    nearly as sharp as the sharpest, the one that differs most from the keyframe before. Where the
    encoder has a key frame among them it is one of those: reading another takes decoding all from
    there, which is most of the work with a video.
    """
    usable = [
        look for look in part.looks if DARK <= look.brightness <= BRIGHT and look.sharpness >= FLAT
    ]
    inner = [
        look
        for look in usable
        if look.time_s == part.start_s
        or part.start_s + BORDER_S <= look.time_s <= part.end_s - BORDER_S
    ]
    usable = inner or usable
    if not usable:
        return None
    least = SHARP_SHARE * max(look.sharpness for look in usable)
    sharp = [look for look in usable if look.sharpness >= least]
    sharp = [look for look in sharp if look.key] or sharp
    if before is None:
        return max(sharp, key=lambda look: look.sharpness)
    return max(sharp, key=lambda look: (_distance(look, before), look.sharpness))


def _distance(one: Look, other: Look) -> float:
    """Mean difference of brightness, in steps of 4: what is less is noise."""
    a, b = (np.frombuffer(look.signature, dtype=np.uint8).astype(int) for look in (one, other))
    return float(np.abs(a - b).mean() // 4)


def _parts(shot: Shot, max_segment_s: float) -> list[Shot]:
    # A frame more than the limit is no reason to cut a shot in two.
    count = max(1, math.ceil((shot.end_s - shot.start_s) / max_segment_s - 0.02))
    edges = np.linspace(shot.start_s, shot.end_s, count + 1)
    times = [look.time_s for look in shot.looks]
    places = [bisect_left(times, edge - 1e-3) for edge in edges[:-1]] + [len(times)]
    return [
        Shot(
            start_s=float(edges[i]),
            end_s=float(edges[i + 1]),
            looks=shot.looks[places[i] : places[i + 1]],
        )
        for i in range(count)
    ]


def _joined(parts: Sequence[Shot]) -> Shot:
    looks = tuple(look for part in parts for look in part.looks)
    return Shot(start_s=parts[0].start_s, end_s=parts[-1].end_s, looks=looks)
