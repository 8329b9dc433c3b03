"""Files that clients uploaded: kept for a while, under names that nobody can guess."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from secondglance.errors import MediaError, StoppedError
from secondglance.pipelines.first_pass import QUERY_FRAMES
from secondglance.server import intake
from secondglance.server.decoding import Decoding
from secondglance.server.intake import IntakeLimits, Taken
from secondglance.server.problems import ApiError

MAX_RECEIVING = 32
"""Uploads at the same time."""
IDLE_S = 15.0
"""Between two parts of an upload, at most."""
SLOWEST = 16_000
"""Bytes a second; an upload may take `IDLE_S` and the time for as many bytes as it may have."""
BUFFER = 1 << 20
DRAIN_BYTES = 8 << 20
DRAIN_S = 2.0
"""What is read of a body that is refused: clients read the answer only when theirs is sent."""
_ID = re.compile("[A-Za-z0-9_-]{32}")


@dataclass(slots=True, kw_only=True, eq=False)
class Upload:
    """A file that was uploaded.

    Attributes:
        id: 192 random bits.
        folder: Of its files.
        original: As it came; only for clips, of which a stretch may be asked for.
        taken: What it is.
        size: Bytes of its files.
        ends: Of `time.monotonic`.
    """

    id: str
    folder: Path
    original: Path
    taken: Taken
    size: int
    ends: float
    _held: int = field(default=0)
    _gone: bool = field(default=False)

    @property
    def thumbnail(self) -> Path:
        """A JPEG."""
        return self.folder / intake.THUMBNAIL


class Uploads:
    """Receives files, and has them until they expire or newer ones need their place.

    Args:
        folder: Where they are; it is emptied at the end.
        decoding: What looks at them.
        limits: Of one file.
        max_bytes: Of one file, as it comes.
        total_bytes: Of all, decoded.
        ttl_s: How long each is kept.
        idle_s: Between two parts of one, at most.
    """

    def __init__(
        self,
        folder: Path,
        decoding: Decoding,
        limits: IntakeLimits,
        *,
        max_bytes: int,
        total_bytes: int,
        ttl_s: float,
        idle_s: float = IDLE_S,
    ) -> None:
        self._folder = folder
        self._decoding = decoding
        self._limits = limits
        self._max_bytes = max_bytes
        self._total_bytes = total_bytes
        self._ttl_s = ttl_s
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._receiving = 0
        folder.mkdir()

    @property
    def held_bytes(self) -> int:
        """Of all uploads that are kept."""
        with self._lock:
            return sum(upload.size for upload in self._kept.values())

    async def receive(self, body: AsyncIterator[bytes], *, declared: int | None) -> Upload:
        """Takes a file in.

        Args:
            body: Its parts.
            declared: Bytes that were announced; None if none were.

        Raises:
            ApiError: 413 if it is too large, 408 if it comes too slowly, 429 if too many come.
            MediaError: It is no picture and no clip, or over a limit.
            StoppedError: The client went away.
        """
        if self._receiving >= MAX_RECEIVING:
            raise ApiError(
                429, "too-many-requests", f"{self._receiving} files are being received",
                headers={"Retry-After": "2"},
            )  # fmt: skip
        self._receiving += 1
        id = secrets.token_urlsafe(24)
        folder = self._folder / id
        try:
            folder.mkdir()
            original = folder / "original"
            await self._write(body, declared, original)
            taken = await self._decoding.turn(
                intake.take, original, folder, self._limits, glances=QUERY_FRAMES, thumbnail=True
            )
            if taken.kind == "image":
                original.unlink()
            size = sum(path.stat().st_size for path in folder.iterdir())
            upload = Upload(
                id=id, folder=folder, original=original, taken=taken, size=size,
                ends=time.monotonic() + self._ttl_s,
            )  # fmt: skip
            self._keep(upload)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, True)
            raise
        finally:
            self._receiving -= 1
        # Also where no further request comes.
        asyncio.get_running_loop().call_later(self._ttl_s + 0.01, self.sweep)
        return upload

    @contextlib.contextmanager
    def hold(self, id: str) -> Iterator[Upload]:
        """An upload, whose files stay until the end of the block.

        Raises:
            MediaError: There is none of this id, or no more.
        """
        self.sweep()
        with self._lock:
            upload = self._kept.get(id) if _ID.fullmatch(id) else None
            if upload is None:
                raise MediaError("there is no such upload (now)", remedy="upload the file again")
            upload._held += 1
        try:
            yield upload
        finally:
            with self._lock:
                upload._held -= 1
                gone = upload._gone and not upload._held
            if gone:
                shutil.rmtree(upload.folder, ignore_errors=True)

    def remove(self, id: str) -> bool:
        """Forgets an upload; whether there was one."""
        with self._lock:
            upload = self._kept.pop(id, None)
        return upload is not None and self._drop([upload])

    def sweep(self) -> None:
        """Removes what expired."""
        now = time.monotonic()
        with self._lock:
            over = [upload for upload in self._kept.values() if upload.ends <= now]
            for upload in over:
                del self._kept[upload.id]
        self._drop(over)

    def _keep(self, new: Upload) -> None:
        self.sweep()
        if new.size > self._total_bytes:
            raise ApiError(
                413, "too-large",
                f"decoded, it takes more than {self._total_bytes / 1e6:.0f} MB",
            )  # fmt: skip
        oldest = []
        with self._lock:
            held = new.size + sum(upload.size for upload in self._kept.values())
            while held > self._total_bytes:
                _, upload = self._kept.popitem(last=False)
                oldest.append(upload)
                held -= upload.size
            self._kept[new.id] = new
        self._drop(oldest)

    def _drop(self, uploads: list[Upload]) -> bool:
        for upload in uploads:
            with self._lock:
                upload._gone = True
                held = upload._held > 0
            if not held:
                shutil.rmtree(upload.folder, ignore_errors=True)
        return True

    async def _write(self, body: AsyncIterator[bytes], declared: int | None, path: Path) -> None:
        parts, received, buffer = body.__aiter__(), 0, bytearray()
        ends = time.monotonic() + self._idle_s + self._max_bytes / SLOWEST
        with path.open("wb") as file:
            while declared is None or declared <= self._max_bytes:
                wait_s = min(self._idle_s, ends - time.monotonic())
                try:
                    part = await asyncio.wait_for(anext(parts), max(wait_s, 0.0))
                except StopAsyncIteration:
                    await asyncio.to_thread(file.write, buffer)
                    return
                except (asyncio.TimeoutError, TimeoutError):
                    raise ApiError(
                        408, "too-slow", "the file came too slowly",
                        headers={"Connection": "close"},
                    ) from None  # fmt: skip
                received += len(part)
                if received > self._max_bytes:
                    break
                buffer += part
                if len(buffer) >= BUFFER:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
        await _drain(parts)
        raise ApiError(
            413,
            "too-large",
            f"the file is over the limit of {self._max_bytes / 1e6:g} MB",
            headers={"Connection": "close"},
        )


async def _drain(parts: AsyncIterator[bytes]) -> None:
    async def read() -> None:
        left = DRAIN_BYTES
        async for part in parts:
            left -= len(part)
            if left < 0:
                return

    with contextlib.suppress(asyncio.TimeoutError, TimeoutError, StoppedError):
        await asyncio.wait_for(read(), DRAIN_S)
