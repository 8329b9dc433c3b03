"""Which index a Milvus server gets: by how much memory the vectors would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from secondglance.types import Vector

IndexKind = Literal["auto", "flat", "hnsw", "ivf_sq8", "diskann"]
"""What `store.server_index` may be."""

HNSW_M = 32
HNSW_EF_CONSTRUCTION = 200
HNSW_EF_SEARCH = 128
IVF_LISTS = 1024
IVF_PROBES = 64
DISKANN_SEARCH_LIST = 128

NODE_BYTES = 64 << 30
"""Memory that one query node is taken to have for vectors; beyond it a smaller index is chosen."""

_TYPES: dict[str, IndexKind] = {
    "FLAT": "flat",
    "HNSW": "hnsw",
    "IVF_SQ8": "ivf_sq8",
    "DISKANN": "diskann",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexChoice:
    """An index and why it is the right one.

    Attributes:
        kind: Never `auto`.
        reason: For people, as a clause.
    """

    kind: IndexKind
    reason: str

    @property
    def build(self) -> dict[str, Any]:
        """What `add_index` takes."""
        params: dict[str, Any] = {}
        if self.kind == "hnsw":
            params = {"M": HNSW_M, "efConstruction": HNSW_EF_CONSTRUCTION}
        elif self.kind == "ivf_sq8":
            params = {"nlist": IVF_LISTS}
        return {"index_type": self.kind.upper(), "metric_type": "COSINE", "params": params}


def choose_index(count: int, dim: int, *, wanted: IndexKind = "auto") -> IndexChoice:
    """The index for that many vectors.

    HNSW is fastest and keeps every vector and its links in memory; IVF_SQ8 keeps a byte for each
    dimension; DISKANN keeps vectors on the disks of the query nodes.

    Args:
        count: Vectors that are expected.
        dim: Their length.
        wanted: A choice that was made already.
    """
    if wanted != "auto":
        return IndexChoice(kind=wanted, reason=f"store.server_index is {wanted}")
    # Two links of 4 bytes for each of M neighbours on the lowest layer, which holds nearly all.
    hnsw = count * (4 * dim + 8 * HNSW_M)
    codes = count * dim
    node = _size(NODE_BYTES)
    if hnsw <= NODE_BYTES:
        return IndexChoice(
            kind="hnsw", reason=f"{count:,} vectors take {_size(hnsw)} of memory, of {node}"
        )
    if codes <= NODE_BYTES:
        reason = f"{count:,} vectors would take {_size(hnsw)} of memory in HNSW, {_size(codes)} so"
        return IndexChoice(kind="ivf_sq8", reason=reason)
    reason = f"{count:,} vectors would take {_size(codes)} of memory even at a byte per dimension"
    return IndexChoice(kind="diskann", reason=reason)


def kind_of(description: dict[str, Any] | None) -> IndexKind | None:
    """What `describe_index` found; None for an index that secondglance does not make."""
    return _TYPES.get(str((description or {}).get("index_type", "")))


def search_params(kind: IndexKind | None, limit: int) -> dict[str, int]:
    """How far a search looks around; at least as far as is asked for."""
    if kind == "hnsw":
        return {"ef": max(HNSW_EF_SEARCH, 2 * limit)}
    if kind == "ivf_sq8":
        return {"nprobe": IVF_PROBES}
    if kind == "diskann":
        return {"search_list": min(max(DISKANN_SEARCH_LIST, 2 * limit), 65_535)}
    return {}


def described(kind: IndexKind | None, count: int, dim: int, *, wanted: IndexKind) -> str:
    """The index of a collection, for people, with the reason or with what would be better."""
    details = {
        "hnsw": f"HNSW, M={HNSW_M}, ef={HNSW_EF_SEARCH}",
        "ivf_sq8": f"IVF_SQ8, nlist={IVF_LISTS}, nprobe={IVF_PROBES}",
        "diskann": "DISKANN",
        "flat": "FLAT",
    }.get(kind or "", "an index of its own")
    choice = choose_index(count, dim, wanted=wanted)
    if choice.kind == kind:
        return f"Milvus ({details}: {choice.reason})"
    return f"Milvus ({details}; better {choice.kind}, set store.server_index: {choice.reason})"


def exactly_scored(found: Sequence[dict[str, Any]], query: Vector) -> list[dict[str, Any]]:
    """Hits by the cosine of the vectors that are stored, not of their codes."""
    for hit in found:
        hit["distance"] = float(np.asarray(hit["entity"]["vector"], dtype=np.float32) @ query)
    return sorted(found, key=lambda hit: -hit["distance"])


def _size(count: int) -> str:
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB")):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
