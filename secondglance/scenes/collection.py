"""A folder of generated media with queries and judgments: something to search and to measure on.

Every target stands among near-misses: scenes that differ from it in one fact its query states.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from secondglance.errors import InputError
from secondglance.scenes.drawing import CLIP_S, STILL_S, Drawing, draw
from secondglance.scenes.edit import differences, near_miss
from secondglance.scenes.examples import say, true_plan
from secondglance.scenes.media import rendered
from secondglance.scenes.plan import Plan, contradicts, full_plan, partial_plan
from secondglance.scenes.scene import SPLIT_SHARES, Scene, sample
from secondglance.scenes.vocabulary import Difference, Language, Split

if TYPE_CHECKING:
    from secondglance.scenes.render import Renderer

Medium: TypeAlias = Literal["picture", "clip", "text"]
Progress: TypeAlias = Callable[[int], None]

PICTURE_SIZES = ((384, 384), (448, 320), (320, 448))
"""Width and height in pixels."""
CLIP_SIDE = 256
CLIP_FPS = 12
JPEG_QUALITY = 90
LANGUAGES: tuple[Language, ...] = ("en", "zh")
BATCH = 16
MAX_FAMILY = 100
TRIES = 8
"""Draws of one difference before another steps in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file: its scene, and how it differs from its family's target (`target`: not at all)."""

    path: str
    medium: Medium
    scene: Scene
    family: int
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One query, as a line of `queries.jsonl`; `relevant` are paths."""

    id: str
    language: Language | None
    text: str
    image: str
    medium: Medium
    relevant: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What was written: files with their captions (path to language to text), and queries."""

    entries: tuple[Entry, ...]
    captions: dict[str, dict[Language, str]]
    requests: tuple[Request, ...]


def write_collection(
    folder: Path,
    *,
    pictures: int = 300,
    clips: int = 40,
    texts: int = 40,
    family: int = 6,
    image_queries: int = 20,
    split: Split = "test",
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Collection:
    """Writes `pictures/*.jpg`, `clips/*.mp4`, `texts/*.txt` and what is known about them.

    `captions.csv` (`file`, `caption`, `caption_zh`) describes every picture and clip,
    `queries.jsonl` asks for the targets in English, in Chinese and by picture, and `qrels.txt`
    holds the answers in TREC format.

    Args:
        folder: New or empty.
        pictures: How many pictures.
        clips: How many clips.
        texts: How many texts.
        family: How many a target and its near-misses are, at most `MAX_FAMILY`.
        image_queries: How many of the pictures are asked for by another picture of their scene.
        split: Whose combinations of kinds; `test` ones never occur in training.
        seed: The same seed gives the same collection.
        device: Where pictures are rendered.
        progress: Called with the number of media files written since the last call.

    Raises:
        InputError: The folder is not empty, or a number makes no sense.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is not a folder", remedy="name a new folder")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", remedy="name a new folder")
    if min(pictures, clips, texts) < 0 or pictures + clips + texts < 1:
        raise InputError(
            f"cannot make {pictures} pictures, {clips} clips and {texts} texts",
            remedy="ask for at least one file",
        )
    if not 1 <= family <= MAX_FAMILY:
        raise InputError(
            f"cannot make families of {family}", remedy=f"choose a size from 1 to {MAX_FAMILY}"
        )
    if split not in SPLIT_SHARES:
        raise InputError(
            f"unknown split {split!r}", remedy=f"choose one of {', '.join(SPLIT_SHARES)}"
        )
    rng = random.Random(f"collection {split} {seed}")
    entries: list[Entry] = []
    plans: dict[int, Plan] = {}
    media: tuple[tuple[Medium, int], ...] = (
        ("picture", pictures), ("clip", clips), ("text", texts)
    )  # fmt: skip
    for medium, count in media:
        _add_families(entries, plans, medium, count, family, split, rng)
    captions = {
        entry.path: {
            language: say(entry.scene, _told(entry, plans, rng), language, rng)
            for language in LANGUAGES
        }
        for entry in entries
    }
    requests = _requests(entries, plans, image_queries, rng)
    _write(folder, entries, captions, requests, rng, device, progress or (lambda done: None))
    return Collection(entries=tuple(entries), captions=captions, requests=tuple(requests))


def _told(entry: Entry, plans: dict[int, Plan], rng: random.Random) -> Plan:
    """What a caption says; that of a text tells of the relation that its query asks for."""
    keep = true_plan(plans[entry.family], entry.scene) if entry.medium == "text" else None
    return full_plan(entry.scene, rng, keep=keep)


def _add_families(
    entries: list[Entry],
    plans: dict[int, Plan],
    medium: Medium,
    count: int,
    size: int,
    split: Split,
    rng: random.Random,
) -> None:
    suffix = {"picture": "jpg", "clip": "mp4", "text": "txt"}[medium]
    made = 0
    while made < count:
        scene = sample(rng, split=split, moving=medium == "clip")
        plan = partial_plan(scene, rng, fullness=0.9)
        options = list(differences(scene, plan))
        if len(plan.mentions) < 2 or len(options) < min(4, size - 1):
            continue
        if any(
            not contradicts(scene, plan, other.scene)
            or not contradicts(other.scene, plans[other.family], scene)
            for other in entries
            if other.kind == "target"
        ):
            continue
        number = len(plans)
        rng.shuffle(options)
        size_now = min(size, count - made)
        members: list[tuple[str, Scene]] = [
            ("target", scene),
            *_near_misses(scene, plan, options, size_now - 1, split, rng),
        ]
        if len(members) < size_now:
            continue
        plans[number] = plan
        for kind, member in members:
            made += 1
            entries.append(
                Entry(
                    path=f"{medium}s/{made:04d}.{suffix}",
                    medium=medium,
                    scene=member,
                    family=number,
                    kind=kind,
                )
            )


def _near_misses(
    scene: Scene,
    plan: Plan,
    options: list[Difference],
    wanted: int,
    split: Split,
    rng: random.Random,
) -> list[tuple[Difference, Scene]]:
    """Different near-misses of a scene, by each difference in turn; fewer if it has not so many.

    Some facts have one alternative only: once that is taken, the next difference steps in.
    """
    found: list[tuple[Difference, Scene]] = []
    for number in range(wanted):
        first = number % len(options)
        for kind in (d for d in (*options[first:], *options[:first]) for _ in range(TRIES)):
            other = near_miss(scene, plan, kind, rng, split=split)
            if other != scene and all(other != known for _, known in found):
                found.append((kind, other))
                break
        else:
            break
    return found


def _requests(
    entries: Sequence[Entry], plans: dict[int, Plan], image_queries: int, rng: random.Random
) -> list[Request]:
    found = []
    shown = {e.family for e in entries if e.medium == "picture"}
    # A picture does not say whether how things stand to each other matters.
    shown -= {e.family for e in entries if e.kind == "relation"}
    by_image = 0
    for entry in entries:
        if entry.kind != "target":
            continue
        for language in LANGUAGES:
            found.append(
                Request(
                    id=f"{entry.medium}-{entry.family:03d}-{language}",
                    language=language,
                    text=say(entry.scene, plans[entry.family], language, rng),
                    image="",
                    medium=entry.medium,
                    relevant=(entry.path,),
                )
            )
        if entry.family in shown and by_image < image_queries:
            by_image += 1
            name = f"{entry.medium}-{entry.family:03d}-image"
            found.append(
                Request(
                    id=name,
                    language=None,
                    text="",
                    image=f"queries/{name}.jpg",
                    medium=entry.medium,
                    relevant=(entry.path,),
                )
            )
    return found


def _write(
    folder: Path,
    entries: Sequence[Entry],
    captions: dict[str, dict[Language, str]],
    requests: Sequence[Request],
    rng: random.Random,
    device: str,
    progress: Progress,
) -> None:
    from secondglance.scenes.render import Renderer

    renderer = Renderer(device=device)
    for name in ("queries", *(f"{e.medium}s" for e in entries)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    pictures = [(folder / e.path, e.scene) for e in entries if e.medium == "picture"]
    targets = {e.family: e.scene for e in entries if e.kind == "target"}
    asked = [(folder / r.image, targets[int(r.id.split("-")[1])]) for r in requests if r.image]
    _write_pictures(renderer, pictures, rng, progress)
    _write_pictures(renderer, asked, rng, lambda done: None)
    for entry in entries:
        if entry.medium == "clip":
            _write_clip(renderer, folder / entry.path, entry.scene, rng)
            progress(1)
        elif entry.medium == "text":
            both = captions[entry.path]
            (folder / entry.path).write_text(f"{both[rng.choice(LANGUAGES)]}\n", "utf-8")
            progress(1)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "caption", "caption_zh"))
        for entry in entries:
            if entry.medium != "text":
                rows.writerow((entry.path, captions[entry.path]["en"], captions[entry.path]["zh"]))
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        for request in requests:
            row = {"id": request.id, "text": request.text, "image": request.image}
            row |= {"language": request.language or "", "medium": request.medium}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    lines = [f"{r.id} 0 {path} 1\n" for r in requests for path in r.relevant]
    (folder / "qrels.txt").write_text("".join(lines), "utf-8")


def _write_pictures(
    renderer: Renderer,
    wanted: Sequence[tuple[Path, Scene]],
    rng: random.Random,
    progress: Progress,
) -> None:
    from PIL import Image

    drawn: dict[tuple[int, int], list[tuple[Path, Drawing]]] = {s: [] for s in PICTURE_SIZES}
    for path, scene in wanted:
        drawn[rng.choice(PICTURE_SIZES)].append((path, draw(scene, rng)))
    for (width, height), items in drawn.items():
        for start in range(0, len(items), BATCH):
            block = items[start : start + BATCH]
            drawings = [drawing for _, drawing in block]
            pixels = rendered(renderer, drawings, STILL_S, width=width, height=height)[:, 0]
            for (path, _), picture in zip(block, pixels, strict=True):
                Image.fromarray(picture).save(path, quality=JPEG_QUALITY)
            progress(len(block))


def _write_clip(renderer: Renderer, path: Path, scene: Scene, rng: random.Random) -> None:
    import av

    times_s = tuple(frame / CLIP_FPS for frame in range(int(CLIP_S * CLIP_FPS)))
    drawing = draw(scene, rng, times_s=times_s)
    [frames] = rendered(renderer, [drawing], times_s, width=CLIP_SIDE, height=CLIP_SIDE)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS, options={"crf": "20"})
        stream.width = stream.height = CLIP_SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
