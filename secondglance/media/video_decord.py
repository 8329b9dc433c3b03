"""Reading a video with decord (the maintained `decord2`, same import name)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import MediaError
from secondglance.media.video_av import FALLBACK_FPS

if TYPE_CHECKING:
    import numpy.typing as npt

ROUNDING_S = 1e-3
"""decord rounds times to float32."""


class DecordReader:
    """Frames of a file, by time.

    Attributes:
        times_s: Start of each frame in seconds from the first, never decreasing; shape (frames,).
        timed: Whether the file says when its frames are shown.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader = _open(path)
        times = _timestamps(self._reader)
        # decord seeks by timestamp. Where a file has none (AVI with H.264, say) it would answer
        # with another frame and no error; such files are read from the start.
        self.timed = times is not None
        self._next = 0
        self.times_s = _even_times(self._reader) if times is None else times

    def times_between(self, start_s: float | None, end_s: float | None) -> npt.NDArray[np.float64]:
        """All times: decord has read them on opening."""
        return self.times_s

    def size(self) -> tuple[int, int]:
        """Width and height of the first frame."""
        height, width = self.frame_at(0.0).shape[:2]
        return width, height

    def frame_at(self, time_s: float, *, exact: bool = False) -> npt.NDArray[np.uint8]:
        """The frame shown at a time, uint8 of shape (height, width, 3); see `AvReader.frame_at`."""
        index = int(np.searchsorted(self.times_s, time_s + ROUNDING_S, side="right")) - 1
        try:
            frame = self._read(max(index, 0))
        except MemoryError:
            raise MediaError("a frame needs more memory than a worker may use") from None
        except Exception as error:
            self._reopen()  # decord's decoder does not recover from an error
            raise MediaError(f"damaged video: {_reason(error)}") from None
        height, width, channels = frame.shape
        if channels > 3:
            # decord2 takes the padding at the end of narrow rows for further channels.
            frame = frame.reshape(height, -1)[:, : 3 * width].reshape(height, width, 3)
        return frame

    def _read(self, index: int) -> npt.NDArray[np.uint8]:
        if self.timed:
            sought: npt.NDArray[np.uint8] = self._reader[index].asnumpy()
            return sought
        if index < self._next:
            self._reopen()
        while self._next < index:
            self._reader.next()
            self._next += 1
        frame: npt.NDArray[np.uint8] = self._reader.next().asnumpy()
        self._next += 1
        return frame

    def _reopen(self) -> None:
        self._reader = _open(self._path)
        self._next = 0


def _decord() -> Any:
    """decord, loaded without NVIDIA's libraries.

    On import it opens every library of the `nvidia-*` packages that torch installs, for all of the
    process: a torch loaded later then takes its matrix products from `libnvblas`, and crashes.
    Decoding is done on the CPU and needs none of them.
    """
    hidden = "decord" not in sys.modules and "nvidia" not in sys.modules
    if hidden:
        sys.modules["nvidia"] = None  # type: ignore[assignment] # not to be found
    try:
        import decord
    finally:
        if hidden:
            del sys.modules["nvidia"]
    return decord


def _open(path: Path) -> Any:
    if not path.is_file():
        raise MediaError("no such file")
    decord = _decord()
    decord.logging.set_level(decord.logging.FATAL)
    try:
        # One thread a reader: several files are decoded side by side.
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        count = len(reader)
    except MemoryError:
        raise MediaError("video needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"not a video that can be read: {_reason(error)}") from None
    if count == 0:
        raise MediaError("the video has no frames")
    return reader


def _timestamps(reader: Any) -> npt.NDArray[np.float64] | None:
    """What the file says, from 0 on; None if that makes no sense."""
    try:
        times = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)[:, 0]
    except Exception:
        return None
    # Without timestamps decord answers with huge negative numbers.
    if not np.isfinite(times).all() or (np.diff(times) < 0).any() or abs(times[0]) > 1e9:
        return None
    times = times - times[0]
    return times if len(times) == 1 or times[-1] > 0 else None


def _even_times(reader: Any) -> npt.NDArray[np.float64]:
    fps = float(reader.get_avg_fps())
    return np.arange(len(reader)) / (fps if np.isfinite(fps) and fps > 0 else FALLBACK_FPS)


def _reason(error: Exception) -> str:
    """What decord's assertion means; it names source lines and appends a stack trace."""
    text = str(error)
    if "cannot find video stream" in text:
        return "it has no video stream"
    if "corrupted frame" in text or "Error sending packet" in text:
        return "its frames are corrupted"
    return "unknown or damaged format"
