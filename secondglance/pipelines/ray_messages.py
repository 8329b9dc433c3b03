"""What the process that holds a library and the one that speaks to Ray say to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from secondglance.ingest.decode import Limits
from secondglance.ingest.images import Preprocessing
from secondglance.ingest.media_types import FileKind
from secondglance.sections import RecallSettings

What: TypeAlias = Literal["hash", "opened", "failed", "pixels", "text", "vector", "lost", "fatal"]
Row: TypeAlias = "tuple[str, What, int, bytes, bytes]"
"""Key of the file, what this is, position of the segment, what is known of the file, the data.

=======  ==========================================  ========================================
what     about (pickled; empty where not given)      data
=======  ==========================================  ========================================
hash     hash of the content, or `Failure`
opened   `Decoded` without pixels
failed   `Failure`
pixels   of the first segment: `Decoded`             uint8 (height, width, 3)
text     of the first segment: `Decoded`             UTF-8
vector   as the picture or text had                  float32 (dim,)
lost     as the picture or text had                  why there is no vector, UTF-8; or empty
fatal    an error that ends the job
=======  ==========================================  ========================================
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file to read; `key` comes back with everything that is said of it."""

    key: str
    path: Path
    kind: FileKind
    sidecars: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is nothing, and the node where the file does not exist, if that is why."""

    reason: str
    unseen_on: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How files are decoded: as the embedder wants it, within limits."""

    preprocessing: Preprocessing
    limits: Limits
    timeout_s: float
    max_memory_mb: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Which model embeds; its fingerprint must be the library's."""

    recall: RecallSettings
    fingerprint: str
    preprocessing: Preprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where to run.

    Attributes:
        address: Of a cluster; None starts Ray on this machine.
        workers: Decoders; 0 for one a CPU.
        folder: For what Ray and this process write; emptied by the caller.
        gpus: Whether embedding may use the cluster's GPUs.
    """

    address: str | None
    workers: int
    folder: Path
    gpus: bool


@dataclass(frozen=True, slots=True)
class HashCommand:
    """Hash files, called so."""

    calls: Sequence[Sequence[File]]


@dataclass(frozen=True, slots=True)
class EmbedCommand:
    """Decode and embed files, called so; `alone`: each call in a task of its own."""

    calls: Sequence[Sequence[File]]
    decoding: Decoding
    embedding: Embedding
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """Connected; so many CPUs there are."""

    cpus: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Some answers."""

    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Done:
    """A command is done as far as it could be.

    Attributes:
        node_lost: Whether a node went meanwhile: what is not answered was perhaps there.
        stalled: Whether the cluster does nothing since: this process should be replaced.
        error: The last thing that went wrong, for the user.
    """

    node_lost: bool
    stalled: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The cluster cannot be used."""

    problem: str
    remedy: str | None = None
