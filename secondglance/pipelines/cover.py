"""Cover pictures of a video: sharp frames that show what its title says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from secondglance.config import Settings, load_settings, read_preset
from secondglance.errors import InputError, MediaError, SecondGlanceError
from secondglance.ingest import frame_choice
from secondglance.ingest.frame_choice import FrameChoice
from secondglance.pipelines import second_pass
from secondglance.pipelines.batches import batches
from secondglance.pipelines.build import open_embedder, open_reranker
from secondglance.pipelines.preset import choose_preset
from secondglance.retrieve.fusion import fuse
from secondglance.types import Content, PairScore

logger = logging.getLogger(__name__)

ImageFormat = Literal["jpeg", "png"]
Stage = Literal["look", "load", "recall", "rerank", "write"]

QUALITY_SHARE = 0.1
"""Of sharpness in the score, beside the title: enough to choose among frames that match alike."""
JPEG_QUALITY = 95
BLOCK = 16
"""Full pictures held at once."""
GAP_S = 5.0
"""Covers are this far apart, or half of their even spacing, where there are enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is."""

    stage: Stage
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """One cover that was written.

    Attributes:
        rank: From 1.
        path: The picture.
        time_s: Time of the frame in the video, in seconds.
        score: What covers are ordered by, 0..1: how well it fits the title, and its sharpness
            among the frames of this video.
        recall_score: Cosine of the first pass; None without a title.
        rerank_score: Probability from the second pass; None where it did not score the frame.
        sharpness: See `ingest.frame_quality`; compare within one video.
        brightness: Mean, 0 (black) to 1 (white).
    """

    rank: int
    path: str
    time_s: float
    score: float
    recall_score: float | None
    rerank_score: float | None
    sharpness: float
    brightness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverResult:
    """Covers, best first, and what the user should know."""

    video: str
    title: str
    covers: tuple[Cover, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scored:
    """A frame with what both passes say of it."""

    frame: FrameChoice
    score: float
    recall: float | None = None
    rerank: float | None = None


def cover(
    video: str | Path,
    *,
    out: str | Path,
    title: str = "",
    n: int = 1,
    image_format: ImageFormat = "jpeg",
    rerank: bool = True,
    preset: str | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> CoverResult:
    """Picks the frames of a video that would be its best covers, and writes them in full size.

    Frames all over the video are looked at, each the sharpest around; black, blown out and blurred
    ones and near-duplicates are left out. CLIP compares the others with the title, the second
    pass looks at the best `search.recall` of them. Without a title no model is used, and the
    sharpest frames are taken. Needs no library.

    Args:
        video: The file.
        out: Folder for the pictures; made if it is not there.
        title: What the covers should show, in words.
        n: Covers; fewer if the video has fewer frames, with a warning.
        image_format: `jpeg` at quality 95, or `png`.
        rerank: Whether there is a second pass.
        preset: Which models; None for the best that this machine can run.
        config: A TOML file of settings.
        settings: Overrides, nested like the sections of the settings.
        on_progress: Called as the work goes on.

    Raises:
        InputError: There is no such file, a number makes no sense, or the folder cannot be used.
        MediaError: The video cannot be read.
        ModelError: A model cannot be loaded.
    """
    path, folder, title = Path(video).expanduser(), Path(out).expanduser(), title.strip()
    _check(path, folder, n, image_format)
    chosen, warnings = _settings(preset, config, settings, models=bool(title))
    # Before the video is looked at, which takes a while: a model that is missing is told at once.
    matching = _Matching(path, title, chosen, on_progress) if title else None
    try:
        found = frame_choice.candidates(
            path,
            max_pixels=chosen.ingest.max_pixels,
            on_progress=lambda done, total: on_progress(
                Progress(stage="look", done=done, total=total)
            ),
        )
    except MediaError as error:
        raise MediaError(f"cannot use the video {path}: {error.problem}") from None
    pool, told = _pool(found, n)
    warnings += told
    if matching is not None:
        scored = matching.run(pool, n=n, rerank=rerank)
        warnings += matching.warnings
    else:
        scored = [_Scored(frame=frame, score=0.0) for frame in pool]
    ranked = _with_quality(scored, found, share=QUALITY_SHARE if title else 1.0)
    best = _apart(ranked, n, duration_s=found[-1].time_s)
    on_progress(Progress(stage="write", total=len(best)))
    covers = _write(path, best, folder, image_format, max_pixels=chosen.ingest.max_pixels)
    return CoverResult(video=str(path), title=title, covers=covers, warnings=tuple(warnings))


def _check(path: Path, folder: Path, n: int, image_format: str) -> None:
    if not path.is_file():
        raise InputError(f"there is no video {str(path)!r}", remedy="check the path")
    if n < 1:
        raise InputError(f"n is {n}; it must be at least 1")
    if image_format not in ("jpeg", "png"):
        raise InputError(f"image format {image_format!r} is unknown", remedy="choose jpeg or png")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error


def _settings(
    preset: str | None, config: Path | None, flags: Mapping[str, Any] | None, *, models: bool
) -> tuple[Settings, list[str]]:
    warnings: list[str] = []
    if preset in (None, "auto"):
        asked = load_settings(file=config, flags=flags)
        if not models:
            return asked, warnings
        preset, warnings = choose_preset(asked)
    return load_settings(base=read_preset(str(preset)), file=config, flags=flags), warnings


def _pool(found: Sequence[FrameChoice], n: int) -> tuple[list[FrameChoice], list[str]]:
    """Frames that would do as covers, sharpest first, at least `n` if there are as many."""
    ranked = sorted(found, key=lambda frame: -frame.sharpness)
    good = frame_choice.sharp_and_bright(ranked)
    pool = frame_choice.distinct(good)
    if len(pool) >= n:
        return pool, []
    warnings = []
    others = [f for f in good if f not in pool] + [f for f in ranked if f not in good]
    if others[: n - len(pool)]:
        warnings.append(
            f"only {len(pool)} of {len(found)} frames looked at are sharp, bright and different "
            "enough for a cover: others are taken too"
        )
    pool = [*pool, *others[: n - len(pool)]]
    if len(pool) < n:
        warnings.append(f"{n} covers were asked for, the video has {len(pool)} frames to take")
    return pool, warnings


class _Matching:
    """Compares frames with a title, in two passes."""

    def __init__(
        self, path: Path, title: str, settings: Settings, on_progress: Callable[[Progress], None]
    ) -> None:
        self._path = path
        self._title = title
        self._settings = settings
        self._tell = on_progress
        self.warnings: list[str] = []
        on_progress(Progress(stage="load"))
        self._embedder = open_embedder(settings.recall)

    def run(self, pool: Sequence[FrameChoice], *, n: int, rerank: bool) -> list[_Scored]:
        """Scores of the frames that come into question, at least `n` of them."""
        cosines = self._recall(pool)
        order = sorted(range(len(pool)), key=lambda place: -cosines[place])
        order = order[: max(n, self._settings.search.recall)]
        frames, recall = [pool[i] for i in order], [cosines[i] for i in order]
        second: list[float | None] = [None] * len(frames)
        if rerank and self._settings.rerank.backend != "passthrough":
            second = self._second_pass(frames)
        trusted = any(score is not None for score in second)
        floor = self._settings.search.rerank_floor
        if trusted and (warning := second_pass.no_match(second, floor=floor)):
            self.warnings.append(warning)
            trusted = False
        weight = self._settings.search.rerank_weight
        fused = fuse(
            recall,
            second if trusted else [None] * len(frames),
            rerank_weight=weight if trusted else 0.0,
        )
        return [
            _Scored(frame=frame, score=score, recall=first, rerank=probability)
            for frame, score, first, probability in zip(frames, fused, recall, second, strict=True)
        ]

    def _recall(self, pool: Sequence[FrameChoice]) -> list[float]:
        """Cosine of each frame with the title."""
        embedder = self._embedder
        [wanted] = embedder.embed_texts([self._title])
        cosines: list[float] = []
        for start in range(0, len(pool), embedder.batch_size):
            self._tell(Progress(stage="recall", done=start, total=len(pool)))
            block = pool[start : start + embedder.batch_size]
            vectors = embedder.embed_pictures([frame.preview for frame in block])
            cosines += [float(cosine) for cosine in vectors @ wanted]
        return cosines

    def _second_pass(self, frames: Sequence[FrameChoice]) -> list[float | None]:
        """Probability of each frame; None where there is none."""
        try:
            self._tell(Progress(stage="load"))
            reranker = open_reranker(self._settings.rerank)
            query = Content(texts=(self._title,))
            scores: dict[float, PairScore] = {}
            pictures = frame_choice.frames_at(
                self._path,
                sorted(frame.time_s for frame in frames),
                max_pixels=self._settings.ingest.max_pixels,
            )
            for block in batches(pictures, BLOCK):
                self._tell(Progress(stage="rerank", done=len(scores), total=len(frames)))
                found = reranker.score(query, [Content(images=(picture,)) for _, picture in block])
                scores |= {at: score for (at, _), score in zip(block, found, strict=True)}
        except Exception as error:
            logger.debug("second pass failed", exc_info=True)
            reason = str(error) if isinstance(error, SecondGlanceError) else repr(error)
            self.warnings.append(f"the second pass failed, covers are by CLIP alone: {reason}")
            return [None] * len(frames)
        found_at = [scores.get(frame.time_s) for frame in frames]
        return [score.score if score else None for score in found_at]


def _with_quality(
    scored: Sequence[_Scored], found: Sequence[FrameChoice], *, share: float
) -> list[_Scored]:
    """Best first. Sharpness counts by its place among all frames that were looked at."""
    sharpnesses = np.sort([frame.sharpness for frame in found])
    mixed = []
    for one in scored:
        below = np.searchsorted(sharpnesses, one.frame.sharpness, side="right")
        quality = float(below) / len(sharpnesses)
        mixed.append(replace(one, score=(1 - share) * one.score + share * quality))
    return sorted(mixed, key=lambda one: -one.score)


def _apart(ranked: Sequence[_Scored], n: int, *, duration_s: float) -> list[_Scored]:
    """The best `n` that are some time apart; then, if need be, others, in their order."""
    gap_s = min(duration_s / (2 * n), GAP_S)
    taken: list[_Scored] = []
    for one in ranked:
        if all(abs(one.frame.time_s - other.frame.time_s) >= gap_s for other in taken):
            taken.append(one)
    taken = [*taken, *(one for one in ranked if one not in taken)][:n]
    return sorted(taken, key=lambda one: -one.score)


def _write(
    path: Path,
    best: Sequence[_Scored],
    folder: Path,
    image_format: ImageFormat,
    *,
    max_pixels: int,
) -> tuple[Cover, ...]:
    times_s = sorted(one.frame.time_s for one in best)
    pictures = dict(frame_choice.frames_at(path, times_s, max_pixels=max_pixels))
    suffix = {"jpeg": "jpg", "png": "png"}[image_format]
    options: dict[str, Any] = {"quality": JPEG_QUALITY} if image_format == "jpeg" else {}
    covers = []
    for rank, one in enumerate(best, start=1):
        frame = one.frame
        if frame.time_s not in pictures:
            raise MediaError(f"cannot use the video {path}: its frame at {frame.time_s:g} s broke")
        target = folder / f"{path.stem}-cover-{rank:02}-{_stamp(frame.time_s)}.{suffix}"
        try:
            pictures[frame.time_s].save(target, image_format, **options)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror or error}") from error
        covers.append(
            Cover(
                rank=rank,
                path=str(target),
                time_s=round(frame.time_s, 3),
                score=one.score,
                recall_score=one.recall,
                rerank_score=one.rerank,
                sharpness=frame.sharpness,
                brightness=frame.brightness,
            )
        )
    return tuple(covers)


def _stamp(time_s: float) -> str:
    """A time for file names, which sort by it: 01h02m03.450s, or 02m03.450s."""
    minutes, seconds = divmod(round(time_s, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours:02}h" if hours else "") + f"{minutes:02}m{seconds:06.3f}s"
