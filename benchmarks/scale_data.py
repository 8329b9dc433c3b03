"""Vectors that resemble CLIP embeddings, for measuring indexes where no real library is at hand.

What is copied from image embeddings of CLIP (Radford et al., arXiv:2103.00020; Liang et al.,
arXiv:2203.02053 on the cone and the gap between modalities):

- all pictures share a direction: the cosine of two random ones is about 0.5;
- they form clusters of very different sizes, within which it is about 0.8;
- few directions carry most of the variance: the spectrum falls as a power of its rank;
- pictures asked for lie among the pictures, texts lie apart from them all: cosines near 0.25.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

CHUNK = 50_000
# Squares of the three parts of a picture's vector, before it is normalised: what all share, what
# its cluster shares, and its own.
SHARED, CLUSTER, OWN = 1.0, 0.6, 0.4
PER_CLUSTER = 200
# Variance of direction i falls as (i + 1) to these powers.
CLUSTER_DECAY, OWN_DECAY = 1.0, 0.5


class ClipLike:
    """A source of vectors; the same arguments give the same ones.

    Args:
        size: How many vectors there are; the number of clusters follows.
        dim: Their length.
        seed: Of the random numbers.
    """

    def __init__(self, size: int, *, dim: int = 512, seed: int = 0) -> None:
        self.size, self.dim, self.seed = size, dim, seed
        random = np.random.default_rng([seed, 0])
        rotation, _ = np.linalg.qr(random.standard_normal((dim, dim)))
        self._rotation = rotation.astype(np.float32)
        self._mean, self._text_mean = self._rotation[0], self._rotation[1]
        clusters = max(1, size // PER_CLUSTER)
        weights = random.lognormal(0, 1, clusters)
        self._weights = weights / weights.sum()
        self._centres = self._coloured(random, clusters, CLUSTER_DECAY, CLUSTER)

    def pictures(self) -> Iterator[Matrix]:
        """All vectors, in chunks of unit vectors (n, dim)."""
        for number, start in enumerate(range(0, self.size, CHUNK)):
            random = np.random.default_rng([self.seed, 1, number])
            yield _unit(self._raw(random, min(CHUNK, self.size - start)) + self._mean)

    def queries(self, count: int) -> Matrix:
        """Unit vectors (count, dim): pictures that are not stored and texts, alternating."""
        random = np.random.default_rng([self.seed, 2])
        made = self._raw(random, count)
        made[0::2] += self._mean
        made[1::2] += 1.5 * self._text_mean
        return _unit(made)

    def _raw(self, random: np.random.Generator, count: int) -> Matrix:
        chosen = random.choice(len(self._centres), size=count, p=self._weights)
        return self._centres[chosen] + self._coloured(random, count, OWN_DECAY, OWN)

    def _coloured(
        self, random: np.random.Generator, count: int, decay: float, variance: float
    ) -> Matrix:
        spectrum = np.arange(1, self.dim + 1) ** -decay
        scales = np.sqrt(variance * spectrum / spectrum.sum()).astype(np.float32)
        made: Matrix = random.standard_normal((count, self.dim), dtype=np.float32) * scales
        return made @ self._rotation.T


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Matrix = np.divide(vectors, lengths, dtype=np.float32)
    return units
