"""How an explanation should hide parts of a picture to find what the score depends on.

Pointing game on generated scenes: the query names one thing of a picture that shows two to four,
and the strongest cell of the map should lie on it. Ways of hiding differ in what stands there
instead (the mean colour, or the picture out of focus) and in the shape: single cells of a 6 x 6
grid, windows of 2 x 2 cells that overlap, or random masks, as RISE takes them (Petsiuk et al.
2018). `on it` is the share of maps whose peak lies in a box of the thing, `effect on it` how much
of all positive effect does; the boxes fill `area` of the pictures. Ctrl-C reports what was done.

    python benchmarks/explain.py --scenes 100
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from common import report
from PIL import Image, ImageFilter

from secondglance.config import load_settings, read_preset
from secondglance.evaluation.statistics import interval
from secondglance.pipelines.build import open_reranker
from secondglance.rerank.base import Reranker
from secondglance.rerank.occlusion import flat, hide, mean_cost, too_weak, windows
from secondglance.scenes.drawing import draw
from secondglance.scenes.examples import say
from secondglance.scenes.media import rendered
from secondglance.scenes.plan import Mention, Plan
from secondglance.scenes.render import Renderer
from secondglance.scenes.scene import sample
from secondglance.types import Content

SIDE = 192
"""Pixels that the starter reranker sees."""
CELLS = 6
SMOOTH = 32
"""Finer grid on which random masks are compared, a cell being 6 x 6 pixels."""
RANDOM = 49

Boxes = npt.NDArray[np.float32]
Map = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A picture, a query that names one thing in it, and the boxes of that thing."""

    query: Content
    picture: Image.Image
    boxes: Boxes
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way of hiding: the masks of a case, what stands behind them, and the map of the costs."""

    masks: Callable[[Case], npt.NDArray[np.bool_]]
    behind: Callable[[Image.Image], Image.Image]
    mapped: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.float64]], Map] = mean_cost


def out_of_focus(picture: Image.Image) -> Image.Image:
    """The picture, blurred until no shape is left."""
    return picture.filter(ImageFilter.GaussianBlur(SIDE / 10))


def random_masks(case: Case) -> npt.NDArray[np.bool_]:
    """Half of a coarse grid hidden, enlarged and shifted."""
    rng = np.random.default_rng(case.seed)
    cell = SMOOTH // CELLS + 1
    masks = []
    for _ in range(RANDOM):
        coarse = rng.random((CELLS + 2, CELLS + 2)) < 0.5
        fine = np.repeat(np.repeat(coarse, cell, 0), cell, 1)
        top, left = rng.integers(0, cell, 2)
        masks.append(fine[top : top + SMOOTH, left : left + SMOOTH])
    return np.array(masks)


def correlated(masks: npt.NDArray[np.bool_], costs: npt.NDArray[np.float64]) -> Map:
    """What random masks cost that hide a place, compared with those that do not."""
    shown = masks - masks.mean(axis=0)
    return np.asarray(np.tensordot(costs - costs.mean(), shown, axes=1))


CELLS_ONLY, WINDOWS, BOTH = "cells, mean colour", "windows, mean colour", "cells, windows if weak"
"""The last is made of the first two: windows are scored only where no single cell costs much."""
WAYS = {
    CELLS_ONLY: Way(masks=lambda _: windows(CELLS, CELLS, 1), behind=flat),
    "cells, out of focus": Way(masks=lambda _: windows(CELLS, CELLS, 1), behind=out_of_focus),
    WINDOWS: Way(masks=lambda _: windows(CELLS, CELLS, 2), behind=flat),
    "random, out of focus": Way(masks=random_masks, behind=out_of_focus, mapped=correlated),
}


def cases(count: int, reranker: Reranker) -> list[Case]:
    """Test scenes in which the reranker finds what the query names."""
    rng, renderer, found = random.Random(29), Renderer("cpu"), []
    while len(found) < count:
        scene = sample(rng, split="test")
        drawing = draw(scene, rng)
        [pixels] = rendered(renderer, [drawing], (0.0,), width=SIDE, height=SIDE)
        picture = Image.fromarray(pixels[0])
        group = rng.randrange(len(scene.groups))
        plan = Plan(mentions=(Mention(group=group),))
        text = say(scene, plan, rng.choice(("en", "zh")), rng)
        query = Content(texts=(text,))
        score = reranker.score(query, [Content(images=(picture,))])[0].score
        if score is None or score < 0.5:
            continue
        first = sum(g.count for g in scene.groups[:group])
        sprites = drawing.sprites[0, first : first + scene.groups[group].count]
        found.append(Case(query=query, picture=picture, boxes=sprites[:, 2:5], seed=len(found)))
    return found


def inside(boxes: Boxes, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Share of each cell that the boxes cover."""
    fine = np.zeros((SIDE, SIDE))
    for x, y, size in boxes * SIDE:
        top, left = max(round(y - size / 2), 0), max(round(x - size / 2), 0)
        fine[top : max(round(y + size / 2), 0), left : max(round(x + size / 2), 0)] = 1
    edges = [np.arange(n) * SIDE // n for n in shape]
    total = np.add.reduceat(np.add.reduceat(fine, edges[0], 0), edges[1], 1)
    return total / np.add.reduceat(np.add.reduceat(np.ones_like(fine), edges[0], 0), edges[1], 1)


def points_at(found: Map, boxes: Boxes) -> bool:
    """Whether the middle of the strongest cell lies in a box."""
    row, column = np.unravel_index(int(found.argmax()), found.shape)
    x, y = (column + 0.5) / found.shape[1], (row + 0.5) / found.shape[0]
    return any(abs(x - bx) <= size / 2 and abs(y - by) <= size / 2 for bx, by, size in boxes)


@dataclass(slots=True)
class Tally:
    """What one way found, case by case."""

    hits: list[bool] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    strongest: list[float] = field(default_factory=list)
    spent_ms: list[float] = field(default_factory=list)
    pairs: list[int] = field(default_factory=list)

    def add(self, case: Case, found: Map, costs: npt.NDArray[np.float64], spent_ms: float) -> None:
        """Notes one case."""
        positive = np.maximum(found, 0)
        cover = inside(case.boxes, (found.shape[0], found.shape[1]))
        self.hits.append(points_at(found, case.boxes))
        self.shares.append(float((positive * cover).sum() / max(positive.sum(), 1e-9)))
        self.strongest.append(float(costs.max()))
        self.spent_ms.append(spent_ms)
        self.pairs.append(len(costs) + 1)


def play(case: Case, reranker: Reranker, tallies: dict[str, Tally]) -> None:
    """Tries every way on one picture."""
    maps, costs, spent_ms, whole = {}, {}, {}, 0.0
    for name, way in WAYS.items():
        started = time.perf_counter()
        masks, behind = way.masks(case), way.behind(case.picture)
        hidden = [Content(images=(hide(case.picture, behind, mask),)) for mask in masks]
        scored = reranker.score(case.query, [Content(images=(case.picture,)), *hidden])
        whole, *rest = (pair.log_odds or 0.0 for pair in scored)
        costs[name] = np.array([whole - other for other in rest])
        maps[name] = way.mapped(masks, costs[name])
        spent_ms[name] = (time.perf_counter() - started) * 1e3
        tallies[name].add(case, maps[name], costs[name], spent_ms[name])
    if too_weak(costs[CELLS_ONLY], whole):
        both = (maps[CELLS_ONLY] + maps[WINDOWS]) / 2
        together = np.concatenate([costs[CELLS_ONLY], costs[WINDOWS]])
        tallies[BOTH].add(case, both, together, spent_ms[CELLS_ONLY] + spent_ms[WINDOWS])
    else:
        tallies[BOTH].add(case, maps[CELLS_ONLY], costs[CELLS_ONLY], spent_ms[CELLS_ONLY])


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    options = parser.parse_args()
    reranker = open_reranker(load_settings(base=read_preset("starter")).rerank)
    asked = cases(options.scenes, reranker)
    tallies: dict[str, Tally] = defaultdict(Tally)
    done = []
    with contextlib.suppress(KeyboardInterrupt):
        for case in asked:
            play(case, reranker, tallies)
            done.append(case)
            if len(done) % 5 == 0:
                print(f"{len(done)} of {len(asked)}", flush=True)
    rows = []
    for name, tally in tallies.items():
        on_it, share = interval(tally.hits), interval(tally.shares)
        rows.append(
            {
                "way": name,
                "mean pairs": round(float(np.mean(tally.pairs)), 1),
                "on it": f"{on_it.mean:.3f} ({on_it.low:.3f}-{on_it.high:.3f})",
                "effect on it": f"{share.mean:.3f} ({share.low:.3f}-{share.high:.3f})",
                "weakest tenth of peaks": round(float(np.quantile(tally.strongest, 0.1)), 2),
                "median ms": round(float(np.median(tally.spent_ms))),
            }
        )
    report(
        "explain",
        rows,
        scenes=len(done),
        area=round(float(np.mean([inside(c.boxes, (SIDE, SIDE)).mean() for c in done])), 3),
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()
