"""What the starter CLIP alone tells apart: pictures that differ in a single stated fact.

How often is a full description of a scene nearer to its picture than to that of a near-miss, by
what the near-miss differs in? Chance is one half. The scenes are of the test split.

    python benchmarks/starter_clip.py --pairs 200
"""

from __future__ import annotations

import argparse
import random

from common import report
from PIL import Image

from secondglance.config import read_preset
from secondglance.evaluation.statistics import interval
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.pipelines.builtin import clip_folder
from secondglance.scenes.drawing import STILL_S, draw
from secondglance.scenes.edit import differences, near_miss
from secondglance.scenes.examples import say
from secondglance.scenes.media import rendered
from secondglance.scenes.plan import full_plan
from secondglance.scenes.render import Renderer
from secondglance.scenes.scene import Scene, sample
from secondglance.scenes.vocabulary import DIFFERENCES, Difference

SIDE = 256


def photographed(scenes: list[Scene], renderer: Renderer, rng: random.Random) -> list[Image.Image]:
    """Pictures of scenes."""
    drawings = [draw(scene, rng) for scene in scenes]
    pixels = rendered(renderer, drawings, STILL_S, width=SIDE, height=SIDE)
    return [Image.fromarray(frame) for frame in pixels[:, 0]]


def told_apart(
    embedder: ClipEmbedder, renderer: Renderer, difference: Difference, count: int
) -> list[dict[str, object]]:
    """Accuracy in both languages."""
    rng = random.Random(f"apart {difference}")
    asked = []
    while len(asked) < count:
        scene = sample(rng, split="test")
        plan = full_plan(scene, rng)
        if difference in differences(scene, plan):
            asked.append((scene, plan, near_miss(scene, plan, difference, rng, split="test")))
    right, wrong = (
        embedder.embed_pictures(photographed([row[place] for row in asked], renderer, rng))
        for place in (0, 2)
    )
    rows: list[dict[str, object]] = []
    for language in ("en", "zh"):
        texts = embedder.embed_texts([say(scene, plan, language, rng) for scene, plan, _ in asked])
        hits = (texts * right).sum(1) > (texts * wrong).sum(1)
        value = interval(hits)
        rows.append(
            {
                "difference": difference,
                "language": language,
                "pairs": count,
                "accuracy": f"{value.mean:.3f} ({value.low:.3f}-{value.high:.3f})",
            }
        )
    return rows


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="of each difference")
    options = parser.parse_args()
    settings = read_preset("starter")["recall"]
    embedder = ClipEmbedder(clip_folder(settings["model"]), batch_size=settings["batch_size"])
    renderer = Renderer("cpu")
    rows = [
        row
        for difference in DIFFERENCES
        if difference != "motion"
        for row in told_apart(embedder, renderer, difference, options.pairs)
    ]
    report("starter-clip", rows, pairs=options.pairs)


if __name__ == "__main__":
    main()
