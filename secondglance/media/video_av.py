"""Reading a video with PyAV: times from its packets, frames by seeking to them."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import MediaError

if TYPE_CHECKING:
    import numpy.typing as npt

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpeg,mpegvideo,mpegts,asf,flv,live_flv,ogg,gif,apng,"
    "m4v,h264,hevc,av1,obu,ivf,vc1,dv,mxf,nut,yuv4mpegpipe,wtv,nuv"
)
"""Formats that hold a video themselves. Playlists and lists of files (HLS, DASH, concat, image2)
would have FFmpeg open other files of this machine."""
FALLBACK_FPS = 25.0
CLOCK_S = 6e-4
"""Times that differ by less are one: segments are told in milliseconds."""
REORDERED = 24
"""Packets to look through for the frame that is shown first; codecs reorder up to 16."""
WHOLE_S = 0.5
"""Before a time asked for, every frame is decoded: the one shown then began a little earlier."""
BACK_S = (0.0, 1.0, 5.0, 20.0)
"""How far before a frame to seek, where the container's own answer comes out behind it."""


class OpenFile:
    """A container with its main video stream, and what its header says.

    Attributes:
        container: Of PyAV.
        stream: Of PyAV; not a cover picture.
        zero: Timestamp of the first frame, in units of `tick_s`; see `first_timestamp`.
        tick_s: Unit of timestamps, in seconds.
        true_stamps: Whether packets say themselves when they are shown, which makes it possible
            to leave some out.
        width: As stored, before rotation, in pixels.
        height: As stored, before rotation, in pixels.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """

    def __init__(self, path: Path, *, zero: int | None, **codec_options: str) -> None:
        import av

        if not path.is_file():
            raise MediaError("no such file")
        try:
            # Playlists may name other files and hosts; a video has no business with either.
            container = av.open(
                str(path.absolute()),
                options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
                metadata_errors="replace",
            )
        except MemoryError:
            raise MediaError("video needs more memory than a worker may use") from None
        except Exception:
            raise MediaError("not a video that can be read: unknown or damaged format") from None
        self.container: Any = container
        self.stream: Any = _main_stream(container)
        # One thread a file: several files are decoded side by side.
        self.stream.codec_context.thread_count = 1
        if codec_options:
            self.stream.codec_context.options = codec_options
        self.width = int(self.stream.codec_context.width)
        self.height = int(self.stream.codec_context.height)
        # AVI numbers frames as they are stored. Decoders hand them out as they are shown, so the
        # next frame to come out is the lowest number of those that went in.
        self.true_stamps = container.format.name != "avi"
        self._waiting: list[int] = []
        self.tick_s = float(self.stream.time_base or 1)
        self.zero = 0 if zero is None else zero

    @property
    def fps(self) -> float:
        """Frames a second as the header has it."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return float(rate) if rate and 1e-6 < rate < 1e6 else FALLBACK_FPS

    def packets(self) -> Iterator[Any]:
        """The stream's packets from where the container is; what cannot be read ends it."""
        import av

        # Damaged ends are common; what came before is good.
        with contextlib.suppress(av.FFmpegError):
            for packet in self.container.demux(self.stream):
                if packet.size:
                    yield packet

    def decode(self, packet: Any | None) -> list[Any]:
        """The frames that a packet completes, None for the rest; none for damaged packets."""
        import av

        try:
            frames: list[Any] = self.stream.codec_context.decode(packet)
        except MemoryError:
            raise MediaError("a frame needs more memory than a worker may use") from None
        except av.FFmpegError:
            return []
        if not self.true_stamps:
            if packet is not None and packet.pts is not None:
                heapq.heappush(self._waiting, packet.pts)
            for frame in frames:
                frame.pts = heapq.heappop(self._waiting) if self._waiting else None
        return frames

    def seek(self, time_s: float) -> None:
        """Goes to the last place before `time_s` where decoding can begin."""
        import av

        with contextlib.suppress(av.FFmpegError):
            self.container.seek(
                self.zero + round(time_s / self.tick_s), stream=self.stream, backward=True
            )
        self.stream.codec_context.flush_buffers()
        self._waiting.clear()

    def time_s(self, item: Any) -> float | None:
        """When a packet or frame is shown, in seconds from the first; None if it does not say."""
        return None if item.pts is None else max((item.pts - self.zero) * self.tick_s, 0.0)


def first_timestamp(path: Path) -> int | None:
    """Timestamp of the first frame; None for a file that does not say when frames are shown.

    The header's own answer is not always that: an AVI with H.264 begins at 0 and its first frame
    at 1.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """
    packets = itertools.islice(OpenFile(path, zero=None).packets(), REORDERED)
    stamps = [packet.pts for packet in packets if not packet.is_discard]
    told = [stamp for stamp in stamps if stamp is not None]
    return min(told) if len(told) > len(stamps) / 2 else None


def _main_stream(container: Any) -> Any:
    from av.stream import Disposition

    pictures = [s for s in container.streams.video if s.codec_context is not None]
    streams = [s for s in pictures if not s.disposition & Disposition.attached_pic]
    if not streams:
        sound = " but sound" if container.streams.audio else ""
        raise MediaError(f"not a video that can be read: it has no video stream{sound}")
    best = container.streams.best("video")
    return best if best in streams else streams[0]


class AvReader:
    """Frames of a file, by time.

    Attributes:
        width: Upright, in pixels; known once a frame was read.
        height: Upright, in pixels; known once a frame was read.

    Raises:
        MediaError: It is missing, or there is no video stream that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.zero = first_timestamp(path)
        self._file = OpenFile(path, zero=self.zero)
        self._frames: Iterator[tuple[float, Any]] = iter(())
        self._current: tuple[float, Any] | None = None
        self._next: tuple[float, Any] | None = None
        self._skip_until_s = 0.0

    @cached_property
    def times_s(self) -> npt.NDArray[np.float64]:
        """Start of each frame in seconds from the first, from all packets; decodes nothing."""
        file = OpenFile(self._path, zero=self.zero)
        times = [file.time_s(packet) for packet in file.packets() if not packet.is_discard]
        if not times:
            raise MediaError("the video has no frames")
        if not self.timed:
            return np.arange(len(times)) / file.fps
        return np.asarray(sorted({time for time in times if time is not None}), dtype=np.float64)

    def times_between(self, start_s: float | None, end_s: float | None) -> npt.NDArray[np.float64]:
        """`times_s` around a stretch, from the part of the file that holds it.

        Args:
            start_s: There is a frame at or before it, if the file has one.
            end_s: There is a frame behind it, if the file has one.
        """
        if not self.timed:
            return self.times_s
        begin_s = start_s or 0.0
        file = OpenFile(self._path, zero=self.zero)
        for back_s in BACK_S:
            if begin_s > back_s:
                file.seek(begin_s - back_s)
            else:
                file = OpenFile(self._path, zero=self.zero)
            times = _times_until(file, end_s)
            if times and times[0] <= begin_s:
                break
        if not times or not times[0] <= begin_s <= times[-1]:
            return self.times_s  # it does not seek, or ends before
        return np.asarray(times, dtype=np.float64)

    @property
    def timed(self) -> bool:
        """Whether packets say when they are shown; if not, frames are counted."""
        return self.zero is not None

    def size(self) -> tuple[int, int]:
        """Width and height as stored, before rotation."""
        return self._file.width, self._file.height

    def frame_at(self, time_s: float, *, exact: bool = False) -> npt.NDArray[np.uint8]:
        """The frame shown at a time, upright, uint8 of shape (height, width, 3).

        Args:
            time_s: Seconds from the first frame; behind the end it is the last frame.
            exact: A frame begins at that very time: frames that no other needs can be skipped.

        Raises:
            MediaError: Nothing can be decoded there.
        """
        skip_until_s = time_s if exact else time_s - WHOLE_S
        for back_s in BACK_S:
            self._approach(time_s, back_s, skip_until_s=skip_until_s)
            if self._current is None or self._current[0] > time_s + CLOCK_S:
                continue
            if self._current[0] < skip_until_s - CLOCK_S:  # the frame shown then was skipped
                self._current = None
                self._approach(time_s, back_s, skip_until_s=0.0)
            break
        else:  # the container does not seek: from the start, then
            self._restart(seek_s=None)
            self._advance(time_s)
        if self._current is None:
            raise MediaError("damaged video: no frame can be decoded there")
        return _upright_rgb(self._current[1])

    def _approach(self, time_s: float, back_s: float, *, skip_until_s: float) -> None:
        self._skip_until_s = skip_until_s if self.timed else 0.0
        here = None if back_s or self._current is None else self._current[0]
        if here is None or here > time_s + CLOCK_S or self._nearer_by_seeking(here, time_s):
            target_s = max(time_s - back_s, 0.0)
            self._restart(seek_s=target_s if self.timed and target_s > 0 else None)
        self._advance(time_s)

    def _nearer_by_seeking(self, here_s: float, time_s: float) -> bool:
        """Whether decoding can begin between here and there."""
        file = self._file
        if not self.timed or time_s - here_s < 2 / file.fps:
            return False
        target = file.zero + round(time_s / file.tick_s)
        place = file.stream.index_entries.search_timestamp(target, backward=True)
        if place < 0:
            return time_s - here_s > 1.0
        # Decoding times come before showing times, by a few frames.
        began_s = (file.stream.index_entries[place].timestamp - file.zero) * file.tick_s
        return bool(began_s > here_s + 2 / file.fps)

    def _restart(self, *, seek_s: float | None) -> None:
        if seek_s is None:
            self._file = OpenFile(self._path, zero=self.zero)
        else:
            self._file.seek(seek_s)
        self._current = self._next = None
        self._frames = self._decoded()

    def _advance(self, time_s: float) -> None:
        """Decodes until the frame at hand is the last that begins by `time_s`."""
        while self._current is None or self._current[0] < time_s - CLOCK_S:
            if self._next is None:
                self._next = next(self._frames, None)
            if self._next is None:
                return
            if self._current is not None and self._next[0] > time_s + CLOCK_S:
                return
            self._current, self._next = self._next, None

    def _decoded(self) -> Iterator[tuple[float, Any]]:
        file, codec, count = self._file, self._file.stream.codec_context, 0
        for packet in with_end(file.packets()):
            shown_s = None if packet is None else file.time_s(packet)
            early = shown_s is not None and shown_s < self._skip_until_s - CLOCK_S
            codec.skip_frame = "NONREF" if early and file.true_stamps else "DEFAULT"
            for frame in file.decode(packet):
                time_s = file.time_s(frame) if self.timed else None
                yield (count / file.fps if time_s is None else time_s), frame
                count += 1


def _times_until(file: OpenFile, end_s: float | None) -> list[float]:
    """Times from the next key frame to just behind `end_s`, rising."""
    times: set[float] = set()
    first_s: float | None = None
    for packet in file.packets():
        time_s = file.time_s(packet)
        if time_s is None or packet.is_discard:
            continue
        if first_s is None and packet.is_keyframe:
            first_s = time_s
        if end_s is not None and packet.is_keyframe and time_s > end_s + 1.0:
            break  # what is stored behind it is shown behind it, or just before
        # Behind a place in the middle of a group, some frames shown early are missing.
        if first_s is not None and time_s >= first_s:
            times.add(time_s)
    return sorted(times)


def with_end(packets: Iterator[Any]) -> Iterator[Any | None]:
    """The packets, then None, which makes a decoder hand out what it holds."""
    yield from packets
    yield None


def _upright_rgb(frame: Any) -> npt.NDArray[np.uint8]:
    try:
        pixels = frame.to_ndarray(format="rgb24", threads=1)
    except MemoryError:
        raise MediaError("a frame needs more memory than a worker may use") from None
    except Exception as error:
        raise MediaError(f"damaged video: {type(error).__name__}") from None
    turns = round(frame.rotation / 90) % 4
    upright: npt.NDArray[np.uint8] = np.ascontiguousarray(np.rot90(pixels, turns))
    return upright
