"""What an explanation says: the parts of a result that its score depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import InputError
from secondglance.types import Kind, clock

if TYPE_CHECKING:
    from PIL import Image
    from rich.text import Text

OPACITY = 0.75
"""Of the strongest effect in an overlay."""
FAINT = 0.15
"""Effects below this share of the strongest are not marked in a text."""
DIVERGING, RISING = "berlin", "inferno"
"""Colour maps of matplotlib in which equal steps look equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordEffect:
    """A word, or a stretch of words, and what the score owes to it.

    Attributes:
        start: First character in its text.
        end: Behind its last character.
        text: The words.
        effect: Log-odds lost when it is left out; negative if the score rises then.
        part: Which of several texts it stands in, from 0.
    """

    start: int
    end: int
    text: str
    effect: float
    part: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """A picture, or a frame of a clip, as a grid of cells.

    Attributes:
        rows: Of the grid, from the top.
        cols: Of the grid, from the left.
        effects: Log-odds lost when a cell is hidden: `rows` tuples of `cols` numbers.
        width: Of the picture that was looked at, upright, in pixels.
        height: The same.
        at_s: Time of the frame in its video, in seconds; None for pictures, and where unknown.
    """

    rows: int
    cols: int
    effects: tuple[tuple[float, ...], ...]
    width: int
    height: int
    at_s: float | None = None

    @property
    def peak(self) -> tuple[float, float]:
        """Middle of the cell with the strongest effect: x and y, 0 to 1 from the top left."""
        row, col = np.unravel_index(int(np.argmax(self.effects)), (self.rows, self.cols))
        return (float(col) + 0.5) / self.cols, (float(row) + 0.5) / self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the second pass scored a pair as it did, as far as leaving parts out tells.

    Attributes:
        kind: Of the result: `image`, `video` or `text`.
        score: Probability of the whole pair, as it was looked at here.
        log_odds: Its logarithm of the odds.
        words: Of the result's text, in order; empty without one.
        regions: Of its picture or frame; None without one.
        query_words: Of the query, in order; empty unless asked for.
        texts: The texts that `words` stand in.
        query: The text that `query_words` stand in.
        id: Record id; empty for a pair that is in no library.
        model: Name of the reranker.
        pairs: How many were scored.
        ms: Milliseconds that it took, without loading models.
        warnings: For the user, one line each.
    """

    kind: Kind
    score: float
    log_odds: float
    words: tuple[WordEffect, ...] = ()
    regions: Regions | None = None
    query_words: tuple[WordEffect, ...] = ()
    texts: tuple[str, ...] = ()
    query: str = ""
    id: str = ""
    model: str = ""
    pairs: int
    ms: float
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line and the HTTP interface."""
        return asdict(self)


def overlay(
    picture: Image.Image, explanation: Explanation, *, negative: bool = False
) -> Image.Image:
    """Draws the regions of an explanation over their picture.

    The stronger the effect, the brighter and the less transparent the colour, from nothing at no
    effect to the strongest one, whatever its size: the numbers are in `regions`.

    Args:
        picture: The picture or frame, upright, in any size.
        explanation: One that has regions.
        negative: Also draw what lowers the score, in blue; what raises it is red then.

    Returns:
        RGB, in the size of `picture`.

    Raises:
        InputError: The explanation has no regions.
    """
    from matplotlib import colormaps
    from PIL import Image

    regions = explanation.regions
    if regions is None:
        raise InputError(
            f"the explanation of this {explanation.kind} has no regions to draw",
            remedy="regions are found in pictures and clips; a text has words",
        )
    effects = np.asarray(regions.effects, dtype=np.float32)
    if not negative:
        effects = np.maximum(effects, 0)
    strongest = float(np.abs(effects).max())
    base = picture.convert("RGB")
    if strongest == 0:
        return base
    # Between the middles of cells the map is interpolated: its steps are no edges in the picture.
    smooth = Image.fromarray(effects / strongest).resize(base.size, Image.Resampling.BILINEAR)
    share = np.asarray(smooth, dtype=np.float32)
    place = (share + 1) / 2 if negative else share
    colours = colormaps[DIVERGING if negative else RISING](place)[..., :3]
    heat = Image.fromarray((colours * 255).round().astype(np.uint8))
    veil = Image.fromarray((np.abs(share) * OPACITY * 255).round().astype(np.uint8))
    return Image.composite(heat, base, veil)


def marked(text: str, words: Sequence[WordEffect], *, part: int = 0) -> Text:
    """A text for the terminal: words that raise the score on green, those that lower it on red.

    Args:
        text: The whole text.
        words: Of it; those of another `part` are left alone.
        part: Which text it is.
    """
    from rich.text import Text

    result = Text(text)
    here = [word for word in words if word.part == part]
    strongest = max((abs(word.effect) for word in here), default=0.0)
    for word in here:
        share = abs(word.effect) / strongest if strongest else 0.0
        if share >= FAINT:
            rising = word.effect > 0
            strength = "bold " if share > 0.5 else ""
            ground = "green3" if rising else "indian_red1"
            result.stylize(f"{strength}black on {ground}" if share > 0.5 else
                           f"{'green' if rising else 'red'}", word.start, word.end)  # fmt: skip
    return result


def strongest(explanation: Explanation, *, count: int = 3) -> list[str]:
    """The strongest parts in plain words, one line each: regions, or words."""
    regions = explanation.regions
    if regions is not None:
        cells = [
            (effect, (col + 0.5) / regions.cols, (row + 0.5) / regions.rows)
            for row, effects in enumerate(regions.effects)
            for col, effect in enumerate(effects)
        ]
        at = "" if regions.at_s is None else f" of the frame at {clock(regions.at_s)}"
        return [
            f"{effect:+.2f}  around {x:.0%} from the left, {y:.0%} from the top{at}"
            for effect, x, y in sorted(cells, reverse=True)[:count]
            if effect > 0
        ]
    words = sorted(explanation.words, key=lambda word: -word.effect)[:count]
    return [
        f"{word.effect:+.2f}  {' '.join(word.text.split())}" for word in words if word.effect > 0
    ]


def write_overlay(
    picture: Image.Image, explanation: Explanation, folder: Path, *, negative: bool = False
) -> Path:
    """Writes `overlay` as a PNG into a folder, which is made if need be.

    Raises:
        InputError: The folder cannot be written, or there are no regions.
    """
    target = folder / f"{explanation.id or 'pair'}-why.png"
    drawn = overlay(picture, explanation, negative=negative)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn.save(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    return target
