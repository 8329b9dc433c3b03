"""Finding the shots of a video without decoding most of it.

Key frames are decoded as the file is read, and only they. Between two of them lies a group of
frames, and what it costs in bytes tells whether anything sudden happens there: a frame that
differs from all before it takes about as many bytes as a key frame does. Groups with such a frame
are decoded and given to PySceneDetect's adaptive detector, frame by frame; the others cannot hold
a cut. Encoders that look for cuts themselves put a key frame there, ahead of schedule: where the
picture differs too, that is a cut.

The work is done in portions, so that a long video meets no time limit: `Scan` goes from one call
to the next and the result is the same wherever it was interrupted.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import MediaError
from secondglance.media.glance import Coded, Glance

if TYPE_CHECKING:
    import numpy.typing as npt

    Small = npt.NDArray[np.uint8]

MIN_SHOT_S = 0.4
"""Cuts closer to each other are flashes; key frames closer to each other are passed over."""
STANDS_OUT = 1.4
"""Times as much as its neighbours differ: such a change is no pan, and worth decoding."""
LOUD = ((0.1, 2.0), (0.4, 1.25), (0.8, 0.0))
"""What shows something new: at least that share of its key frame's bytes, and at least so many
times the bytes of the largest of the frames just before. Set on three encodings of one edited film
(docs/decisions.md)."""
RECENT = 12
ALIKE_SCORE = 15.0
"""Key frames that differ less show the same: AdaptiveDetector's default least score of a cut."""
BLIND_S = 20.0
"""Longer groups are decoded even if nothing seems to happen, for want of key frames."""
RUN_PIXELS = 1_500_000_000
"""Decoded at a stretch: some five seconds' work. A larger group is left as it is."""
SAMPLE_S = 0.5
"""Of the frames decoded within so long, the sharpest is a candidate."""
SIGNATURE = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What one frame looks like, as far as choosing among frames needs.

    Attributes:
        time_s: When it is shown.
        sharpness: Variance of the Laplacian of its brightness at 256 pixels.
        brightness: Mean, 0 to 255.
        signature: 8 x 8 mean brightnesses.
        key: Whether it can be read without decoding others.
    """

    time_s: float
    sharpness: float
    brightness: float
    signature: bytes
    key: bool = False


@dataclass(frozen=True, slots=True)
class _Group:
    """The frames from one key frame up to the next.

    Attributes:
        score: How far the next key frame differs, as ContentDetector measures it.
        loud: Times of the frames within that show something new.
        intra: Whether it holds further key frames, which were passed over.
    """

    start_s: float
    end_s: float
    frames: int
    score: float
    loud: tuple[float, ...]
    intra: bool


@dataclass(frozen=True, slots=True)
class _Key:
    """A key frame: its time, bytes and small picture."""

    time_s: float
    size: int
    small: Small


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch to decode, from a key frame on.

    Attributes:
        start_s: Of the key frame.
        end_s: Of the last frame of interest.
        near: Times around which every frame counts; elsewhere those will do that others need.
            None: all count.
    """

    start_s: float
    end_s: float
    near: tuple[float, ...] | None


@dataclass(slots=True)
class Scan:
    """How far finding the shots has come; goes from call to call.

    Attributes:
        looks: At key frames and at the best of the decoded frames.
        cuts: Times at which a new shot begins, so far.
        duration_s: From the first frame to the end of the last; known once read to the end.
        spacing_s: From one frame to the next, as frames usually are.
        width: Upright, in pixels.
        height: Upright, in pixels.
        finished: Whether there is nothing left to do.
    """

    looks: list[Look] = field(default_factory=list)
    cuts: list[float] = field(default_factory=list)
    duration_s: float = 0.0
    spacing_s: float = 0.0
    width: int = 0
    height: int = 0
    finished: bool = False
    _groups: list[_Group] = field(default_factory=list)
    _last_key: _Key | None = None
    _recent_times: deque[float] = field(default_factory=lambda: deque(maxlen=32))
    _runs: list[_Run] | None = None


def scan(path: Path, so_far: Scan | None = None, *, max_pixels: int, budget_s: float) -> Scan:
    """Finds shots, for about `budget_s` seconds.

    Args:
        path: The video.
        so_far: What an earlier call returned, to go on from there.
        max_pixels: Of a frame.
        budget_s: Returns an unfinished scan soon after that time.

    Raises:
        MediaError: The video cannot be read, or its frames are over `max_pixels`.
    """
    deadline = time.monotonic() + budget_s
    found = so_far or Scan()
    glance = Glance(path)
    _check_size(glance, max_pixels)
    if found._runs is None:
        if glance.timed:
            _KeyFrames(glance, found).read(deadline)
        else:
            _count_untimed(glance, found)
    else:
        _decode(glance, found, found._runs.pop(0))  # one at least, or it would never end
    while found._runs and time.monotonic() < deadline:
        _decode(glance, found, found._runs.pop(0))
    found.width, found.height = glance.size() if not found.width else (found.width, found.height)
    found.finished = found._runs == []
    if found.finished:
        found.looks.sort(key=lambda look: look.time_s)
        found.cuts = _distinct(found.cuts, found.duration_s)
    return found


def _check_size(glance: Glance, max_pixels: int) -> None:
    width, height = glance.size()
    if width * height > max_pixels:
        raise MediaError(
            f"frames of {width}x{height} are over the limit of {max_pixels} pixels",
            remedy="raise ingest.max_pixels to read them",
        )


class _KeyFrames:
    """Reads the file, decodes key frames, and tells what lies between them by its size."""

    def __init__(self, glance: Glance, found: Scan) -> None:
        self._glance = glance
        self._scan = found
        self._difference = _Difference()
        self._begin()
        if found._last_key is not None:
            self._difference.to(found._last_key.small)

    def _begin(self) -> None:
        self._frames = 1
        self._loud: list[float] = []
        self._intra = False
        self._recent: deque[int] = deque(maxlen=RECENT)

    def read(self, deadline: float) -> None:
        """Goes on until the deadline has passed or the file ends."""
        found = self._scan
        after_s = None if found._last_key is None else found._last_key.time_s
        for coded in self._glance.coded(after_s=after_s):
            found._recent_times.append(coded.time_s)
            if not self._key(coded):
                self._other(coded)
            elif time.monotonic() > deadline:
                return
        self._end()

    def _key(self, coded: Coded) -> bool:
        """Takes in a key frame, if it is one that counts."""
        last = self._scan._last_key
        if not coded.key or (last is not None and coded.time_s < last.time_s + MIN_SHOT_S):
            return False
        small = self._glance.alone(coded)
        if small is None:
            return False
        score = self._difference.to(small)
        if last is not None:
            self._close(last.time_s, coded.time_s, score)
        self._scan._last_key = _Key(coded.time_s, coded.size, small)
        self._scan.looks.append(look(coded.time_s, small, key=True))
        self._begin()
        return True

    def _other(self, coded: Coded) -> None:
        last = self._scan._last_key
        if last is None:
            return
        self._frames += 1
        if coded.key:
            self._intra = True
            return
        share = coded.size / last.size
        step = coded.size / max(self._recent, default=last.size)
        if any(share >= least and step >= times for least, times in LOUD):
            self._loud.append(coded.time_s)
        self._recent.append(coded.size)

    def _close(self, start_s: float, end_s: float, score: float) -> None:
        self._scan._groups.append(
            _Group(start_s, end_s, self._frames, score, tuple(self._loud), self._intra)
        )

    def _end(self) -> None:
        found, glance = self._scan, self._glance
        if found._last_key is None and not found._recent_times:
            raise MediaError("the video has no frames")
        times = sorted(found._recent_times)
        steps = np.diff(times)
        uneven = steps.size and steps.max() > 0
        found.spacing_s = float(np.median(steps)) if uneven else 1 / glance.fps
        found.duration_s = times[-1] + found.spacing_s
        if found._last_key is not None:
            self._close(found._last_key.time_s, found.duration_s, 0.0)
        found.cuts += _at_key_frames(found._groups)
        width, height = glance.size()
        found._runs = _runs(
            found._groups, frame_pixels=width * height, bytes_tell=glance.bytes_tell
        )
        found._last_key = None


def _at_key_frames(groups: list[_Group]) -> list[float]:
    """Where the encoder put a key frame ahead of schedule, and the picture differs."""
    schedule = _schedule(groups)
    return [
        group.end_s
        for group in groups[:-1]
        if _early(group, schedule) and group.score >= ALIKE_SCORE
    ]


def _schedule(groups: list[_Group]) -> int:
    """Frames after which the encoder sets a key frame in any case: as often as a length recurs."""
    longest, second = sorted((0, 0, *(group.frames for group in groups)))[:-3:-1]
    return longest if second >= longest - 1 else 2 * longest


def _early(group: _Group, schedule: int) -> bool:
    return group.frames < schedule - 1 and not group.intra


def _runs(groups: list[_Group], *, frame_pixels: int, bytes_tell: bool) -> list[_Run]:
    """What to decode."""
    schedule = _schedule(groups)
    runs: list[_Run] = []
    for place, group in enumerate(groups):
        around = [groups[i].score for i in (place - 1, place + 1) if 0 <= i < len(groups) - 1]
        stands_out = group.score >= max(ALIKE_SCORE, STANDS_OUT * max(around, default=0.0))
        early_cut = _early(group, schedule) and group.score >= ALIKE_SCORE
        unexplained = (stands_out and not early_cut) or not bytes_tell
        if group.frames * frame_pixels > RUN_PIXELS:
            continue
        last = place == len(groups) - 1
        if unexplained:
            runs.append(_Run(group.start_s, group.end_s, None))
        elif group.end_s - group.start_s > BLIND_S:
            runs.append(_Run(group.start_s, group.end_s, group.loud))
        elif group.loud and (group.score >= ALIKE_SCORE or len(group.loud) > 1 or last):
            runs.append(_Run(group.start_s, group.loud[-1], group.loud))
    return runs


def _count_untimed(glance: Glance, found: Scan) -> None:
    """Without times there are no key frames to seek to: all is decoded, if that is not too much."""
    frames = sum(1 for _ in glance.stored())
    if not frames:
        raise MediaError("the video has no frames")
    width, height = glance.size()
    found.duration_s, found.spacing_s = frames / glance.fps, 1 / glance.fps
    whole = _Run(0.0, found.duration_s, None)
    found._runs = [whole] if frames * width * height <= RUN_PIXELS else []


def _decode(glance: Glance, found: Scan, run: _Run) -> None:
    """Decodes a stretch: cuts, and the sharpest frame of each half second."""
    from scenedetect import AdaptiveDetector, FrameTimecode

    detector = AdaptiveDetector(min_scene_len=0)
    times: list[float] = []
    best: dict[int, Look] = {}
    for time_s, small in glance.decoded(from_s=run.start_s, until_s=run.end_s, near=run.near):
        # It compares with two frames on either side: the first one stands in for those before it.
        for _ in range(1 if times else 3):
            cuts = detector.process_frame(FrameTimecode(len(times), fps=25.0), small)
            times.append(time_s)
            found.cuts += [times[cut.frame_num] for cut in cuts]
        seen, bucket = look(time_s, small), int(time_s / SAMPLE_S)
        if bucket not in best or seen.sharpness > best[bucket].sharpness:
            best[bucket] = seen
    for _ in range(2 if times else 0):
        cuts = detector.process_frame(FrameTimecode(len(times), fps=25.0), small)
        times.append(time_s)
        found.cuts += [times[cut.frame_num] for cut in cuts]
    known = {seen.time_s for seen in found.looks}
    found.looks += [seen for seen in best.values() if seen.time_s not in known]


def _distinct(cuts: list[float], duration_s: float) -> list[float]:
    """In order, the first of those closer than `MIN_SHOT_S`, and none that near to the end."""
    kept: list[float] = []
    for cut in sorted(cuts):
        room_s = min(cut - (kept[-1] if kept else 0.0), duration_s - cut)
        if room_s >= MIN_SHOT_S:
            kept.append(cut)
    return kept


class _Difference:
    """How far a picture differs from the one before, as PySceneDetect's ContentDetector tells."""

    def __init__(self) -> None:
        from scenedetect import ContentDetector, StatsManager

        self._stats = StatsManager()
        self._detector = ContentDetector()
        self._detector.stats_manager = self._stats
        self._count = 0

    def to(self, small: Small) -> float:
        """0 for the first picture."""
        from scenedetect import ContentDetector, FrameTimecode

        number = FrameTimecode(self._count, fps=25.0)
        self._detector.process_frame(number, small)
        self._count += 1
        [score] = self._stats.get_metrics(number, [ContentDetector.FRAME_SCORE_KEY])
        return float(score or 0.0)


def look(time_s: float, small: Small, *, key: bool = False) -> Look:
    """Measures a small BGR picture."""
    import cv2

    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    signature = cv2.resize(grey, (SIGNATURE, SIGNATURE), interpolation=cv2.INTER_AREA)
    return Look(
        time_s=time_s,
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        brightness=float(grey.mean()),
        signature=signature.tobytes(),
        key=key,
    )
