"""Prompts of a whole batch at once.

Nearly all words of a prompt are the same for all pairs of one task and picture size. So what is
constant is tokenised once, by the recipe in `secondglance.rerank.prompt`, and each pair adds its
own texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from secondglance.rerank import prompt
from tools.train_starter.reranker_model import TOKENIZER, load_tokenizer

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int16 | np.int32 | np.int64]

SMALL = np.int16
"""Tokens and places, for the way between processes and to the GPU."""
LENGTH_STEP = 16
"""Prompts are padded to a multiple of so many tokens."""


class Slot:
    """Where each pair has a text of its own."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Tokens that all prompts of a batch share; `positions` (3, n) count from where they begin."""

    ids: Integers
    positions: Integers
    vision: Integers


@dataclass(frozen=True, slots=True)
class Own:
    """A pair's own text, and the constant text that follows it."""

    suffix: str


Template: TypeAlias = "tuple[Fixed | Own, ...]"


@dataclass(slots=True)
class Words:
    """Prompts: `ids` (batch, tokens), `positions` (3, batch, tokens), `spots` (batch, vision)."""

    ids: Any
    positions: Any
    spots: Any


class Prompts:
    """Makes prompts of whole batches.

    Args:
        tokenizer: Folder of the tokenizer's files.
    """

    def __init__(self, tokenizer: Path = TOKENIZER) -> None:
        self.tokenizer = load_tokenizer(tokenizer)
        self.special_ids: dict[str, int] = self.tokenizer.get_vocab()
        self.pad = self.special_ids["<|endoftext|>"]
        self.pads = [self.special_ids[token] for token in ("<|image_pad|>", "<|video_pad|>")]

    def template(
        self, query: Sequence[prompt.Piece | Slot], document: Sequence[prompt.Piece | Slot]
    ) -> Template:
        """Cuts a prompt at its slots.

        What precedes a slot is tokenised without it: it ends in a control token or in ":", which
        never joins the letter or digit that a text begins with. What follows may join it.
        """
        pieces: list[Any] = [
            *prompt.query_pieces(query, prompt.DEFAULT_INSTRUCTION),  # type: ignore[arg-type]
            *prompt.document_pieces(document),  # type: ignore[arg-type]
        ]
        parts: list[Fixed | Own] = []
        run: list[prompt.Piece] = []
        for slot, group in itertools.groupby(pieces, lambda piece: isinstance(piece, Slot)):
            if slot:
                parts.append(Own(suffix=""))
                continue
            run = list(group)
            if parts:
                text = list(itertools.takewhile(lambda piece: isinstance(piece, str), run))
                parts[-1] = Own(suffix="".join(map(str, text)))
                run = run[len(text) :]
            if run:
                parts.append(self._fixed(run))
        return tuple(parts)

    def fill(
        self,
        template: Template,
        texts: Sequence[Sequence[str]],
        *,
        answers: Sequence[str] = (),
        width: int = 0,
    ) -> tuple[Words, Integers, Integers]:
        """Puts each pair's texts into a template.

        Args:
            template: What `template` returns.
            texts: For each slot a text of each pair.
            answers: What follows each prompt, without its end.
            width: Tokens to pad to, if none is longer.

        Returns:
            The prompts, and for each pair the place of the prompt's last token and of the last
            one in all.
        """
        slots = iter(texts)
        cells: list[Fixed | list[Any]] = []
        for part in template:
            if isinstance(part, Fixed):
                cells.append(part)
            else:
                cells.append(self._tokens([text + part.suffix for text in next(slots)]))
        if answers:
            end = [self.special_ids["<|im_end|>"]]
            cells.append([ids + end for ids in self._tokens(answers)])
        batch = next((len(cell) for cell in cells if isinstance(cell, list)), 0)
        return self._lay_out(cells, batch, answered=bool(answers), width=width)

    def fixed(
        self, template: Template, batch: int, *, width: int = 0
    ) -> tuple[Words, Integers, Integers]:
        """Prompts without texts of their own: all alike."""
        cells = [part for part in template if isinstance(part, Fixed)]
        return self._lay_out(cells, batch, answered=False, width=width)

    def _lay_out(
        self, cells: Sequence[Fixed | list[Any]], batch: int, *, answered: bool, width: int
    ) -> tuple[Words, Integers, Integers]:
        lengths = np.zeros(batch, dtype=np.int64)
        for cell in cells:
            lengths += len(cell.ids) if isinstance(cell, Fixed) else [len(ids) for ids in cell]
        if lengths.max() > width:
            width = -(-int(lengths.max()) // LENGTH_STEP) * LENGTH_STEP
        ids = np.full((batch, width), self.pad, dtype=SMALL)
        positions = np.zeros((3, batch, width), dtype=SMALL)
        spots: list[Integers] = []
        rows = np.arange(batch)[:, None]
        offset, cursor = np.zeros((batch, 1), dtype=np.int64), np.zeros((batch, 1), dtype=np.int64)
        asked = lengths - 1
        for number, cell in enumerate(cells):
            if answered and number == len(cells) - 1:
                asked = offset[:, 0] - 1
            if isinstance(cell, Fixed):
                places = offset + np.arange(len(cell.ids))
                ids[rows, places] = cell.ids
                positions[:, rows, places] = cursor + cell.positions[:, None]
                spots.append(offset + cell.vision)
                offset = offset + len(cell.ids)
                cursor = cursor + cell.positions[0, -1] + 1
            else:
                sizes = np.array([len(tokens) for tokens in cell])
                row = np.repeat(np.arange(batch), sizes)
                column = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
                places = offset[row, 0] + column
                ids[row, places] = np.fromiter(itertools.chain.from_iterable(cell), np.int64)
                positions[:, row, places] = cursor[row, 0] + column
                offset, cursor = offset + sizes[:, None], cursor + sizes[:, None]
        placed = np.concatenate(spots, axis=1).astype(SMALL)
        return Words(ids, positions, placed), asked, lengths - 1

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def _fixed(self, pieces: Sequence[prompt.Piece]) -> Fixed:
        encoded = prompt.encode(
            pieces,
            [],
            tokenize=lambda text: self.tokenizer.encode(text, add_special_tokens=False).ids,
            special_ids=self.special_ids,
        )
        vision = np.flatnonzero(np.isin(encoded.ids, self.pads))
        return Fixed(encoded.ids, encoded.positions, vision)
