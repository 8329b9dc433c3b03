"""How many moments of a video the second pass should look at.

Films of eight generated scenes of four seconds; each question asks for one scene, whose near-misses
stand in the same film: such a film is all of one place and of the same things. Is the right film
the first result, and is it shown at the right moment? Scores of every look are taken once, so the
rules differ in which looks they use only.

    python benchmarks/moments.py --clips 180
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
from common import report

from secondglance import Library, Query
from secondglance.retrieve.fusion import fuse
from secondglance.scenes.collection import Collection, write_collection
from secondglance.types import Content, Hit, VideoClip

SCENE_S = 4.0
SCENES = 8
"""Of a film."""
MOST = 5
"""Moments of a film that are scored."""


@dataclass(frozen=True, slots=True)
class Look:
    """One stretch with both scores; `place` is its rank by recall among those of its film."""

    film: str
    start_s: float
    recall: float
    rerank: float
    place: int


Rule = Callable[[Sequence[Look]], Sequence[Look]]
"""Which looks are taken, of all that were scored, best by recall first."""


def each(most: int) -> Rule:
    """The best `most` moments of every film."""
    return lambda looks: [look for look in looks if look.place < most]


def best_looks(count: int, most: int) -> Rule:
    """The best moments of every film, and no more than `count` of them in all."""
    return lambda looks: [look for look in looks if look.place < most][:count]


def two_rounds(most: int, films: int, weight: float) -> Rule:
    """One moment of every film, then more of the first `films`, as a search does."""

    def choose(looks: Sequence[Look]) -> Sequence[Look]:
        first = [look for look in looks if look.place == 0]
        shown = {look.film for look in ordered(first, weight)[:films]}
        return [
            look for look in looks if look.place == 0 or (look.film in shown and look.place < most)
        ]

    return choose


def ordered(looks: Sequence[Look], weight: float) -> list[Look]:
    """As a search orders films: by their best moment."""
    fused = fuse(
        [look.recall for look in looks], [look.rerank for look in looks], rerank_weight=weight
    )
    ranked = [look for _, look in sorted(zip(fused, looks, strict=True), key=lambda p: -p[0])]
    best: dict[str, Look] = {}
    for look in ranked:
        best.setdefault(look.film, look)
    return [*best.values()]


def write_films(clips: Path, folder: Path, names: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Cuts clips together; returns film and start of each clip."""
    order = [*names]
    mixed = random.Random(7)
    found = {}
    folder.mkdir()
    for number in range(len(order) // SCENES):
        path = folder / f"film-{number:02}.mp4"
        with av.open(str(path), "w") as film:
            stream = film.add_stream("libx264", rate=12, options={"crf": "20", "g": "48"})
            stream.width = stream.height = 256
            stream.pix_fmt = "yuv420p"
            scenes = order[number * SCENES : (number + 1) * SCENES]
            mixed.shuffle(scenes)
            for place, name in enumerate(scenes):
                found[name] = (path.name, place * SCENE_S)
                with av.open(str(clips / name)) as clip:
                    for frame in clip.decode(video=0):
                        pixels = frame.to_ndarray(format="rgb24")
                        film.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            film.mux(stream.encode())
    return found


def looks_at(library: Library, text: str) -> tuple[list[Look], float]:
    """The best moments of every film with both scores, and milliseconds of one look."""
    hits = library.search(Query(text=text), k=5000, recall=5000, rerank=False, group=False).hits
    places: dict[str, int] = {}
    chosen: list[tuple[Hit, int]] = []
    for hit in hits:
        place = places[hit.path] = places.get(hit.path, -1) + 1
        if place < MOST:
            chosen.append((hit, place))
    documents = [
        Content(videos=(VideoClip(path=Path(h.path), start_s=h.start_s, end_s=h.end_s),))
        for h, _ in chosen
    ]
    started = time.perf_counter()
    scores = library._parts.reranker().score(Content(texts=(text,)), documents)
    each_ms = (time.perf_counter() - started) * 1e3 / len(documents)
    return [
        Look(Path(hit.path).name, hit.start_s or 0.0, hit.recall_score, score.score or 0.0, place)
        for (hit, place), score in zip(chosen, scores, strict=True)
    ], each_ms


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=180)
    parser.add_argument("--segment-s", type=float, default=SCENE_S)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        media = Path(temporary) / "media"
        made: Collection = write_collection(
            media, pictures=0, clips=options.clips, texts=0, image_queries=0, seed=0
        )
        where = write_films(media, media / "films", [entry.path for entry in made.entries])
        asked = [r for r in made.requests if r.language == "en" and r.relevant[0] in where]
        settings = {
            "rerank": {"score_cache_mb": 0},
            "ingest": {"segment_s": options.segment_s},
            "store": {"backend": "exact"},
        }
        with Library.open(
            Path(temporary) / "library", preset="starter", settings=settings
        ) as library:
            library.index([media / "films"])
            weight = library.settings.search.rerank_weight
            scored = [(request, *looks_at(library, request.text)) for request in asked]
    films = options.clips // SCENES
    rules: dict[str, Rule] = {f"{n} of each video": each(n) for n in (1, 2, 3, MOST)}
    rules |= {
        "2 of each, as many looks as videos": best_looks(films, 2),
        "3 of each, as many looks as videos": best_looks(films, 3),
        "3 of each, 1.5 looks a video": best_looks(films * 3 // 2, 3),
    }
    rules |= {
        f"1 of each, then {most} of the first {count}": two_rounds(most, count, weight)
        for most, count in ((2, 10), (3, 3), (3, 5), (3, 10), (MOST, 5), (MOST, 10))
    }
    rows = []
    for name, rule in rules.items():
        film_first = moment_first = count = 0
        for request, looks, _ in scored:
            film, start_s = where[request.relevant[0]]
            taken = rule(looks)
            best = ordered(taken, weight)[0]
            count += len(taken)
            film_first += best.film == film
            middle_s = best.start_s + options.segment_s / 2
            moment_first += best.film == film and start_s <= middle_s < start_s + SCENE_S
        rows.append(
            {
                "rule": name,
                "right video first": f"{film_first / len(scored):.3f}",
                "at the right moment": f"{moment_first / len(scored):.3f}",
                "looks": round(count / len(scored), 1),
            }
        )
    each_ms = sorted(ms for *_, ms in scored)[len(scored) // 2]
    report(
        "moments",
        rows,
        films=films,
        scenes_of_a_film=SCENES,
        segment_s=options.segment_s,
        questions=len(scored),
        median_ms_of_a_look=round(each_ms, 1),
    )


if __name__ == "__main__":
    main()
