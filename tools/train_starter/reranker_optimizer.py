"""The starter reranker's optimizer: Muon for matrices inside the layers, AdamW for the rest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BETAS = (0.9, 0.98)
MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration."""


class Optimizer:
    """Updates weights from their gradient in one row.

    Args:
        matrices: Weights that map hidden states to hidden states.
        others: Embeddings, norms, biases and heads.
        weight_decay: Of matrices.
        fused: One operation for all of AdamW.

    Source: Muon (Jordan et al., 2024), with updates as large as AdamW's (Liu et al., 2025), here
    over all matrices of one shape at once.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        others: Sequence[Tensor],
        *,
        weight_decay: float,
        fused: bool,
    ) -> None:
        self.weights = [*matrices, *others]
        self._decay = weight_decay
        self._adam = torch.optim.AdamW(others, betas=BETAS, weight_decay=0.0, fused=fused)
        self._shapes: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            self._shapes.setdefault(matrix.shape, []).append(matrix)
        self._momenta = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self._shapes.items()
        }

    @torch.no_grad()
    def step(self, gradient: Tensor, *, lr: float, matrix_lr: float) -> None:
        """One update.

        Args:
            gradient: Of `weights`, one after the other.
            lr: Of AdamW.
            matrix_lr: Of Muon.
        """
        parts = torch.split(gradient, [weight.numel() for weight in self.weights])
        for weight, part in zip(self.weights, parts, strict=True):
            weight.grad = part.view_as(weight)
        for shape, group in self._shapes.items():
            grads = torch.stack([weight.grad for weight in group if weight.grad is not None])
            momentum = self._momenta[shape].lerp_(grads, 1 - MOMENTUM)
            update = orthogonal(grads.lerp(momentum, MOMENTUM))
            size = matrix_lr * 0.2 * math.sqrt(max(shape))
            torch._foreach_mul_(group, 1 - matrix_lr * self._decay)
            torch._foreach_add_(group, list(update.unbind()), alpha=-size)
        for settings in self._adam.param_groups:
            settings["lr"] = lr
        self._adam.step()


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all about 1: (n, rows, columns)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    found = matrices.mT if tall else matrices
    found = found / (found.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if found.is_cuda:
        found = found.bfloat16()
    for _ in range(STEPS):
        square = found @ found.mT
        found = a * found + (b * square + c * square @ square) @ found
    straight: Tensor = found.mT if tall else found
    return straight.to(matrices.dtype)
