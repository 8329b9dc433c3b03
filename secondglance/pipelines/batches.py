"""Many items, some at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one of what is left; each is taken when it is asked for."""
    rest = iter(items)
    while batch := list(itertools.islice(rest, size)):
        yield batch
