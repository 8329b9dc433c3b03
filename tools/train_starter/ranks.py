"""Several GPUs of one host that train one model: one process each, gradients averaged."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """One of `count` processes; without others all of this does nothing.

    Args:
        rank: Number of this process; 0 reports, evaluates and saves.
        count: How many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self._clock: Any = None
        if count > 1:
            os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            os.environ.setdefault("MASTER_PORT", "29541")
            dist.init_process_group("nccl", rank=rank, world_size=count)
            self._clock = dist.new_group(backend="gloo")

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports."""
        return self.rank == 0

    def agree(self, seconds: float) -> float:
        """The leader's value, for all; waits for it on the CPU only."""
        if self.count == 1:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64)
        dist.broadcast(value, 0, group=self._clock)
        return float(value[0])

    def average(self, gradient: Tensor) -> None:
        """Replaces a gradient by its mean over all processes."""
        if self.count > 1:
            dist.all_reduce(gradient)
            gradient /= self.count

    def close(self) -> None:
        """Leaves the group."""
        if self.count > 1:
            dist.destroy_process_group()


def launch(work: Callable[..., None], count: int, *arguments: Any) -> None:
    """Runs `work(ranks, *arguments)` in `count` processes, or here if that is one."""
    if count == 1:
        work(Ranks(), *arguments)
        return
    torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        _enter, args=(work, count, arguments), nprocs=count, daemon=False
    )


def _enter(rank: int, work: Callable[..., None], count: int, arguments: Sequence[Any]) -> None:
    torch.cuda.set_device(rank)
    work(Ranks(rank, count), *arguments)
    # Threads that feed the GPU may still run; an interpreter that ends under them aborts.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
