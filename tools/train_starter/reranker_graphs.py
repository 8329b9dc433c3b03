"""Gradients of a batch, replayed as CUDA graphs.

A step is some six thousand small operations, which a processor starts far more slowly than a GPU
runs them. So each layout of batch is recorded once and then replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from secondglance.errors import ModelError
from tools.train_starter.reranker_objective import Inputs, Layout, Objective

TOLERANCE = 0.03
"""Relative difference that gradients of a replay may have: sums in another order, in bfloat16."""
WARM_UPS = 2
TIMED = 3


class Gradients:
    """Losses and gradients of batches.

    Args:
        objective: What is trained.
        weights: Of what.
        device: Where.
    """

    def __init__(
        self,
        objective: Objective,
        weights: Sequence[Tensor],
        device: torch.device,
    ) -> None:
        self._objective = objective
        self._weights = list(weights)
        self._device = device
        self._graphs: dict[Any, _Graph] = {}
        self._pool: Any = None
        self.unrecorded = 0
        """Steps that ran as they are."""

    @property
    def count(self) -> int:
        """Layouts recorded."""
        return len(self._graphs)

    def timed(self) -> Iterator[tuple[str, float]]:
        """Layouts, and milliseconds of their replays when nothing else runs."""
        for (layout, *_), graph in self._graphs.items():
            yield str(layout), graph.milliseconds()

    def record(self, layout: Layout, given: Inputs) -> None:
        """Records the step of a layout, for all batches of these shapes; once is enough.

        Nothing else may use the device meanwhile.

        Raises:
            ModelError: The recorded step gives other gradients than the step itself.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        key = _key(layout, given)
        if key not in self._graphs:
            self._graphs[key] = _Graph(lambda fixed: self._run(layout, fixed), given, self._pool)

    def __call__(self, layout: Layout, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Runs a batch forwards and backwards: as recorded, if its layout was.

        Args:
            layout: Of the batch.
            given: Its tensors; with `weights`, those of the losses.

        Returns:
            The losses and the answers of `Objective`, and the gradient of all weights in one row.
            They are overwritten by the next call.
        """
        graph = self._graphs.get(_key(layout, given))
        if graph is None:
            self.unrecorded += 1
            return self._run(layout, given)
        return graph.replay(given)

    def _run(self, layout: Layout, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(
            self._device.type,
            dtype=torch.bfloat16,
            enabled=self._device.type == "cuda",
            cache_enabled=False,  # what it would keep belongs to one recording
        ):
            loss, told, answers = self._objective(layout, given, given["weights"])
        # It has none for texts only, while only pictures matter.
        found: Sequence[Tensor | None] = [None] * len(self._weights)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, self._weights, allow_unused=True)
        parts = [
            torch.zeros_like(weight).flatten() if part is None else part.flatten()
            for weight, part in zip(self._weights, found, strict=True)
        ]
        return told, answers, torch.cat(parts)


class _Graph:
    """One recorded step."""

    def __init__(
        self,
        run: Callable[[Inputs], tuple[Tensor, Tensor, Tensor]],
        given: Inputs,
        pool: Any,
    ) -> None:
        self._given = {name: value.clone() for name, value in given.items()}
        torch.cuda.synchronize()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                expected = run(self._given)[2].clone()
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._found = run(self._given)
        self._graph.replay()
        off = float((self._found[2] - expected).norm() / expected.norm().clamp_min(1e-12))
        if not off <= TOLERANCE:
            raise ModelError(f"a recorded step's gradients are {off:.3g} off", remedy="--eager")

    def milliseconds(self) -> float:
        """Time of a replay."""
        torch.cuda.synchronize()
        began_s = time.perf_counter()
        for _ in range(TIMED):
            self._graph.replay()
        torch.cuda.synchronize()
        return (time.perf_counter() - began_s) / TIMED * 1000

    def replay(self, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        for name, value in self._given.items():
            value.copy_(given[name], non_blocking=True)
        self._graph.replay()
        return self._found


def _key(layout: Layout, given: Inputs) -> Any:
    return (layout, *((name, value.shape) for name, value in sorted(given.items())))
