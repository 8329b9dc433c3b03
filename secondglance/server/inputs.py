"""What requests bring or name, as files that the models may read.

Nothing here opens a path that a caller names, and no bytes of a caller are decoded in this
process: `intake` does so in a worker.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secondglance.errors import MediaError
from secondglance.pipelines.first_pass import QUERY_FRAMES
from secondglance.server import intake
from secondglance.server.decoding import Decoding
from secondglance.server.intake import IntakeLimits, Stretch, Taken
from secondglance.server.options import ServerOptions
from secondglance.server.remote_media import RemoteMedia
from secondglance.server.schemas import Clip, Parts, QueryParts
from secondglance.server.thumbnails import Thumbnails
from secondglance.server.uploads import Uploads
from secondglance.types import Content, Query, QueryClip, VideoClip

if TYPE_CHECKING:
    from secondglance.library import Library
    from secondglance.pipelines.locate import Located

MEGABYTE = 1_000_000
MAX_MEDIA = 2000
"""Different pictures and clips of one request."""
MAX_REMOTE = 32
"""Of these such that are fetched."""
WHOLE: Stretch = (None, None, None)
_DATA = re.compile(r"data:[^,]{0,200};base64,", re.ASCII | re.IGNORECASE)

Wanted = Literal["image", "video"]


class Inputs:
    """Reads references of requests.

    Args:
        library: Whose records may be named.
        options: With the limits.

    Raises:
        InputError: A host in the options is none.
    """

    def __init__(self, library: Library, options: ServerOptions) -> None:
        ingest, rerank = library.settings.ingest, library.settings.rerank
        self.library = library
        self.max_bytes = int(options.max_upload_mb * MEGABYTE)
        self._room = int(options.max_uploads_mb * MEGABYTE)
        self.limits = IntakeLimits(
            max_pixels=min(options.max_pixels, ingest.max_pixels),
            max_video_s=options.max_video_s,
            max_frames=options.max_frames,
            max_bytes=self._room,
            fps=rerank.fps,
            sampled_frames=rerank.max_frames,
        )
        self.remote = RemoteMedia(options.url_hosts, max_bytes=self.max_bytes)
        self.decoding = Decoding(
            workers=options.decode_workers,
            timeout_s=options.decode_timeout_s,
            max_memory_mb=ingest.max_memory_mb,
        )
        self.thumbnails = Thumbnails(self.decoding, max_pixels=ingest.max_pixels)
        self._folder = tempfile.TemporaryDirectory(prefix="secondglance-")
        self.uploads = Uploads(
            Path(self._folder.name) / "uploads",
            self.decoding,
            self.limits,
            max_bytes=self.max_bytes,
            total_bytes=self._room,
            ttl_s=options.upload_ttl_s,
        )
        self._lock = threading.Lock()
        self._used = 0

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """What one request needs; its files are gone afterwards."""
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder, ExitStack() as held:
            scope = Scope(self, Path(folder), held)
            try:
                yield scope
            finally:
                with self._lock:
                    self._used -= scope.used

    def use(self, size: int) -> None:
        """Counts bytes that requests hold on disk at this moment.

        Raises:
            MediaError: There would be too many.
        """
        with self._lock:
            if self._used + size > self._room:
                raise MediaError(
                    f"decoded, the media of requests take more than {self._room / 1e6:.0f} MB",
                    remedy="send fewer or smaller ones, or send them again later",
                )
            self._used += size

    def close(self) -> None:
        """Ends decoding and removes all files."""
        self.decoding.close()
        self._folder.cleanup()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a reference stands for: words, a picture, or a clip with its frames."""

    text: str = ""
    picture: Path | None = None
    clip: VideoClip | None = None
    glances: tuple[Path, ...] = ()


class Scope:
    """The media of one request."""

    def __init__(self, inputs: Inputs, folder: Path, held: ExitStack) -> None:
        self._inputs = inputs
        self._folder = folder
        self._held = held
        self._known: dict[tuple[Any, ...], _Found | MediaError] = {}
        self._files = 0
        self._fetched = 0
        self.used = 0
        """Bytes of its files."""

    def query(self, asked: str | QueryParts) -> Query:
        """A query of a search; a text of the library is taken for its words.

        Raises:
            MediaError: Its picture or clip cannot be used.
        """
        if isinstance(asked, str):
            return Query(text=asked)
        texts = [asked.text]
        picture: Path | None = None
        clip: QueryClip | None = None
        if asked.image is not None:
            found = self._find(asked.image, "image")
            picture = found.picture
            texts.append(found.text)
        if asked.video is not None:
            found = self._find(asked.video, "video", glances=QUERY_FRAMES)
            texts.append(found.text)
            if found.clip is not None:
                clip = QueryClip(glances=found.glances, clip=found.clip)
        return Query(
            text="\n".join(filter(None, texts)),
            image=picture,
            clip=clip,
            not_text=asked.not_text,
            instruction=asked.instruction,
        )

    def content(self, side: str | Parts) -> Content:
        """One side of a pair; a text of the library is taken for its words.

        Raises:
            MediaError: A picture or a clip cannot be used.
        """
        if isinstance(side, str):
            return Content(texts=(side,))
        texts: list[str] = []
        pictures: list[Path] = []
        clips: list[VideoClip] = []
        for kind, part in _parts(side):
            if kind == "text":
                texts.append(part)
                continue
            found = self._clip(part) if isinstance(part, Clip) else self._find(part, kind)
            texts += [found.text] if found.text else []
            pictures += [found.picture] if found.picture else []
            clips += [found.clip] if found.clip else []
        return Content(texts=tuple(texts), images=tuple(pictures), videos=tuple(clips))

    def image(self, reference: str) -> Path:
        """A picture's file; of a film in the library its keyframe.

        Raises:
            MediaError: It cannot be used.
        """
        found = self._find(reference, "image")
        if found.picture is None:
            raise MediaError("the record is a text, not a picture")
        return found.picture

    def video(self, clip: str | Clip) -> VideoClip:
        """A clip: a stretch of a film in the library, or frames.

        Raises:
            MediaError: It cannot be used.
        """
        found = self._clip(clip) if isinstance(clip, Clip) else self._find(clip, "video")
        if found.clip is None:
            raise MediaError("the record is a text, not a clip")
        return found.clip

    def _clip(self, clip: Clip) -> _Found:
        if (clip.url is None) == (not clip.frames):
            raise MediaError("a clip has either `url` or `frames`")
        if clip.url is not None:
            stretch = (clip.start_s, clip.end_s, clip.keyframe_s)
            if clip.end_s is not None and clip.end_s <= (clip.start_s or 0.0):
                raise MediaError(
                    f"the clip ends at {clip.end_s:g} s, before it begins "
                    f"({clip.start_s or 0.0:g} s)"
                )
            return self._find(clip.url, "video", stretch=stretch)
        if clip.times_s is not None and len(clip.times_s) != len(clip.frames):
            raise MediaError(f"a clip of {len(clip.frames)} frames with {len(clip.times_s)} times")
        frames = tuple(self.image(frame) for frame in clip.frames)
        return _Found(clip=VideoClip(frames=frames, times_s=clip.times_s))

    def _find(
        self, reference: str, wanted: Wanted, *, stretch: Stretch = WHOLE, glances: int = 0
    ) -> _Found:
        """What a reference stands for; looked up once in a request."""
        key = (reference, wanted, stretch, glances)
        if key not in self._known:
            if len(self._known) >= MAX_MEDIA:
                raise MediaError(
                    f"more than {MAX_MEDIA} pictures and clips in one request",
                    remedy="send them in several requests",
                )
            try:
                self._known[key] = self._look_up(reference, wanted, stretch, glances)
            except MediaError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, MediaError):
            raise MediaError(found.problem, remedy=found.remedy)
        return found

    def _look_up(self, reference: str, wanted: Wanted, stretch: Stretch, glances: int) -> _Found:
        scheme, colon, rest = reference.partition(":")
        scheme = scheme.lower() if colon else ""
        if scheme == "upload":
            return self._uploaded(rest, wanted, stretch)
        if scheme == "id":
            return self._record(rest, wanted, stretch, glances)
        if scheme == "data":
            path = self._new() / "original"
            self._write_data(reference, path)
        elif scheme in ("https", "http"):
            if self._fetched >= MAX_REMOTE:
                raise MediaError(f"more than {MAX_REMOTE} addresses in one request")
            self._fetched += 1
            path = self._new() / "original"
            self._inputs.remote.fetch(reference, path)
            self._use(path.stat().st_size)
        else:
            raise MediaError(
                f"{reference[:60]!r} is not a reference that is known",
                remedy="give upload:ID, id:RECORD, data:TYPE;base64,... or an https:// address",
            )
        return self._taken(path, path.parent, wanted, stretch, glances)

    def _write_data(self, reference: str, path: Path) -> None:
        head = _DATA.match(reference)
        if head is None:
            raise MediaError("a data: URL is not of the form data:TYPE;base64,...")
        if (len(reference) - head.end()) * 3 // 4 > self._inputs.max_bytes + 3:
            raise MediaError(
                f"a data: URL is over the limit of {self._inputs.max_bytes / 1e6:g} MB"
            )
        try:
            raw = base64.b64decode(reference[head.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise MediaError("a data: URL is not base64") from None
        self._use(len(raw))
        path.write_bytes(raw)

    def _taken(
        self, path: Path, folder: Path, wanted: Wanted, stretch: Stretch, glances: int
    ) -> _Found:
        inputs = self._inputs
        before = set(folder.iterdir())
        try:
            taken = inputs.decoding.run(
                intake.take, path, folder, inputs.limits,
                wanted=wanted, stretch=stretch, glances=glances,
            )  # fmt: skip
            written = [*filter(None, [taken.picture]), *taken.glances, *taken.sampled]
            self._use(sum(file.stat().st_size for file in written))
        except BaseException:
            # What a worker wrote before it failed is not counted, so it must not stay.
            for file in set(folder.iterdir()) - before:
                file.unlink()
            raise
        return _found(taken)

    def _uploaded(self, id: str, wanted: Wanted, stretch: Stretch) -> _Found:
        upload = self._held.enter_context(self._inputs.uploads.hold(id))
        if upload.taken.kind != wanted:
            is_, not_ = ("picture", "clip") if wanted == "video" else ("clip", "picture")
            raise MediaError(
                f"the upload is a {is_}, not a {not_}; give it as `{upload.taken.kind}`"
            )
        if stretch == WHOLE:
            return _found(upload.taken)
        return self._taken(upload.original, self._new(), wanted, stretch, 0)

    def _record(self, id: str, wanted: Wanted, stretch: Stretch, glances: int) -> _Found:
        located = self._inputs.library.located(id)
        if located is None:
            raise MediaError(f"there is no record {id[:40]!r} in the library")
        if located.kind == "text":
            return _Found(text=str(located.payload.get("text", "")))
        if located.path is None:
            raise MediaError("the file of the record is not there now")
        if located.kind == "image":
            if wanted == "video":
                raise MediaError("the record is a picture, not a clip; give it as `image`")
            return _Found(picture=located.path)
        own = located.stretch()
        if wanted == "image":
            return _Found(picture=self._frames(located, [own[2]])[0])
        start_s, end_s, keyframe_s = own if stretch == WHOLE else stretch
        seen: tuple[Path, ...] = ()
        if glances:
            times_s = intake.middles(start_s or 0.0, own[1] if end_s is None else end_s, glances)
            seen = self._frames(located, times_s)
        clip = VideoClip(path=located.path, start_s=start_s, end_s=end_s, keyframe_s=keyframe_s)
        return _Found(clip=clip, glances=seen)

    def _frames(self, located: Located, times_s: list[float]) -> tuple[Path, ...]:
        inputs = self._inputs
        assert located.path is not None
        written = inputs.decoding.run(
            intake.glimpse, located.path, self._new(), inputs.limits, times_s=times_s
        )
        self._use(sum(file.stat().st_size for file in written))
        return written

    def _use(self, size: int) -> None:
        self._inputs.use(size)
        self.used += size

    def _new(self) -> Path:
        """A folder for one reference."""
        self._files += 1
        folder = self._folder / str(self._files)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        return folder


def _found(taken: Taken) -> _Found:
    if taken.picture is not None:
        return _Found(picture=taken.picture)
    clip = VideoClip(frames=taken.sampled, times_s=taken.times_s, sampled=True)
    return _Found(clip=clip, glances=taken.glances)


def _parts(side: Parts) -> Iterator[tuple[Any, Any]]:
    """Kind and value of each part, in the order of the keys."""
    if side.content is not None:
        for part in side.content:
            if part.type == "text":
                yield "text", part.text
            elif part.type == "image_url":
                yield "image", part.image_url.url
            else:
                yield "video", part.video_url.url
        return
    for kind in ("text", "image", "video"):
        value = getattr(side, kind)
        if value is not None:
            yield from ((kind, part) for part in (value if isinstance(value, list) else [value]))
