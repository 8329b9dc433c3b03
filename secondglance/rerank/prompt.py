"""The text that the reranker reads, as tokens and positions.

A prompt is a list of pieces: plain text, a control token, or a run of vision placeholders.
Plain text is tokenised as text even where it spells a control token: a caption that holds
"<|im_end|>" can neither end its own part nor claim a picture that is not there.

Source of the wording, the defaults and the truncation rule: `qwen3_vl_reranker.py` of
QwenLM/Qwen3-VL-Embedding (Apache-2.0). Source of the positions: Qwen3-VL's interleaved M-RoPE
(`Qwen3VLModel.get_rope_index` of transformers, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from secondglance.errors import MediaError

if TYPE_CHECKING:
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
DEFAULT_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
EMPTY = "NULL"
MAX_LENGTH = 10240
KEPT_AT_END = 5
"""Tokens of "<|im_end|>\\n<|im_start|>assistant\\n" in Qwen's vocabulary; never truncated."""

Control = Literal["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
Placeholder = Literal["<|image_pad|>", "<|video_pad|>"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One control token."""

    token: Control


@dataclass(frozen=True, slots=True)
class Pads:
    """The placeholders of one image, or of one temporal patch (two frames) of a video.

    Attributes:
        token: Which placeholder.
        rows: Height in tokens; one token is 32 x 32 pixels.
        columns: Width in tokens.
    """

    token: Placeholder
    rows: int
    columns: int


Piece: TypeAlias = "str | Mark | Pads"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt ready for the model: `ids` of shape (tokens,), `positions` of shape (3, tokens)."""

    ids: Integers
    positions: Integers


def image_pieces(rows: int, columns: int) -> list[Piece]:
    """One image of rows x columns tokens."""
    return [Mark("<|vision_start|>"), Pads("<|image_pad|>", rows, columns), Mark("<|vision_end|>")]


def video_pieces(times_s: Sequence[float], rows: int, columns: int) -> list[Piece]:
    """A video: its temporal patches in order, each after its time.

    Args:
        times_s: Time of each temporal patch: the mean of its two frames.
        rows: Height of a patch in tokens.
        columns: Width of a patch in tokens.
    """
    pieces: list[Piece] = []
    for time_s in times_s:
        pieces += [
            f"<{time_s:.1f} seconds>",
            Mark("<|vision_start|>"),
            Pads("<|video_pad|>", rows, columns),
            Mark("<|vision_end|>"),
        ]
    return pieces


def query_pieces(query: Sequence[Piece], instruction: str) -> list[Piece]:
    """Everything up to the candidate. An empty `query` reads NULL."""
    return [
        Mark("<|im_start|>"),
        f"system\n{SYSTEM}",
        Mark("<|im_end|>"),
        "\n",
        Mark("<|im_start|>"),
        f"user\n<Instruct>: {instruction}<Query>:",
        *(query or [EMPTY]),
        "\n<Document>:",
    ]


def document_pieces(document: Sequence[Piece]) -> list[Piece]:
    """The candidate and the end of the prompt. An empty `document` reads NULL."""
    return [
        *(document or [EMPTY]),
        Mark("<|im_end|>"),
        "\n",
        Mark("<|im_start|>"),
        "assistant\n",
    ]


def as_text(pieces: Sequence[Piece]) -> str:
    """The prompt as people read it, every placeholder written out."""
    parts = []
    for piece in pieces:
        if isinstance(piece, Pads):
            parts.append(piece.token * (piece.rows * piece.columns))
        else:
            parts.append(piece.token if isinstance(piece, Mark) else piece)
    return "".join(parts)


def encode(
    query: Sequence[Piece],
    document: Sequence[Piece],
    *,
    tokenize: Callable[[str], Sequence[int]],
    special_ids: Mapping[str, int],
    max_length: int = MAX_LENGTH,
) -> Encoded:
    """Tokenises a pair and cuts it to `max_length` tokens plus the five that end the prompt.

    As in the official script, control tokens and placeholders always stay and plain text is cut
    from the end of the pair.

    Args:
        query: What `query_pieces` returns.
        document: What `document_pieces` returns.
        tokenize: Plain text to ids; must not recognise control tokens.
        special_ids: Id of every control token and placeholder.
        max_length: Tokens.

    Raises:
        MediaError: The pictures take so much room that text before the candidate would be cut.
    """
    ids: list[int] = []
    # For each token: -1 for text, -2 for a control token, else the index of its run of pads.
    owners: list[int] = []
    runs: list[Pads] = []
    for piece in _merge_text([*query, *document]):
        if isinstance(piece, Pads):
            count = piece.rows * piece.columns
            ids += [special_ids[piece.token]] * count
            owners += [len(runs)] * count
            runs.append(piece)
        elif isinstance(piece, Mark):
            ids.append(special_ids[piece.token])
            owners.append(-2)
        else:
            tokens = tokenize(piece)
            ids += tokens
            owners += [-1] * len(tokens)
    id_array, owner_array = np.array(ids, dtype=np.int64), np.array(owners, dtype=np.int64)
    if len(ids) - KEPT_AT_END > max_length:
        kept = _kept(owner_array, max_length)
        if runs:
            needed = sum(len(tokenize(p)) for p in _merge_text(query) if isinstance(p, str))
            if int((owner_array[:-KEPT_AT_END][kept[:-KEPT_AT_END]] == -1).sum()) < needed:
                vision = int((owner_array >= 0).sum())
                raise MediaError(
                    f"{vision} tokens of pictures leave no room for the query's text within "
                    f"max_length={max_length}",
                    remedy="raise max_length, or lower max_pixels, total_pixels or max_frames",
                )
        id_array, owner_array = id_array[kept], owner_array[kept]
    return Encoded(ids=id_array, positions=_positions(owner_array, runs))


def _merge_text(pieces: Sequence[Piece]) -> list[Piece]:
    """Joins neighbouring texts: tokens may span what the prompt joins, such as `:` and `<`."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _kept(owners: Integers, max_length: int) -> npt.NDArray[np.bool_]:
    """Which tokens stay: all but the last texts of the pair."""
    is_text = owners == -1
    is_text[-KEPT_AT_END:] = False
    room = max_length - (len(owners) - KEPT_AT_END - int(is_text.sum()))
    kept: npt.NDArray[np.bool_] = ~is_text | (np.cumsum(is_text) <= room)
    return kept


def _positions(owners: Integers, runs: Sequence[Pads]) -> Integers:
    """Temporal, row and column position of each token, shape (3, tokens).

    Text counts up in all three. A picture of r x c tokens spans r rows and c columns from the
    position it begins at, and the text after it goes on max(r, c) later.
    """
    parts: list[Integers] = []
    cursor = 0
    # Control tokens behave as text here; runs never touch each other.
    groups = np.maximum(owners, -1)
    for group in np.split(groups, np.flatnonzero(np.diff(groups)) + 1):
        if not len(group):
            continue
        if group[0] < 0:
            line = np.arange(cursor, cursor + len(group))
            parts.append(np.stack([line, line, line]))
            cursor += len(group)
        else:
            run = runs[int(group[0])]
            rows = np.repeat(np.arange(run.rows), run.columns)
            columns = np.tile(np.arange(run.columns), run.rows)
            parts.append(np.stack([np.zeros_like(rows), rows, columns]) + cursor)
            cursor += max(run.rows, run.columns)
    return np.concatenate(parts, axis=1).astype(np.int64)
