"""Batches for the starter CLIP, made in worker processes: captioned scenes, and texts to distil."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tools.train_starter.clip_captions import Captions
from tools.train_starter.clip_model import read_tokenizer
from tools.train_starter.clip_teachers import read_sentence_tokenizer

SEED_STEP = 1_000_003
"""Between the seeds of two workers; far more than the batches of a run."""
TEXT_STEP = 8
"""Teachers' texts are padded to a multiple of this, so that few shapes occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneBatch:
    """Captioned scenes.

    Attributes:
        sprites: As `Drawing` has them, stacked, (n, 1, slots, 8) float32.
        backdrop: (n, 4) int64.
        ids: Tokens of the descriptions, (n, context) int64.
        text: Number of the description, (n,) int64: equal for scenes that have the very same one.
    """

    sprites: Tensor
    backdrop: Tensor
    ids: Tensor
    text: Tensor

    def duplicates(self, device: str = "cpu") -> Tensor:
        """Pairs of scenes with the same description, (n, n) bool: these are no negatives."""
        text = self.text.to(device)
        return (text[:, None] == text[None]).fill_diagonal_(False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Texts for the student, (n, context), and what its teacher reads for them, (n, length)."""

    student: Tensor
    teacher: Tensor


class Scenes(IterableDataset[SceneBatch]):
    """Endless `SceneBatch`es.

    Args:
        tokenizer: Folder of the student's tokenizer.
        batch: Scenes in each.
        seed: Of the first worker.
    """

    def __init__(self, tokenizer: Path, *, batch: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._batch = batch
        self._seed = seed

    def __iter__(self) -> Iterator[SceneBatch]:
        from secondglance.scenes.examples import captioned

        tokenizer = read_tokenizer(self._tokenizer)
        seed = self._seed + SEED_STEP * _worker()
        while True:
            seed += 1
            yield scene_batch(captioned(self._batch, seed=seed), tokenizer)


class Texts(IterableDataset[TextBatch]):
    """Endless `TextBatch`es.

    Args:
        folder: Of the sentence encoder, as the preparation wrote it.
        batch: Texts in each.
        seed: Of the first worker.
    """

    def __init__(self, folder: Path, *, batch: int, seed: int) -> None:
        self._folder = folder
        self._batch = batch
        self._seed = seed

    def __iter__(self) -> Iterator[TextBatch]:
        student = read_tokenizer(self._folder / "student")
        teacher = read_sentence_tokenizer(self._folder)
        teacher.enable_padding(pad_id=0, pad_token="[PAD]", pad_to_multiple_of=TEXT_STEP)
        rng = random.Random(self._seed + SEED_STEP * _worker())
        captions = distillation(self._folder, student, rng)
        while True:
            found = [captions.pair() for _ in range(self._batch)]
            yield TextBatch(
                student=_ids(student, [text for text, _ in found]),
                teacher=_ids(teacher, [text for _, text in found]),
            )


def distillation(folder: Path, student: Any, rng: random.Random) -> Captions:
    """The texts that the text tower learns from, with all words its tokenizer knows."""
    from tools.train_starter.clip_prepare import imagenet_texts

    _, lemmas, definitions = imagenet_texts()
    names = [(zh, en) for zh, en in json.loads((folder / "names.json").read_text("utf-8"))]
    words = sorted(word for word in student.get_vocab() if word.isascii() and word.isalpha())
    return Captions(
        lemmas=lemmas,
        definitions=definitions,
        words=[word for word in words if len(word) > 2],
        names=names,
        rng=rng,
    )


def scene_batch(items: list[Any], tokenizer: Any) -> SceneBatch:
    """Stacks what `secondglance.scenes.examples.captioned` gives."""
    from secondglance.scenes.examples import stack

    sprites, backdrop = stack([item.drawing for item in items])
    texts = np.array([item.text for item in items])
    _, number = np.unique(texts, return_inverse=True)
    return SceneBatch(
        sprites=torch.from_numpy(sprites),
        backdrop=torch.from_numpy(backdrop),
        ids=_ids(tokenizer, texts.tolist()),
        text=torch.from_numpy(number),
    )


def loader(source: IterableDataset[Any], *, workers: int) -> Iterator[Any]:
    """Batches made ahead of time by that many processes; 0 makes them in this one."""
    made: DataLoader[Any] = DataLoader(
        source,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )
    return iter(made)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _worker() -> int:
    worker = get_worker_info()
    return worker.id if worker else 0


def _ids(tokenizer: Any, texts: list[str]) -> Tensor:
    return torch.tensor([encoded.ids for encoded in tokenizer.encode_batch(texts)])
