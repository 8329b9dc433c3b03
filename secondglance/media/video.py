"""A video that is open: when its frames are, and their pixels, whichever library decodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from secondglance.errors import MediaError
from secondglance.media.pictures import MAX_PIXELS
from secondglance.media.video_av import FALLBACK_FPS, AvReader

if TYPE_CHECKING:
    import numpy.typing as npt

Decoder = Literal["pyav", "decord"]


class _Reader(Protocol):
    @property
    def times_s(self) -> npt.NDArray[np.float64]: ...

    @property
    def timed(self) -> bool: ...

    def times_between(
        self, start_s: float | None, end_s: float | None
    ) -> npt.NDArray[np.float64]: ...

    def size(self) -> tuple[int, int]: ...

    def frame_at(self, time_s: float, *, exact: bool = False) -> npt.NDArray[np.uint8]: ...


class Video:
    """An open video.

    Args:
        path: The file.
        decoder: Which library decodes it; docs/decisions.md compares them.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """

    def __init__(self, path: Path, *, decoder: Decoder = "pyav") -> None:
        self._reader: _Reader
        if decoder == "decord":
            from secondglance.media.video_decord import DecordReader

            self._reader = DecordReader(path)
        else:
            self._reader = AvReader(path)

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """Start of each frame in seconds from the first, never decreasing; shape (frames,).

        Reads the whole file once, but decodes nothing.
        """
        return self._reader.times_s

    def times_between(self, start_s: float | None, end_s: float | None) -> npt.NDArray[np.float64]:
        """`times_s` of a stretch and some frames around it, without reading the rest of the file.

        All times, where that is not possible or the stretch lies behind the end.
        """
        return self._reader.times_between(start_s, end_s)

    @property
    def timed(self) -> bool:
        """Whether the file says when its frames are shown; if not, they are taken as even."""
        return self._reader.timed

    @property
    def spacing_s(self) -> float:
        """How long the last frame stays, in seconds: as long as frames usually do."""
        times = self.times_s
        return float(np.median(np.diff(times))) if len(times) > 1 else 1 / FALLBACK_FPS

    @property
    def duration_s(self) -> float:
        """From the first frame to the end of the last."""
        return float(self.times_s[-1]) + self.spacing_s

    def frame(self, index: int, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
        """One frame, upright, uint8 of shape (height, width, 3). Rising indices are quickest.

        Raises:
            MediaError: The frame is damaged or larger than `max_pixels`.
        """
        return self.frame_at(float(self.times_s[index]), exact=True, max_pixels=max_pixels)

    def frame_at(
        self, time_s: float, *, exact: bool = False, max_pixels: int = MAX_PIXELS
    ) -> npt.NDArray[np.uint8]:
        """The frame shown at a time, as `frame`; needs no `times_s`.

        Args:
            time_s: Seconds from the first frame; behind the end it is the last frame.
            exact: A frame begins at that very time, which makes reading it quicker.
            max_pixels: Of a frame.

        Raises:
            MediaError: The frame is damaged or larger than `max_pixels`.
        """
        width, height = self._reader.size()
        if width * height > max_pixels:
            raise MediaError(
                f"frames of {width}x{height} are over the limit of {max_pixels} pixels",
                remedy="raise ingest.max_pixels to read them",
            )
        return self._reader.frame_at(time_s, exact=exact)
