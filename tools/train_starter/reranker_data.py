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
from tools.train_starter.reranker_facts import Facts, facts
from tools.train_starter.reranker_model import DESCRIBE, STATE, TOKENIZER
from tools.train_starter.reranker_prompts import Prompts, Slot, Words
from tools.train_starter.reranker_seeing import IGNORED, TOKEN, Shown, shown

SQUARE = (192, 192)
PICTURE_SIZES = (SQUARE, SQUARE, SQUARE, (160, 224), (224, 160))
"""(height, width), with equal chances, of pictures that words are compared with."""
CLIP_SIZE = (128, 128)
KINDS = (
    "positive", "random", "object", "colour", "binding", "relation", "count", "size", "place",
    "time", "weather", "motion", "photo",
)  # fmt: skip
SHARES: dict[Task, float] = {
    "text-image": 0.42,
    "text-clip": 0.26,
    "image-image": 0.06,
    "image-clip": 0.05,
    "text-text": 0.09,
    "image-text": 0.04,
    "text-mixed": 0.08,
}
CAPTIONING_SHARES: dict[Task, float] = {"text-image": 0.6, "text-clip": 0.4}
WIDTHS: dict[Task, tuple[int, int]] = {
    "text-image": (160, 192),
    "text-clip": (216, 216),
    "image-image": (144, 192),
    "image-clip": (200, 216),
    "text-text": (184, 184),
    "image-text": (168, 184),
    "text-mixed": (192, 192),
}
"""Tokens that prompts, and those for captions, are padded to; hardly any is longer."""
TEXT_TOLD_FROM = 64
"""Column before which no description of a text begins."""
CAPTIONED = 0.5
"""Share of captions; the others are statements."""


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
        facts: What the queries ask, and what is true.
        queries: So many consecutive pairs share a candidate.
        query: Its pictures, if it has any.
        document: Its pictures, if it has any: one candidate for each `queries` pairs.
        shown: What the document's vision tokens show, if it has pictures.
        caption: Prompts that ask for the document's description, and the description.
        caption_to: (candidates, tokens): what follows each token of these; IGNORED but in the
            description.
        told_from: Column before which no description begins.
    """

    task: Task
    words: Words
    last: Any
    labels: Any
    kinds: Any
    chinese: Any
    facts: Facts
    queries: int = 1
    query: View | None = None
    document: View | None = None
    shown: Shown | None = None
    caption: Words | None = None
    caption_to: Any = None
    told_from: int = 0


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

    def make(
        self, task: Task, *, seed: int, hard: float, picture: tuple[int, int] | None = None
    ) -> Batch:
        """One batch; the same arguments give the same batch.

        Args:
            task: What is compared.
            seed: Of the pairs.
            hard: Share of near-misses among the pairs that do not match.
            picture: Height and width of pictures, if not left to chance.
        """
        rng = random.Random(f"{task} {seed}")
        if picture is None:
            free = self._vary and task in ("text-image", "text-mixed")
            picture = rng.choice(PICTURE_SIZES) if free else SQUARE
        made = pairs(
            task, self._size, seed=seed, split=self._split, hard=hard, queries=self._queries
        )
        firsts = made[:: self._queries]
        query_is, document_is = task.split("-")
        query, query_part = self._view(query_is, [pair.query for pair in made], rng, picture)
        document, document_part = self._view(
            document_is, [pair.document for pair in firsts], rng, picture
        )
        template = self._prompts.template(query_part, document_part)
        texts = [
            [self._text(side(pair).text, rng) for pair in made]
            for side, part in ((_query, query_part), (_document, document_part))
            if any(isinstance(piece, Slot) for piece in part)
        ]
        if texts:
            words, last, _ = self._prompts.fill(template, texts, width=WIDTHS[task][0])
        else:
            words, last, _ = self._prompts.fixed(template, len(made), width=WIDTHS[task][0])
        batch = Batch(
            task=task,
            words=words,
            last=last,
            labels=np.array([pair.label for pair in made], dtype=np.float32),
            kinds=np.array([KINDS.index(pair.kind) for pair in made]),
            chinese=np.array([pair.language == "zh" for pair in made]),
            facts=facts(made),
            queries=self._queries,
            query=query,
            document=document,
        )
        if document is not None:
            batch.shown = shown(
                document.sprites, document.backdrop, height=document.height, width=document.width
            )
        self._caption(batch, firsts, document_part, rng)
        return batch

    def _caption(
        self, batch: Batch, made: Sequence[Pair], document: Any, rng: random.Random
    ) -> None:
        """Captions or statements. The text of a document with pictures is left out."""
        pictured = [piece for piece in document if not isinstance(piece, Slot)]
        template = self._prompts.template([Slot()], pictured or document)
        exchanges = [
            (DESCRIBE[pair.language], pair.caption)
            if rng.random() < CAPTIONED or not pair.statement
            else (f"{STATE[pair.language]} {pair.topic}", pair.statement)
            for pair in made
        ]
        asks = [ask for ask, _ in exchanges]
        texts = [asks] if pictured else [asks, [pair.document.text for pair in made]]
        words, asked, last = self._prompts.fill(
            template,
            texts,
            answers=[answer for _, answer in exchanges],
            width=WIDTHS[batch.task][1],
        )
        place = np.arange(words.ids.shape[1])
        told = (place >= asked[:, None]) & (place < last[:, None])
        batch.caption = words
        batch.told_from = int(asked.min()) // 8 * 8 if pictured else TEXT_TOLD_FROM
        batch.caption_to = np.where(told, np.roll(words.ids, -1, axis=1), IGNORED)

    def _view(
        self, kind: str, sides: Sequence[Side], rng: random.Random, picture: tuple[int, int]
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
            height, width = picture
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
        # Few: what is made shall follow what is asked for within seconds.
        self._queue: Any = spawn.Queue(maxsize=max(4, count // 2))
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
