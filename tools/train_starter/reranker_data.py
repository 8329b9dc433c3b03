"""Batches of judged pairs for the reranker, made by processes of their own.

A batch has one task and one picture size.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secondglance.rerank import prompt
from secondglance.scenes.examples import Pair, Side, Task, clip_times, pairs, stack
from tools.train_starter.reranker_model import DESCRIBE, TOKENIZER
from tools.train_starter.reranker_prompts import Prompts, Slot, Words

TOKEN = 32
"""Side of the square that one vision token stands for, in pixels."""
PICTURE_SIZES = ((192, 192), (192, 192), (160, 224), (224, 160))
"""(height, width), with equal chances."""
CLIP_SIZE = (128, 128)
KINDS = (
    "positive", "random", "object", "colour", "binding", "relation", "count", "size", "place",
    "time", "weather", "motion", "photo",
)  # fmt: skip
SHARES: dict[Task, float] = {
    "text-image": 0.45,
    "text-clip": 0.22,
    "image-image": 0.07,
    "image-clip": 0.05,
    "text-text": 0.08,
    "image-text": 0.05,
    "text-mixed": 0.08,
}
CAPTIONING_SHARES: dict[Task, float] = {"text-image": 0.6, "text-clip": 0.4}


@dataclass(slots=True)
class View:
    """Pictures or clips to render: see `Pictures.frames`."""

    sprites: Any
    backdrop: Any
    times_s: tuple[float, ...]
    height: int
    width: int


@dataclass(slots=True)
class Batch:
    """Pairs of one task.

    Attributes:
        task: Which.
        words: Prompts.
        last: (batch,): place of each prompt's last token.
        labels: (batch,): 1.0 where the pair matches.
        kinds: (batch,): index in `KINDS`.
        chinese: (batch,): whether the texts are Chinese.
        query: Its pictures, if it has any.
        document: Its pictures, if it has any: those of each candidate, which several pairs share.
        rows: (batch,): number of each pair's candidate among these.
        caption: Prompts that ask for the document's description, and the description.
        caption_from: Flat places, in batch x tokens, of the tokens that foretell the next.
        caption_to: The tokens that follow there.
    """

    task: Task
    words: Words
    last: Any
    labels: Any
    kinds: Any
    chinese: Any
    query: View | None = None
    document: View | None = None
    rows: Any = None
    caption: Words | None = None
    caption_from: Any = None
    caption_to: Any = None


class Batches:
    """Makes batches of judged pairs.

    Args:
        prompts: The tokenizer.
        size: Pairs a batch.
        split: Whose scenes.
        vary: Vary the texts' outer form (case, article, full stop) and the picture sizes.
        queries: Pairs that share a candidate.
    """

    def __init__(
        self, prompts: Prompts, *, size: int, split: Any, vary: bool, queries: int = 1
    ) -> None:
        self._prompts = prompts
        self._size = size
        self._split = split
        self._vary = vary
        self._queries = queries

    def make(self, task: Task, *, seed: int, hard: float) -> Batch:
        """One batch; the same arguments give the same batch."""
        rng = random.Random(f"{task} {seed}")
        made = pairs(
            task, self._size, seed=seed, split=self._split, hard=hard, queries=self._queries
        )
        firsts = made[:: self._queries]
        query_is, document_is = task.split("-")
        query, query_part = self._view(query_is, [pair.query for pair in made], rng)
        document, document_part = self._view(document_is, [pair.document for pair in firsts], rng)
        template = self._prompts.template(query_part, document_part)
        texts = [
            [self._text(side(pair).text, rng) for pair in made]
            for side, part in ((_query, query_part), (_document, document_part))
            if any(isinstance(piece, Slot) for piece in part)
        ]
        if texts:
            words, last, _ = self._prompts.fill(template, texts)
        else:
            words, last, _ = self._prompts.fixed(template, len(made))
        batch = Batch(
            task=task,
            words=words,
            last=last,
            labels=np.array([pair.label for pair in made], dtype=np.float32),
            kinds=np.array([KINDS.index(pair.kind) for pair in made]),
            chinese=np.array([pair.language == "zh" for pair in made]),
            query=query,
            document=document,
            rows=np.arange(len(made)) // self._queries,
        )
        if document is not None:
            self._caption(batch, firsts, document_part, rng)
        return batch

    def _caption(
        self, batch: Batch, made: Sequence[Pair], document: Any, rng: random.Random
    ) -> None:
        """The document's text, if any, is left out: its pictures shall speak."""
        shown = [piece for piece in document if not isinstance(piece, Slot)]
        template = self._prompts.template([Slot()], shown)
        words, asked, last = self._prompts.fill(
            template,
            [[DESCRIBE[pair.language] for pair in made]],
            answers=[pair.caption for pair in made],
        )
        sizes = last - asked
        start = np.repeat(np.arange(len(made)) * words.ids.shape[1] + asked, sizes)
        step = np.arange(len(start)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        batch.caption = words
        batch.caption_from = start + step
        batch.caption_to = words.ids.reshape(-1)[batch.caption_from + 1]

    def _view(
        self, kind: str, sides: Sequence[Side], rng: random.Random
    ) -> tuple[View | None, list[Any]]:
        """A side's pictures, and its part of the prompt."""
        if kind == "text":
            return None, [Slot()]
        if kind == "clip":
            height, width = CLIP_SIZE
            times_s = clip_times(rng)
            middles = [(a + b) / 2 for a, b in zip(times_s[::2], times_s[1::2], strict=True)]
            part: list[Any] = [*prompt.video_pieces(middles, height // TOKEN, width // TOKEN)]
        else:
            height, width = rng.choice(PICTURE_SIZES) if self._vary else PICTURE_SIZES[0]
            times_s = (0.0,)
            part = [*prompt.image_pieces(height // TOKEN, width // TOKEN)]
            if kind == "mixed":
                part.append(Slot())
        sprites, backdrop = stack([side.drawing for side in sides if side.drawing is not None])
        return View(sprites, backdrop, times_s, height, width), part

    def _text(self, text: str, rng: random.Random) -> str:
        if not self._vary:
            return text
        latin = text.isascii()
        if latin and rng.random() < 0.15:
            first, _, rest = text.partition(" ")
            text = rest if first in ("a", "an") else text
        if latin and rng.random() < 0.2:
            text = text[0].upper() + text[1:]
        if rng.random() < 0.12:
            text += "." if latin else "。"
        return text


class Workers:
    """Processes that make batches.

    Args:
        count: How many processes.
        size: Pairs a batch.
        seed: Of the training pairs.
        judged: Tasks and seeds of the batches to evaluate on, made first.
        judged_size: Pairs in each of those.
        queries: Training pairs that share a candidate.
        tokenizer: Folder of the tokenizer's files.
    """

    def __init__(
        self,
        count: int,
        *,
        size: int,
        seed: int,
        judged: Sequence[tuple[Task, int]] = (),
        judged_size: int = 512,
        queries: int = 4,
        tokenizer: Path = TOKENIZER,
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._queue: Any = spawn.Queue(maxsize=4 * count)
        self._judged_queue: Any = spawn.Queue()
        self._judged: list[Batch] = []
        self._expected = len(judged)
        self._control: Any = spawn.Array("d", [0.0, 0.0])
        # Each process reads the scenes' tables and tokenises on one core.
        os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._processes = [
            spawn.Process(
                target=_work,
                args=(self._queue, self._judged_queue, self._control),
                kwargs={
                    "seed": seed + number,
                    "step": count,
                    "size": size,
                    "judged": list(judged)[number::count],
                    "judged_size": judged_size,
                    "queries": queries,
                    "tokenizer": tokenizer,
                },
                daemon=True,
            )
            for number in range(count)
        ]
        for process in self._processes:
            process.start()

    def steer(self, *, hard: float, captioning: bool) -> None:
        """Share of near-misses, and whether only captions matter, from some batches on."""
        self._control[0], self._control[1] = hard, float(captioning)

    @property
    def waiting(self) -> int:
        """Batches that are ready."""
        return int(self._queue.qsize())

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._queue.get(timeout=300)

    def judged(self) -> list[Batch]:
        """The batches to evaluate on, always the same and in the same order."""
        while len(self._judged) < self._expected:
            self._judged.append(self._judged_queue.get(timeout=300))
        return sorted(self._judged, key=lambda batch: batch.task)

    def close(self) -> None:
        """Ends the processes."""
        for process in self._processes:
            process.terminate()
        for queue in (self._queue, self._judged_queue):
            queue.cancel_join_thread()


def _query(pair: Pair) -> Side:
    return pair.query


def _document(pair: Pair) -> Side:
    return pair.document


def _work(
    queue: Any,
    judged_queue: Any,
    control: Any,
    *,
    seed: int,
    step: int,
    size: int,
    judged: Sequence[tuple[Task, int]],
    judged_size: int,
    queries: int,
    tokenizer: Path,
) -> None:
    prompts = Prompts(tokenizer)
    judges = Batches(prompts, size=judged_size, split="validation", vary=False)
    for task, judged_seed in judged:
        judged_queue.put(judges.make(task, seed=judged_seed, hard=0.85))
    maker = Batches(prompts, size=size, split="train", vary=True, queries=queries)
    rng = random.Random(seed)
    for number in itertools.count(seed, step):
        shares = CAPTIONING_SHARES if control[1] else SHARES
        task = rng.choices(list(shares), list(shares.values()))[0]
        queue.put(maker.make(task, seed=number, hard=control[0]))
