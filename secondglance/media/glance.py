"""Glancing at a video: small pictures of its frames, decoded as cheaply as can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import MediaError
from secondglance.media.video_av import CLOCK_S, OpenFile, first_timestamp, with_end

if TYPE_CHECKING:
    import numpy.typing as npt

    Small = npt.NDArray[np.uint8]

LONGER_SIDE = 256
PLAIN_CODECS = ("gif", "apng", "png", "webp", "rawvideo", "qtrle", "msrle")
MARGIN_FRAMES = 6
SEEK_BACK_S = (0.0, 2.0, 10.0)


@dataclass(frozen=True, slots=True)
class Coded:
    """One coded frame, not decoded.

    Attributes:
        time_s: When it is shown.
        size: Bytes.
        key: Whether decoding can begin with it.
        packet: Of PyAV.
    """

    time_s: float
    size: int
    key: bool
    packet: Any


class Glance:
    """A video's coded frames, and small pictures of those asked for.

    The loop filter is left out, which blurs block edges: at 256 pixels that is not seen, and it
    takes a quarter of the time.

    Attributes:
        timed: Whether the file says when frames are shown.
        fps: Frames a second, as the header has it.
        bytes_tell: Whether a frame takes the more bytes the more it differs from those before.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zero = first_timestamp(path)
        self._file = self._open()
        self.timed = self._zero is not None
        self.fps = self._file.fps
        self.bytes_tell = self._file.stream.codec_context.name not in PLAIN_CODECS
        self._rotation = 0
        scale = LONGER_SIDE / max(self._file.width, self._file.height, 1)
        self._size = tuple(
            max(2, round(side * min(scale, 1.0))) for side in (self._file.width, self._file.height)
        )

    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright as far as was seen."""
        file = self._file
        turned = self._rotation in (1, 3)
        return (file.height, file.width) if turned else (file.width, file.height)

    def coded(self, *, after_s: float | None = None) -> Iterator[Coded]:
        """The coded frames in the order they are stored in.

        Args:
            after_s: Time of a key frame to begin behind; None begins with the first.
        """
        if after_s is None:
            self._file = self._open()
            yield from self._coded()
            return
        for back_s in SEEK_BACK_S:
            self._file.seek(max(after_s - back_s, 0.0))
            found = self._coded()
            for frame in found:
                if frame.key and abs(frame.time_s - after_s) < CLOCK_S:
                    yield from found
                    return
                if frame.time_s > after_s + max(back_s, 1.0):
                    break
        self._file = self._open()  # it does not seek: past what is known, then
        found = self._coded()
        for frame in found:
            if frame.key and abs(frame.time_s - after_s) < CLOCK_S:
                break
        yield from found

    def stored(self) -> Iterator[int]:
        """The bytes of each coded frame, whether or not it says when it is shown."""
        self._file = self._open()
        yield from (packet.size for packet in self._file.packets())

    def _coded(self) -> Iterator[Coded]:
        file = self._file
        for packet in file.packets():
            time_s = file.time_s(packet)
            if time_s is not None and not packet.is_discard:
                yield Coded(time_s, packet.size, packet.is_keyframe, packet)

    def alone(self, frame: Coded) -> Small | None:
        """A key frame's small picture, BGR; None if it is damaged."""
        found = [*self._file.decode(frame.packet), *self._file.decode(None)]
        self._file.stream.codec_context.flush_buffers()
        return self._small(found[0]) if found else None

    def decoded(
        self, *, from_s: float, until_s: float, near: tuple[float, ...] | None
    ) -> Iterator[tuple[float, Small]]:
        """Frames in the order they are shown: time, small BGR picture.

        Args:
            from_s: Time of a key frame to begin with.
            until_s: Time of the last frame of interest; a few more follow it.
            near: Times around which every frame is decoded. Elsewhere those will do that other
                frames are decoded from. None, or a file without times: all are.
        """
        for back_s in SEEK_BACK_S:
            if from_s <= back_s or not self.timed:
                self._file = self._open()
            else:
                self._file.seek(from_s - back_s)
            found = self._decoded(from_s, until_s, near)
            first = next(found, None)
            if first is not None and (first[0] <= from_s + 1.0 or from_s <= back_s):
                yield first
                yield from found
                return

    def _decoded(
        self, from_s: float, until_s: float, near: tuple[float, ...] | None
    ) -> Iterator[tuple[float, Small]]:
        file, count = self._file, 0
        codec = file.stream.codec_context
        margin_s = MARGIN_FRAMES / file.fps
        for packet in with_end(file.packets()):
            shown_s = file.time_s(packet) if self.timed and packet is not None else None
            if shown_s is not None:
                if shown_s > until_s + 2 * margin_s:
                    packet = None
                whole = near is None or not file.true_stamps
                counts = whole or any(abs(shown_s - loud_s) <= margin_s for loud_s in near or ())
                codec.skip_frame = "DEFAULT" if counts else "NONREF"
            for frame in file.decode(packet):
                time_s = file.time_s(frame) if self.timed else None
                time_s = count / file.fps if time_s is None else time_s
                count += 1
                small = self._small(frame) if time_s > from_s - CLOCK_S else None
                if small is not None:
                    yield time_s, small
            if packet is None:
                return

    def _small(self, frame: Any) -> Small | None:
        self._rotation = round(frame.rotation / 90) % 4
        width, height = self._size
        try:
            small: Small = frame.reformat(
                width=width, height=height, format="bgr24", interpolation="AREA", threads=1
            ).to_ndarray()
        except MemoryError:
            raise MediaError("a frame needs more memory than a worker may use") from None
        except Exception:
            return None
        return small

    def _open(self) -> OpenFile:
        return OpenFile(self._path, zero=self._zero, skip_loop_filter="all", flags2="+fast")
