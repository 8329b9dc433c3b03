"""What a score depends on, as hashes: files, contents, and the checkpoint with its settings."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from secondglance import __version__
from secondglance.errors import MediaError
from secondglance.media.files import file_hash
from secondglance.rerank.checkpoint import HUB_FILES
from secondglance.rerank.pictures import read_picture
from secondglance.types import Content, VideoClip

SETTLED_NS = 2_000_000_000
"""Age at which a modification time can be relied on: the coarsest clock of a file system in use
(FAT) ticks every two seconds, and a second change within one tick would go unseen."""

WHOLE_BYTES = 64 << 20
"""Largest file that is read for its hash: a query may have a hundred long videos as candidates, and
their gigabytes would take longer to read than to score."""

PACKAGES = (
    "decord2",
    "pillow",
    "qwen-vl-utils",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
)
"""Whose version may change a score: they decode, resize, tokenise or compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIdentity:
    """One state of one file, as far as the file system tells without reading it.

    Attributes:
        path: Absolute path.
        size: Bytes.
        mtime_ns: Modification time in nanoseconds since the epoch.
        ctime_ns: Change time; programs that put the modification time back leave it alone.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int


class FileMemo(Protocol):
    """Remembers hashes of files, so that an unchanged one is read once."""

    def file_hash(self, identity: FileIdentity) -> str | None:
        """The hash of a file in this state; None if it is not known."""
        ...

    def keep_file_hash(self, identity: FileIdentity, digest: str) -> None:
        """Notes the hash of a file in this state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentDigest:
    """SHA-256 of a content, as hexadecimal, and the files that it was read from."""

    digest: str
    files: tuple[FileIdentity, ...]

    def still_true(self) -> bool:
        """Whether no file has changed since."""
        try:
            return all(identify(Path(file.path)) == file for file in self.files)
        except OSError:
            return False


def identify(path: Path) -> FileIdentity:
    """The state that a file is in.

    Raises:
        OSError: It is missing, out of reach, or no regular file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait, and take its bytes away
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return FileIdentity(
        path=os.path.abspath(path),  # noqa: PTH100 - keeps links
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def content_digest(content: Content, memo: FileMemo) -> ContentDigest | None:
    """Hashes all that is read of a content; None where a part cannot be read.

    The name and place of a file do not count, its bytes do; of a file beyond `WHOLE_BYTES` its
    place and state count instead. Pictures in memory count by mode, size and pixels, clips also by
    their stretch and the times of their frames.
    """
    files: list[FileIdentity] = []

    def hashed(path: Path) -> str:
        identity = identify(path)
        if identity.size > WHOLE_BYTES:
            files.append(identity)
            return _sha256(asdict(identity))
        identity, digest = _file(path, memo)
        files.append(identity)
        return digest

    try:
        description = {
            "texts": list(content.texts),
            "images": [_image(source, hashed) for source in content.images],
            "videos": [_clip(clip, hashed) for clip in content.videos],
        }
    except (OSError, ValueError, MediaError):
        return None
    return ContentDigest(digest=_sha256(description), files=tuple(files))


def checkpoint_digest(folder: Path, memo: FileMemo) -> str:
    """Hashes every file of a checkpoint that is loaded: weights, configuration, tokenizer.

    Args:
        folder: As `checkpoint.find` returns it.
        memo: Of hashes; several gigabytes are read only when they are new.

    Raises:
        OSError: A file cannot be read, or changes meanwhile.
    """
    found = {path for pattern in HUB_FILES for path in folder.glob(pattern)}
    return _sha256({path.name: _file(path, memo)[1] for path in sorted(found) if path.is_file()})


def fingerprint(checkpoint: str, settings: Mapping[str, Any]) -> str:
    """One hash for all that is the same in every pair.

    Args:
        checkpoint: As `checkpoint_digest` returns it.
        settings: JSON-compatible: type and device of the computation, limits of pixels, frames
            and tokens, the default instruction.
    """
    programs = {name: _version(name) for name in PACKAGES}
    return _sha256([__version__, programs, checkpoint, dict(settings)])


def pair_key(
    query: ContentDigest, document: ContentDigest, *, instruction: str | None, fingerprint: str
) -> bytes:
    """SHA-256 over everything that a score depends on, 32 bytes."""
    whole = [fingerprint, instruction or None, query.digest, document.digest]
    return bytes.fromhex(_sha256(whole))


def _file(path: Path, memo: FileMemo) -> tuple[FileIdentity, str]:
    identity = identify(path)
    known = memo.file_hash(identity)
    if known is not None:
        return identity, known
    started_ns = time.time_ns()
    digest = file_hash(path)
    if identify(path) != identity:
        raise OSError(errno.EAGAIN, "changed while it was read", str(path))
    if abs(started_ns - identity.mtime_ns) > SETTLED_NS:
        memo.keep_file_hash(identity, digest)
    return identity, digest


def _image(source: Path | Image.Image, hashed: Callable[[Path], str]) -> object:
    return _picture(source) if isinstance(source, Image.Image) else hashed(source)


def _picture(source: Image.Image) -> object:
    # Turned upright as the reranker does: the orientation is then in the pixels.
    picture = read_picture(source)
    palette = picture.getpalette("RGBA") if picture.mode in ("P", "PA") else None
    return {
        "mode": picture.mode,
        "size": list(picture.size),
        "palette": palette,
        "transparency": repr(picture.info.get("transparency")),
        "pixels": hashlib.sha256(picture.tobytes()).hexdigest(),
    }


def _clip(clip: VideoClip, hashed: Callable[[Path], str]) -> object:
    # Frames of a file are resized in another way than a list of frames is.
    sampled = {"sampled": True} if clip.sampled else {}
    return sampled | {
        # Where there are frames, the file is not read.
        "file": None if clip.frames or clip.path is None else hashed(clip.path),
        "stretch": _numbers((clip.start_s, clip.end_s, clip.keyframe_s)),
        "frames": [_image(frame, hashed) for frame in clip.frames],
        "times_s": None if clip.times_s is None else _numbers(clip.times_s),
    }


def _numbers(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else float(value) for value in values]


def _sha256(value: object) -> str:
    # As JSON, where no two values look alike and every character has an escape.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("ascii")).hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # another build of it
        return None
