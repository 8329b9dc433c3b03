"""Why a result matched: the words, or the regions of a picture, that its score depends on.

By occlusion through the reranker itself: parts are left out, the pair is scored again, and what the
log-odds lose is the part's effect. It needs nothing of the reranker but its scores, so any will do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secondglance.errors import InputError, MediaError, RerankError
from secondglance.pipelines.batches import batches
from secondglance.pipelines.explanation import Explanation, Regions, WordEffect
from secondglance.rerank import stopping
from secondglance.rerank.clips import read_frames
from secondglance.rerank.leave_out import without, word_costs
from secondglance.rerank.limits import Limits
from secondglance.rerank.occlusion import flat, grid_shape, hide, mean_cost, too_weak, windows
from secondglance.rerank.pictures import read_picture
from secondglance.types import Content, PairScore, VideoClip

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import Image

    from secondglance.rerank.base import Reranker

    Masks = npt.NDArray[np.bool_]

GRID = 6
"""Cells along the longer side of a picture."""
GRIDS = range(2, 17)
WINDOW = 2
"""Cells along a side of the windows that are tried where no single cell costs much."""
MAX_WORDS = 48
"""Stretches of a text that are left out, at most."""
LIMITS = Limits(max_pixels=512 * 512, total_pixels=512 * 1024, max_frames=8, max_listed_frames=8)
"""How much of a picture or clip is looked at: fifty passes over a full one would take too long."""
BATCH = 16
"""Pairs of one call of the reranker; between calls it may be stopped."""
FLAT_EFFECT = 0.5
"""Log-odds; a score that loses less by any part depends on none of them in particular."""
SHIFT = 1.0
"""Log-odds by which a smaller copy may differ before the user is told."""
SURELY = 1e-6
"""Probabilities closer to 0 or 1 say nothing more of log-odds."""


def explain_pair(
    reranker: Reranker,
    query: Content,
    document: Content,
    *,
    instruction: str | None = None,
    grid: int = GRID,
    query_words: bool = False,
    max_words: int = MAX_WORDS,
    limits: Limits = LIMITS,
) -> Explanation:
    """Finds what the score of a pair depends on.

    Words of a text are left out, cells of a picture hidden behind its mean colour, those of a clip
    in all of its frames alike. Long texts are taken in stretches, of which those with the strongest
    effect are looked at more closely. Of several pictures and clips the first picture, or else the
    first clip, is explained.

    Args:
        reranker: Whatever scores pairs. Where it tells probabilities only, these become log-odds.
        query: What is looked for.
        document: The candidate.
        instruction: Replaces the reranker's default instruction.
        grid: Cells along the longer side of a picture; a picture costs up to about two passes a
            cell, in all 37 to 86 of a square one with the default.
        query_words: Whether the words of the query are left out, too; one call each.
        max_words: Passes over a text at most, and as many over the query's words.
        limits: How much of a picture or clip is looked at; larger ones are reduced first.

    Raises:
        InputError: The query or the candidate is empty, a number is out of range, or there is no
            second pass.
        MediaError: The query or the candidate cannot be read.
        RerankError: The second pass failed.
        StoppedError: Whoever asked went away; see `rerank.stopping`.
    """
    started = time.perf_counter()
    _check(reranker, query, document, grid, max_words)
    scorer = _Scorer(reranker, query, instruction)
    small = _Small.of(document, limits)
    whole, *again = scorer.whole([document, small.content] if small.differs else [document])
    base = again[0] if again else whole
    warnings = [*_notes(whole, base), *small.warnings]

    def text_costs(asked: Sequence[tuple[int, int, int]]) -> list[float]:
        return [base - odds for odds in scorer.log_odds(small.without(*at) for at in asked)]

    words = word_costs(document.texts, text_costs, most=max_words)
    regions = None
    if small.frames:
        regions = _regions(scorer, small, base, grid)
    asked_words = []
    if query_words:
        asked_words = _query_words(scorer, query, document, whole, max_words)
    found = Explanation(
        kind="image" if document.images else "video" if document.videos else "text",
        score=_probability(whole),
        log_odds=whole,
        words=_effects(document.texts, words),
        regions=regions,
        query_words=_effects(query.texts, asked_words),
        texts=tuple(document.texts),
        query="\n".join(query.texts),
        model=reranker.name,
        pairs=scorer.pairs,
        ms=round((time.perf_counter() - started) * 1e3, 3),
    )
    return replace(found, warnings=(*warnings, *_doubts(found), *scorer.warnings()))


def _check(
    reranker: Reranker, query: Content, document: Content, grid: int, max_words: int
) -> None:
    if reranker.name == "passthrough":
        raise InputError(
            "there is no second pass to explain: the reranker is passthrough",
            remedy="choose a reranker, for instance --set rerank.backend=qwen3vl",
        )
    if not query:
        raise InputError("the query is empty", remedy="give words, a picture or a clip")
    if not document:
        raise InputError("the candidate is empty", remedy="give a text, a picture or a clip")
    if grid not in GRIDS:
        raise InputError(f"grid is {grid}; it must be {GRIDS.start} to {GRIDS.stop - 1}")
    if max_words < 1:
        raise InputError(f"max_words is {max_words}; it must be at least 1")


class _Scorer:
    """Log-odds of candidates, a batch a call, until it is to stop."""

    def __init__(
        self,
        reranker: Reranker,
        query: Content,
        instruction: str | None,
    ) -> None:
        self._reranker = reranker
        self._query = query
        self._instruction = instruction
        self._errors: list[str] = []
        self._guessed = False
        self.pairs = 0

    def whole(self, documents: Sequence[Content]) -> list[float]:
        """As `log_odds`, but each must have a score.

        Raises:
            MediaError: The candidate cannot be read.
        """
        found = self._call(self._query, documents)
        for pair in found:
            if pair.score is None:
                raise MediaError(f"the candidate cannot be scored: {pair.error}")
        return [self._odds(pair) for pair in found]

    def log_odds(
        self, documents: Iterable[Content], *, query: Content | None = None
    ) -> list[float]:
        """One for each, NaN where there is none; candidates are made as they are needed."""
        found: list[float] = []
        for batch in batches(documents, BATCH):
            found += [self._odds(pair) for pair in self._call(query or self._query, batch)]
        return found

    def warnings(self) -> list[str]:
        """What did not go well."""
        result = []
        if self._errors:
            result.append(
                f"{len(self._errors)} of {self.pairs} pairs could not be scored and were left out: "
                f"{self._errors[0]}"
            )
        if self._guessed:
            result.append(
                "the reranker tells probabilities only: effects are less exact where they are "
                "close to 0 or 1"
            )
        return result

    def _call(self, query: Content, documents: Sequence[Content]) -> list[PairScore]:
        stopping.check()
        found = self._reranker.score(query, documents, instruction=self._instruction)
        if len(found) != len(documents):
            raise RerankError(
                f"the reranker gave {len(found)} scores for {len(documents)} candidates"
            )
        self.pairs += len(found)
        return found

    def _odds(self, pair: PairScore) -> float:
        if pair.log_odds is not None:
            return pair.log_odds
        if pair.score is None:
            self._errors.append(pair.error or "no reason given")
            return math.nan
        self._guessed = True
        share = min(max(pair.score, SURELY), 1 - SURELY)
        return math.log(share / (1 - share))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Small:
    """A candidate with its media in memory, no larger than need be.

    Attributes:
        content: The same candidate.
        differs: Whether its scores may differ, for media were reduced or read in another way.
        frames: The picture, or the frames of the clip, that is explained.
        shown: Which of the frames a person sees.
        at_s: Time of it; None for pictures.
        warnings: For the user.
    """

    content: Content
    differs: bool = False
    frames: tuple[Image.Image, ...] = ()
    shown: int = 0
    at_s: float | None = None
    warnings: tuple[str, ...] = ()

    @staticmethod
    def of(document: Content, limits: Limits) -> _Small:
        """Reads and reduces media.

        Raises:
            MediaError: One cannot be read.
        """
        pictures = [read_picture(source) for source in document.images]
        images = [_reduced(picture, limits.max_pixels) for picture in pictures]
        clips = [_in_memory(clip, limits) for clip in document.videos]
        content = replace(document, images=images, videos=clips)
        resized = any(a.size != b.size for a, b in zip(pictures, images, strict=True))
        small = _Small(content=content, differs=resized or bool(clips))
        count = len(images) + len(clips)
        if count > 1:
            which = "first picture" if images else "first clip"
            small = replace(
                small,
                warnings=(f"of {count} pictures and clips only the {which} is explained",),
            )
        if images:
            return replace(small, frames=(images[0],))
        if not clips:
            return small
        frames, times_s = clips[0].frames, clips[0].times_s or ()
        key_s = document.videos[0].keyframe_s
        # Without a keyframe the middle stands for the clip.
        shown = len(frames) // 2
        if key_s is not None:
            shown = int(np.argmin(np.abs(np.asarray(times_s) - key_s)))
        known = document.videos[0].path is not None or document.videos[0].times_s is not None
        return replace(
            small,
            frames=tuple(frame for frame in frames if not isinstance(frame, Path)),
            shown=shown,
            at_s=float(times_s[shown]) if known else None,
        )

    def without(self, part: int, start: int, end: int) -> Content:
        """The candidate without some characters of one of its texts."""
        texts = list(self.content.texts)
        texts[part] = without(texts[part], start, end)
        return replace(self.content, texts=texts)

    def hidden(self, behind: Sequence[Image.Image], mask: Masks) -> Content:
        """The candidate with cells hidden, in all frames alike."""
        frames = [hide(*pair, mask) for pair in zip(self.frames, behind, strict=True)]
        if self.content.images:
            return replace(self.content, images=(*frames, *self.content.images[1:]))
        first, *others = self.content.videos
        return replace(self.content, videos=(replace(first, frames=frames), *others))


def _reduced(picture: Image.Image, max_pixels: int) -> Image.Image:
    """RGB of at most so many pixels."""
    from PIL import Image

    picture = picture.convert("RGB")
    scale = math.sqrt(max_pixels / (picture.width * picture.height))
    if scale >= 1:
        return picture
    size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _in_memory(clip: VideoClip, limits: Limits) -> VideoClip:
    """The frames that the reranker would see of a clip, with their times."""
    from PIL import Image

    pixels, times_s = read_frames(clip, limits)
    frames = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in pixels]
    return VideoClip(frames=frames, times_s=[float(time_s) for time_s in times_s])


def _regions(scorer: _Scorer, small: _Small, base: float, grid: int) -> Regions:
    picture = small.frames[small.shown]
    rows, cols = grid_shape(*picture.size, grid)
    behind = [flat(frame) for frame in small.frames]

    def costs(masks: Masks) -> list[float]:
        return [base - odds for odds in scorer.log_odds(small.hidden(behind, m) for m in masks)]

    cells = windows(rows, cols, 1)
    found = costs(cells)
    effects = mean_cost(cells, found)
    if too_weak(found, base):
        wider = windows(rows, cols, WINDOW)
        effects = (effects + mean_cost(wider, costs(wider))) / 2
    return Regions(
        rows=rows,
        cols=cols,
        effects=tuple(tuple(float(effect) for effect in row) for row in effects),
        width=picture.width,
        height=picture.height,
        at_s=small.at_s,
    )


def _query_words(
    scorer: _Scorer, query: Content, document: Content, whole: float, most: int
) -> list[tuple[int, int, int, float]]:
    def costs(asked: Sequence[tuple[int, int, int]]) -> list[float]:
        found: list[float] = []
        for part, start, end in asked:
            texts = list(query.texts)
            texts[part] = without(texts[part], start, end)
            found += scorer.log_odds([document], query=replace(query, texts=texts))
        return [whole - odds for odds in found]

    return word_costs(query.texts, costs, most=most)


def _effects(
    texts: Sequence[str], found: Sequence[tuple[int, int, int, float]]
) -> tuple[WordEffect, ...]:
    return tuple(
        WordEffect(part=part, start=start, end=end, text=texts[part][start:end], effect=cost)
        for part, start, end, cost in found
    )


def _probability(log_odds: float) -> float:
    small = math.exp(-abs(log_odds))
    return 1 / (1 + small) if log_odds >= 0 else small / (1 + small)


def _notes(whole: float, base: float) -> list[str]:
    result = []
    if whole < 0:
        result.append(
            f"the second pass finds no match (score {_probability(whole):.2f}): effects tell what "
            "little speaks for it"
        )
    if abs(whole - base) > SHIFT:
        result.append(
            "a reduced copy was looked at, for which the second pass says "
            f"{_probability(base):.2f} instead of {_probability(whole):.2f}: effects are those of "
            "the copy"
        )
    return result


def _doubts(found: Explanation) -> list[str]:
    """What the effects themselves leave in doubt."""
    result = []
    if found.regions and max(map(max, found.regions.effects)) < FLAT_EFFECT:
        result.append(
            f"the score hardly depends on any single region of the {found.kind} (no effect reaches "
            f"{FLAT_EFFECT:g} log-odds)"
        )
    if found.words and max(word.effect for word in found.words) < FLAT_EFFECT:
        result.append(
            "the score hardly depends on any single word of the text (no effect reaches "
            f"{FLAT_EFFECT:g} log-odds)"
        )
    return result
