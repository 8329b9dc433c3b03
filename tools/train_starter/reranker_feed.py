"""Batches on the device with their pixels, made on a stream beside the training."""

from __future__ import annotations

import contextlib
import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tools.train_starter.clip_photos import Photographs, varied
from tools.train_starter.reranker_data import KINDS, Batch, View
from tools.train_starter.reranker_objective import Inputs, Layout, inputs
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_seeing import IGNORED

PHOTOS_AT_ONCE = 96
READY = 4
POOL = 3
"""Large batches that are mixed: consecutive steps shall not have one task."""


class Feed:
    """Moves batches to a device, renders their pictures, and puts photographs among them.

    Args:
        device: Where.
        pictures: What renders.
        photos: Share of candidates that are photographs. Nothing matches them: so the model
            learns to say no to what it has not learned to see, and they stay in the order of the
            first pass.
        seed: Of the photographs and of the order.
    """

    def __init__(
        self, device: torch.device, pictures: Pictures, *, photos: float = 0.0, seed: int = 0
    ) -> None:
        self._device = device
        self._pictures = pictures
        self._share = photos
        self._photos = Photographs(str(device), seed=seed) if photos > 0 else None
        self._choice = random.Random(seed)
        self.idle_s = 0.0
        """How long the training has waited for batches."""
        self._halved = torch.bfloat16 if device.type == "cuda" else torch.float32

    @torch.no_grad()
    def prepare(self, batch: Batch) -> Inputs:
        """Tensors of a batch, pixels among them."""
        given = {name: self._move(value) for name, value in inputs(batch).items()}
        for name, view in (("query", batch.query), ("document", batch.document)):
            if view is not None:
                given[name] = self._frames(view)
        if self._photos is not None and batch.document is not None:
            self._add_photos(batch, given)
        for name in ("query", "document"):
            if name in given:
                given[name] = given[name].to(self._halved)
        return given

    def stream(self, batches: Iterable[Batch], size: int) -> Iterator[tuple[Batch, Inputs]]:
        """Batches of `size` pairs out of larger ones, which are rendered at once.

        Rendering takes as many operations for many pictures as for few.

        Args:
            batches: Whose number of pairs is a multiple of `size`.
            size: Pairs of what is yielded.
        """
        ready: queue.Queue[tuple[Batch, Inputs, Any] | BaseException] = queue.Queue(READY)
        cuda = self._device.type == "cuda"
        beside: Any = torch.cuda.Stream(self._device) if cuda else None  # type: ignore[no-untyped-call]
        if beside is not None:
            beside.wait_stream(torch.cuda.current_stream(self._device))

        def work() -> None:
            try:
                with torch.cuda.stream(beside) if cuda else contextlib.nullcontext():
                    for item in self._mixed(batches, size, beside):
                        ready.put(item)
            except BaseException as error:  # shown to the loop, which would wait for ever
                ready.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            asked_s = time.monotonic()
            found = ready.get(timeout=300)
            self.idle_s += time.monotonic() - asked_s
            if isinstance(found, BaseException):
                raise found
            batch, given, event = found
            if cuda:
                current = torch.cuda.current_stream(self._device)
                current.wait_event(event)
                for tensor in given.values():
                    # Or its memory would be given to the next batch while it is still read.
                    tensor.record_stream(current)
            yield batch, given

    def _mixed(
        self, batches: Iterable[Batch], size: int, beside: Any
    ) -> Iterator[tuple[Batch, Inputs, Any]]:
        waiting: list[tuple[Batch, Inputs, Any]] = []
        most = 0
        for batch in batches:
            given = self.prepare(batch)
            event = beside.record_event() if beside is not None else None
            parts = len(batch.labels) // size
            waiting += [
                (
                    batch,
                    {name: _part(name, value, part, parts) for name, value in given.items()},
                    event,
                )
                for part in range(parts)
            ]
            most = max(most, parts)
            while len(waiting) > (POOL - 1) * most:
                yield waiting.pop(self._choice.randrange(len(waiting)))

    def _move(self, value: Any) -> Tensor:
        # Pinning these would take longer than the copy, which holds up no one but this thread.
        tensor = torch.from_numpy(value).to(self._device)
        return tensor if tensor.is_floating_point() else tensor.long()

    def _frames(self, view: View) -> Tensor:
        return self._pictures.frames(
            view.sprites, view.backdrop, view.times_s, height=view.height, width=view.width
        )

    def _add_photos(self, batch: Batch, given: Inputs) -> None:
        """Puts crops of photographs in the place of some candidates, and of their queries."""
        chosen = torch.rand(len(given["document"]), device=self._device) < self._share
        hit = chosen.repeat_interleave(batch.queries, output_size=len(given["labels"]))
        given["document"] = self._replaced(given["document"], chosen)
        if "query" in given:
            half = torch.rand(len(hit), device=self._device) < 0.5
            given["query"] = self._replaced(given["query"], hit & half)
        given["labels"] = torch.where(hit, 0.0, given["labels"])
        given["kinds"] = torch.where(hit, KINDS.index("photo"), given["kinds"])
        true = given["facts"][:, 1::2]
        given["facts"][:, 1::2] = torch.where(hit[:, None], IGNORED, true)
        # What they show, and how one would describe them, is not known.
        for name in ("caption_to", "shown_kind", "shown_colour", "shown_scenery"):
            given[name] = torch.where(chosen[:, None], IGNORED, given[name])

    def _replaced(self, frames: Tensor, chosen: Tensor) -> Tensor:
        assert self._photos is not None
        crops = self._photos.crops(PHOTOS_AT_ONCE)
        crops = varied(crops, crops[:0])
        crops = F.interpolate(crops, frames.shape[3:], mode="bilinear", antialias=True)
        number = torch.randint(len(crops), (len(frames),), device=frames.device)
        still = crops[number][:, None].expand_as(frames)
        return torch.where(chosen[:, None, None, None, None], still, frames)


def layout(batch: Batch, *, judging: bool, telling: bool) -> Layout:
    """What of a batch is no tensor."""

    def size(view: View | None) -> tuple[int, int] | None:
        return None if view is None else (view.height, view.width)

    return Layout(
        queries=batch.queries,
        query=size(batch.query) if judging else None,
        document=size(batch.document),
        told_from=batch.told_from if telling else 0,
        judging=judging,
        telling=telling and batch.caption is not None,
    )


def wanted(given: Inputs, layout: Layout) -> Inputs:
    """The tensors that a layout reads."""
    names = {name for name in given if name.startswith("shown_")}
    if layout.document is not None:
        names.add("document")
    if layout.judging:
        names |= {"ids", "positions", "spots", "last", "labels", "kinds", "meant", "facts"}
        names |= {"query"} & given.keys()
    if layout.telling:
        names |= {name for name in given if name.startswith("caption_")}
    return {name: given[name] for name in sorted(names)}


def _part(name: str, value: Tensor, part: int, parts: int) -> Tensor:
    """A share of a tensor's rows."""
    rows = 1 if name.endswith("positions") else 0
    size = value.shape[rows] // parts
    return value.narrow(rows, part * size, size)
