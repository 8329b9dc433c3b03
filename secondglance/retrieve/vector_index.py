"""The indexes that a FAISS store chooses between, and how it chooses.

An index knows vectors by position: the i-th that was added is i. Which record that is, and what was
deleted, is the store's to know.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from secondglance.errors import InputError

if TYPE_CHECKING:
    from secondglance.types import Vector

# The stubs that come with FAISS leave out what its Python layer adds to the SWIG classes.
faiss: Any = _faiss

Layout = Literal["flat", "hnsw", "sq8", "ivfpq", "gpu"]
LayoutChoice = Literal["auto", "flat", "hnsw", "sq8", "ivfpq", "gpu"]
Matrix: TypeAlias = npt.NDArray[np.float32]
Mask: TypeAlias = npt.NDArray[np.bool_]
Positions: TypeAlias = npt.NDArray[np.int64]

TRAINING = {"sq8": 50_000, "ivfpq": 100_000}
"""Vectors that a layout learns from."""
LEAST_TRAINING = {"sq8": 1, "ivfpq": 1000}
"""Fewer teach it nothing; a codebook alone has 256 entries."""

# An index may fill this share of the machine's memory; models and the system need the rest.
_MEMORY_SHARE = 0.5
# An auto index leaves its layout only well below where it entered, lest it flip to and fro.
_BACK = 0.5
# A search widens until another doubling changes at most this share of the answers ...
_UNSETTLED = 0.02
# ... or it has considered this many candidates, or all lists.
_WIDEST = 4096
# Lists are searched from one in this many on; for most queries twice that is enough.
_FIRST_LISTS = 64
# Quantised vectors misjudge order, so a few more than wanted are compared exactly afterwards.
_AGAIN = {"flat": 1, "hnsw": 1, "sq8": 2, "ivfpq": 8, "gpu": 1}
# Numbers of a vector that share one byte of product quantisation.
_PER_BYTE = 4
_BITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a FAISS index is built and searched with.

    Attributes:
        m: Links per node and layer (M in Malkov and Yashunin, arXiv:1603.09320).
        ef_construction: Candidates considered when a node is linked.
        ef_search: Candidates that a search considers first; it goes on until answers settle.
    """

    m: int = 32
    ef_construction: int = 80
    ef_search: int = 128

    def __post_init__(self) -> None:
        for name, least in (("m", 2), ("ef_construction", 1), ("ef_search", 1)):
            if getattr(self, name) < least:
                shown = "hnsw_m" if name == "m" else name
                raise InputError(f"{shown} is {getattr(self, name)}; it must be at least {least}")


def memory_bytes() -> int:
    """Memory of the machine, or of the container where that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
    for path in map(Path, limits):
        try:
            total = min(total, int(path.read_text()))
        except (OSError, ValueError):
            # Not Linux, or no limit.
            continue
    return total


def index_bytes(layout: Layout, count: int, *, dim: int, m: int) -> int:
    """What an index of `count` vectors takes in memory, and about what on disk."""
    # Twice M links in the lowest layer and a little above it.
    graph = 8 * m + 8 * m // max(m - 1, 1) + 12
    coarse = 4 * dim * _lists(count) + 4 * dim * dim
    per = {
        "flat": 4 * dim,
        "hnsw": 4 * dim + graph,
        "sq8": dim + graph,
        "ivfpq": -(-dim // _PER_BYTE) + 8,
        "gpu": 2 * dim,
    }[layout]
    # Nine bytes say which record a position holds and whether it lives.
    return count * (per + 9) + (coarse if layout == "ivfpq" else 0)


def choose(
    count: int, *, dim: int, m: int, threshold: int, memory: int, now: Layout = "flat"
) -> Layout:
    """The layout for a number of vectors: the most accurate that is fast and fits.

    Args:
        count: Vectors.
        dim: Their length.
        m: Links per node of HNSW.
        threshold: Up to this many are searched exactly.
        memory: Bytes of the machine; an index may take half.
        now: What there is. It stays until much less would do, for building takes long.
    """
    order: tuple[Layout, ...] = ("flat", "hnsw", "sq8", "ivfpq")
    for layout in order:
        slack = _BACK if now in order and order.index(layout) < order.index(now) else 1.0
        if layout == "flat":
            fits = count <= slack * threshold
        else:
            needed = index_bytes(layout, count, dim=dim, m=m)
            fits = needed <= slack * _MEMORY_SHARE * memory
        if fits:
            return layout
    return "ivfpq"


def checked(choice: str) -> LayoutChoice:
    """A choice of the user's.

    Raises:
        InputError: There is no such layout.
    """
    if choice not in get_args(LayoutChoice):
        raise InputError(f"index is {choice!r}; allowed: {', '.join(get_args(LayoutChoice))}")
    return cast("LayoutChoice", choice)


def describe(layout: Layout, count: int, *, dim: int, tuning: Tuning, memory: int) -> str:
    """What searches and why, for people."""
    name = {
        "flat": "flat",
        "hnsw": f"HNSW (M={tuning.m})",
        "sq8": f"HNSW over 8-bit vectors (M={tuning.m})",
        "ivfpq": f"IVF-PQ ({_lists(count):,} lists)",
        "gpu": "exact on the GPU",
    }[layout]
    size = _size(index_bytes(layout, count, dim=dim, m=tuning.m))
    where = "" if layout == "gpu" else f" of {_size(memory)}"
    return f"{name}: {count:,} vectors, {size}{where}"


class FaissIndex:
    """A FAISS index on inner products.

    Args:
        layout: Any but `gpu`.
        dim: Length of the vectors.
        tuning: How it is built and searched.
        expected: Vectors it is made for; decides the number of lists.
        sample: Vectors (n, dim) to learn from; needed by `sq8` and `ivfpq`, at least
            `LEAST_TRAINING` of them.
    """

    def __init__(
        self, layout: Layout, *, dim: int, tuning: Tuning, expected: int, sample: Matrix
    ) -> None:
        self.layout, self.dim, self._tuning = layout, dim, tuning
        if layout == "flat":
            self.raw = faiss.IndexFlatIP(dim)
        elif layout == "hnsw":
            self.raw = faiss.IndexHNSWFlat(dim, tuning.m, faiss.METRIC_INNER_PRODUCT)
        elif layout == "sq8":
            kind = faiss.ScalarQuantizer.QT_8bit
            self.raw = faiss.IndexHNSWSQ(dim, kind, tuning.m, faiss.METRIC_INNER_PRODUCT)
            quantizer = faiss.downcast_index(self.raw.storage).sq
            # Later vectors may reach a little further than those learnt from.
            quantizer.rangestat, quantizer.rangestat_arg = faiss.ScalarQuantizer.RS_minmax, 0.1
        else:
            self.raw = _ivfpq(dim, min(_lists(expected), len(sample)))
        if layout in ("hnsw", "sq8"):
            self.raw.hnsw.efConstruction = tuning.ef_construction
        if layout in TRAINING:
            self._train(sample)

    @classmethod
    def read(cls, path: Path, layout: Layout, *, tuning: Tuning, mapped: bool) -> FaissIndex:
        """An index from a file; `mapped` reads from disk what a search touches, and cannot grow.

        Raises:
            RuntimeError: FAISS cannot read it.
        """
        made = cls.__new__(cls)
        flags = 0
        if mapped:
            # Inverted lists have a mapping of their own, which is older.
            flags = faiss.IO_FLAG_MMAP if layout == "ivfpq" else faiss.IO_FLAG_MMAP_IFC
        made.raw = faiss.read_index(str(path), flags)
        made.layout, made.dim, made._tuning = layout, made.raw.d, tuning
        return made

    def write(self, path: Path) -> None:
        """Writes it to a file.

        Raises:
            RuntimeError: It cannot be written.
        """
        faiss.write_index(self.raw, str(path))

    @property
    def again(self) -> int:
        """How many times more candidates than wanted should be compared exactly."""
        return _AGAIN[self.layout]

    @property
    def compacts(self) -> bool:
        """Removing closes the gap; elsewhere the store has to remember what is dead."""
        return self.layout == "flat"

    def __len__(self) -> int:
        return int(self.raw.ntotal)

    def _train(self, sample: Matrix) -> None:
        # With faiss-gpu instead of faiss-cpu the lists' centres, most of the work, are found there.
        if self.layout != "ivfpq" or not faiss.get_num_gpus():
            self.raw.train(sample)
            return
        assigner = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(self.dim))
        self._inverted().clustering_index = assigner
        self.raw.train(sample)
        self._inverted().clustering_index = None

    def add(self, vectors: Matrix) -> None:
        """Appends vectors (n, dim)."""
        self.raw.add(np.ascontiguousarray(vectors))

    def keep(self, mask: Mask) -> None:
        """Drops all but the positions where `mask` is true; flat only."""
        self.raw.remove_ids(np.flatnonzero(~mask))

    def vectors(self) -> Matrix | None:
        """What was added, without a copy and valid until the index changes; none: quantised."""
        if self.layout not in ("flat", "hnsw"):
            return None
        if not len(self):
            return np.empty((0, self.dim), dtype=np.float32)
        flat = faiss.downcast_index(self.raw.storage if self.layout == "hnsw" else self.raw)
        view = faiss.rev_swig_ptr(flat.get_xb(), len(self) * self.dim)
        return cast("Matrix", view.reshape(len(self), self.dim))

    def scan(self, query: Vector, wanted: int, keep: Mask) -> tuple[Positions, Matrix]:
        """Like `search`, but looks at every vector of `keep`."""
        selector = _selector(keep)
        if self.layout == "ivfpq":
            return self._lists_near(query, wanted, selector, probes=self._inverted().nlist)
        whole = self.raw if self.layout == "flat" else faiss.downcast_index(self.raw.storage)
        return _found(
            whole.search(query[None], wanted, params=faiss.SearchParameters(sel=selector))
        )

    def search(self, query: Vector, wanted: int, keep: Mask | None) -> tuple[Positions, Matrix]:
        """Positions and scores of the best, best first.

        A graph or a few lists are searched wider and wider until the answers settle, because how
        far to look depends on the query: texts lie far from all pictures, and vectors without
        clusters have no neighbourhoods.

        Args:
            query: Unit vector (dim,).
            wanted: How many, at least 1 and at most the vectors there are.
            keep: Positions that may be found; none: all.
        """
        selector = None if keep is None else _selector(keep)
        if self.layout == "flat":
            parameters = faiss.SearchParameters(sel=selector)
            return _found(self.raw.search(query[None], wanted, params=parameters))
        # FAISS counts what a selector forbids, so a filtered search has to look further.
        share = 1.0 if keep is None else max(float(keep.mean()), 1e-6)
        width, widest = max(self._tuning.ef_search, wanted), max(_WIDEST, 2 * wanted)
        if self.layout == "ivfpq":
            width, widest = _WIDEST // _FIRST_LISTS, _WIDEST
        last: tuple[Positions, Matrix] | None = None
        while True:
            found = self._once(query, wanted, selector, width=int(width / share))
            settled = last is not None and _settled(last[0], found[0])
            if width >= widest or (settled and found[0].size == wanted):
                return found
            last, width = found, 2 * width

    def _once(
        self, query: Vector, wanted: int, selector: Any, *, width: int
    ) -> tuple[Positions, Matrix]:
        if self.layout == "ivfpq":
            lists = self._inverted().nlist
            return self._lists_near(
                query, wanted, selector, probes=max(1, min(lists, lists * width // _WIDEST))
            )
        parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=width)
        return _found(self.raw.search(query[None], wanted, params=parameters))

    def _lists_near(
        self, query: Vector, wanted: int, selector: Any, *, probes: int
    ) -> tuple[Positions, Matrix]:
        inner = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        parameters = faiss.SearchParametersPreTransform(index_params=inner)
        return _found(self.raw.search(query[None], wanted, params=parameters))

    def _inverted(self) -> Any:
        return faiss.downcast_index(self.raw.index)


class GpuIndex:
    """`TorchSearch` behind the methods of `FaissIndex`: exact, and nothing to train.

    Args:
        dim: Length of the vectors.
        expected: Vectors to make room for.
        device: A torch device; none: the first GPU if there is one.

    Raises:
        StoreError: The device is missing or too small.
    """

    layout: Layout = "gpu"
    again = 1
    compacts = True

    def __init__(self, *, dim: int, expected: int, device: str | None = None) -> None:
        from secondglance.retrieve.torch_search import TorchSearch

        self._held = TorchSearch(dim=dim, device=device)
        self._held.reserve(expected)

    def __len__(self) -> int:
        return len(self._held)

    def add(self, vectors: Matrix) -> None:
        """Appends vectors (n, dim)."""
        self._held.add(np.ascontiguousarray(vectors))

    def keep(self, mask: Mask) -> None:
        """Drops all but the positions where `mask` is true."""
        self._held.keep(mask)

    def vectors(self) -> Matrix | None:
        """None: they are on the device, and rounded."""
        return None

    def scan(self, query: Vector, wanted: int, keep: Mask) -> tuple[Positions, Matrix]:
        """As `search`, which always looks at all."""
        return self.search(query, wanted, keep)

    def search(self, query: Vector, wanted: int, keep: Mask | None) -> tuple[Positions, Matrix]:
        """Positions and scores of the best, best first."""
        scores, found = self._held.search(query[None], wanted, mask=keep)
        real = scores[0].isfinite()
        return found[0][real].cpu().numpy(), scores[0][real].cpu().numpy()


def _lists(count: int) -> int:
    """As FAISS advises: a small multiple of the root."""
    return int(max(1, min(65_536, 4 * np.sqrt(count), count / 39)))


def _ivfpq(dim: int, lists: int) -> Any:
    """Inverted lists of product-quantised vectors, turned at random beforehand.

    A random rotation spreads the variance over the parts. One that is learnt (OPQ) found no more
    among the candidates, which are compared exactly afterwards, for three times the training.
    """
    parts = next(n for n in range(max(1, dim // _PER_BYTE), 0, -1) if dim % n == 0)
    rotation = faiss.RandomRotationMatrix(dim, dim)
    rotation.init(0)
    coarse = faiss.IndexFlatIP(dim)
    inner = faiss.IndexIVFPQ(coarse, dim, lists, parts, _BITS, faiss.METRIC_INNER_PRODUCT)
    inner.pq.cp.max_points_per_centroid, inner.pq.cp.niter = 64, 8
    # FAISS prints a warning where a small sample is all there is.
    for settings in (inner.pq.cp, inner.cp):
        settings.min_points_per_centroid = 1
    return faiss.IndexPreTransform(rotation, inner)


def _selector(keep: Mask) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(keep, bitorder="little"))


def _found(answer: tuple[Matrix, Positions]) -> tuple[Positions, Matrix]:
    scores, positions = answer
    # FAISS pads short answers with -1.
    real = positions[0] >= 0
    return positions[0][real], scores[0][real]


def _settled(before: Positions, after: Positions) -> bool:
    new = np.setdiff1d(after, before, assume_unique=True).size
    return new <= _UNSETTLED * after.size


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
