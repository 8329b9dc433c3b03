"""Neighbouring segments of a video that show the same become one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from secondglance.types import Segment

if TYPE_CHECKING:
    from secondglance.types import Vector

LONGEST = 12
"""Times the longest segment: so long a stretch may become, a minute as a rule. The second pass
looks at a stretch with at most 64 frames."""


def merge_alike(
    segments: Sequence[Segment],
    vectors: Mapping[int, Vector],
    *,
    alike: float,
    max_segment_s: float,
) -> list[tuple[Segment, Vector]]:
    """Drops keyframes that show what the one before shows; that one's segment takes the stretch.

    Each is compared with the last that was kept, so slow changes do not add up.

    Args:
        segments: Of one video, in order of time.
        vectors: Unit vectors by position in `segments`; none for a damaged keyframe.
        alike: Cosine above which two show the same; at 1 all are kept.
        max_segment_s: Of a segment, before merging.

    Returns:
        The segments that are left, numbered anew, with their vectors.
    """
    kept: list[tuple[Segment, Vector]] = []
    for place, segment in enumerate(segments):
        vector = vectors.get(place)
        if vector is None:
            continue
        if kept and alike < 1:
            last, seen = kept[-1]
            start_s, end_s = last.start_s or 0.0, segment.end_s or 0.0
            adjacent = last.end_s == segment.start_s
            short = end_s - start_s <= LONGEST * max_segment_s
            if adjacent and short and float(np.dot(seen, vector)) > alike:
                kept[-1] = (dataclasses.replace(last, end_s=segment.end_s), seen)
                continue
        kept.append((dataclasses.replace(segment, position=len(kept)), vector))
    return kept
