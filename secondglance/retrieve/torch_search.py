"""Exact search by inner product in torch: on a GPU in half precision, elsewhere in float32.

A GPU reads its memory so fast that comparing a query with ten million vectors takes milliseconds,
so nothing has to be built, trained or tuned. Needs torch alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from secondglance.errors import InputError, StoreError

if TYPE_CHECKING:
    import torch

# Scores of one chunk are held at once: this many of them, over all queries of a batch.
_SCORES_AT_ONCE = 1 << 28
# The best are first sought among the maxima of groups of this size (see `_top`).
_GROUP = 64
# Products in float16 are rounded to steps of 5e-4, so this many more are scored again in float32.
_AGAIN = 64


class TorchSearch:
    """Vectors on one device, compared with every query.

    In float16 the best candidates are scored again in float32, so that only the rounding of what is
    stored remains: a score of unit vectors is off by less than `error`, and by 1e-5 as a rule.

    Args:
        dim: Length of the vectors.
        device: A torch device; none: the first GPU if there is one.
        precision: How vectors are kept; `auto` is float16 on CUDA and float32 elsewhere.

    Raises:
        StoreError: The device is not there.
    """

    def __init__(
        self,
        *,
        dim: int,
        device: str | None = None,
        precision: Literal["auto", "float16", "float32"] = "auto",
    ) -> None:
        import torch

        if dim < 1:
            raise InputError(f"dim is {dim}; it must be at least 1")
        name = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self.device = torch.empty(0, device=name).device
        except (RuntimeError, AssertionError) as error:
            raise StoreError(
                f"the device {name!r} cannot be used: {str(error).splitlines()[0]}",
                remedy="choose cpu, or cuda on a machine that has a GPU",
            ) from error
        half = precision == "float16" or (precision == "auto" and self.device.type == "cuda")
        self.dtype = torch.float16 if half else torch.float32
        self.dim = dim
        self._count = 0
        self._buffer: torch.Tensor = torch.empty((0, dim), dtype=self.dtype, device=self.device)

    @property
    def error(self) -> float:
        """Bound on what rounding changes in a score of unit vectors."""
        # Numbers of 11 bits are off by 2**-12 of themselves, and smallest ones by a little more.
        return 5e-4 if self.dtype.itemsize == 2 else 1e-5

    @property
    def vectors(self) -> torch.Tensor:
        """What is held, (n, dim), without a copy."""
        return self._buffer[: self._count]

    def __len__(self) -> int:
        return self._count

    def reserve(self, count: int) -> None:
        """Makes room for `count` vectors in all, so that adding them copies nothing.

        Raises:
            StoreError: The device's memory does not suffice.
        """
        import torch

        if count <= len(self._buffer):
            return
        try:
            grown = torch.empty((count, self.dim), dtype=self.dtype, device=self.device)
        except torch.OutOfMemoryError as error:
            needed = count * self.dim * self.dtype.itemsize / 1e9
            raise StoreError(
                f"{count:,} vectors of {self.dim} need {needed:.1f} GB, more than {self.device}"
                " has free",
                remedy="set store.index to auto, which searches on the CPU",
            ) from error
        grown[: self._count] = self._buffer[: self._count]
        self._buffer = grown

    def add(self, vectors: Any) -> None:
        """Appends vectors (n, dim), an array or a tensor; their positions go on from the last."""
        import torch

        added = torch.as_tensor(vectors)
        if added.ndim != 2 or added.shape[1] != self.dim:
            raise InputError(f"vectors have the shape {tuple(added.shape)}; (n, {self.dim}) needed")
        end = self._count + len(added)
        if end > len(self._buffer):
            self.reserve(max(end, len(self._buffer) * 5 // 4))
        self._buffer[self._count : end] = added.to(self.device)
        self._count = end

    def keep(self, mask: Any) -> None:
        """Drops all but the vectors where `mask` (n,) is true; the rest close up in order."""
        import torch

        kept = torch.as_tensor(mask, device=self.device).nonzero()[:, 0]
        step, end = 1 << 18, 0
        # In pieces, for a second copy of all might not fit. No piece reaches what is still unread.
        for start in range(0, len(kept), step):
            piece = self._buffer[kept[start : start + step]]
            self._buffer[end : end + len(piece)] = piece
            end += len(piece)
        self._count = end

    def search(
        self, queries: Any, limit: int, *, mask: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The highest inner products of each query, best first.

        Args:
            queries: Shape (q, dim), an array or a tensor.
            limit: How many are wanted of each; fewer where there are not as many.
            mask: Shape (n,), true where a vector may be found; none: all.

        Returns:
            Scores (q, k) in float32 and positions (q, k) in int64, on the device. What a mask
            forbids has the score -inf.
        """
        import torch

        exactly = torch.as_tensor(queries).to(self.device, torch.float32)
        asked = exactly.to(self.dtype)
        if asked.ndim != 2 or asked.shape[1] != self.dim:
            raise InputError(f"queries have the shape {tuple(asked.shape)}; (q, {self.dim}) needed")
        if limit < 1:
            raise InputError(f"limit is {limit}; it must be at least 1")
        half = self.dtype.itemsize == 2
        wanted = limit + max(limit, _AGAIN) if half else limit
        allowed = None if mask is None else torch.as_tensor(mask, device=self.device)
        scores = torch.empty((len(asked), 0), dtype=torch.float32, device=self.device)
        found = torch.empty((len(asked), 0), dtype=torch.int64, device=self.device)
        step = max(_GROUP, _SCORES_AT_ONCE // max(1, len(asked)) // _GROUP * _GROUP)
        for start in range(0, self._count, step):
            chunk = self._buffer[start : min(start + step, self._count)]
            products = asked @ chunk.T
            if allowed is not None:
                forbidden = ~allowed[start : start + len(chunk)]
                products.masked_fill_(forbidden, float("-inf"))
            best, at = _top(products, wanted)
            scores = torch.cat([scores, best.float()], dim=1)
            found = torch.cat([found, at + start], dim=1)
            if start:
                scores, order = scores.topk(min(wanted, scores.shape[1]), dim=1)
                found = found.gather(1, order)
        if half and self._count:
            forbidden = scores == float("-inf")
            held = self._buffer[found].float()
            scores = torch.einsum("qkd,qd->qk", held, exactly).masked_fill_(forbidden, -torch.inf)
            scores, order = scores.topk(min(limit, scores.shape[1]), dim=1)
            found = found.gather(1, order)
        return scores, found


def _top(scores: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`topk` of (q, n) along the rows, reading them once.

    The `limit` best lie within the `limit` groups with the highest maxima: were one outside, each
    of those groups would hold a score at least as high. So most scores are only looked at once.
    """
    rows, count = scores.shape
    groups = count // _GROUP
    if groups <= 2 * limit:
        best, at = scores.topk(min(limit, count), dim=1)
        return best, at
    import torch

    whole = groups * _GROUP
    grouped = scores[:, :whole].reshape(rows, groups, _GROUP)
    _, chosen = grouped.amax(dim=2).topk(limit, dim=1)
    candidates = grouped.gather(1, chosen[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    inside = torch.arange(_GROUP, device=scores.device)
    places = (chosen[:, :, None] * _GROUP + inside).flatten(1)
    if whole < count:
        rest = torch.arange(whole, count, device=scores.device).expand(rows, -1)
        candidates = torch.cat([candidates, scores[:, whole:]], dim=1)
        places = torch.cat([places, rest], dim=1)
    best, order = candidates.topk(limit, dim=1)
    return best, places.gather(1, order)
