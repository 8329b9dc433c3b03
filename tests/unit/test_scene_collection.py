"""Generated libraries: what is written, what is asked, what is right, and the command for it."""

from __future__ import annotations

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from secondglance.cli.scenes import scenes
from secondglance.errors import InputError
from secondglance.media.video import Video
from secondglance.scenes import collection
from secondglance.scenes.collection import Collection, Entry, write_collection
from secondglance.scenes.drawing import CLIP_S
from secondglance.scenes.edit import near_miss
from secondglance.scenes.plan import Plan
from secondglance.scenes.scene import Scene, composition_split, sample
from tests.commands import run

COUNTS: dict[str, Any] = {"pictures": 6, "clips": 1, "texts": 2, "family": 4, "seed": 1}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collection]:
    folder = tmp_path_factory.mktemp("scenes") / "new" / "media"
    done: list[int] = []
    made = write_collection(folder, **COUNTS, progress=done.append)
    assert sum(done) == 9, "files of media, without queries"
    return folder, made


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def test_media_are_as_many_and_of_the_sizes_promised(written: tuple[Path, Collection]) -> None:
    folder, made = written
    names = [f"pictures/{n:04d}.jpg" for n in range(1, 7)]
    names += ["clips/0001.mp4", "texts/0001.txt", "texts/0002.txt"]
    assert [entry.path for entry in made.entries] == names
    assert all((folder / name).is_file() for name in names)
    for path in folder.glob("pictures/*.jpg"):
        with Image.open(path) as picture:
            assert picture.size in collection.PICTURE_SIZES
    clip = Video(folder / "clips" / "0001.mp4")
    assert clip.frame(0).shape == (256, 256, 3)
    assert clip.duration_s == pytest.approx(CLIP_S, abs=0.1)


def test_families_are_a_target_and_different_near_misses(
    written: tuple[Path, Collection],
) -> None:
    _, made = written
    families: dict[int, list[Entry]] = {}
    for entry in made.entries:
        families.setdefault(entry.family, []).append(entry)
    assert [len(members) for members in families.values()] == [4, 2, 1, 2]
    for members in families.values():
        assert [entry.kind == "target" for entry in members] == [True] + [False] * (
            len(members) - 1
        )
        assert len({repr(entry.scene) for entry in members}) == len(members)
        assert len({entry.medium for entry in members}) == 1
        kinds = {group.kind for group in members[0].scene.groups}
        assert "test" in composition_split(kinds)


def test_captions_tell_of_pictures_and_clips(written: tuple[Path, Collection]) -> None:
    folder, made = written
    with (folder / "captions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [e.path for e in made.entries if e.medium != "text"]
    for row in rows:
        assert row["caption"] == made.captions[row["file"]]["en"]
        assert row["caption_zh"] == made.captions[row["file"]]["zh"]
        assert row["caption"].isascii()
        assert not row["caption_zh"].isascii()
    for path in folder.glob("texts/*.txt"):
        both = made.captions[path.relative_to(folder).as_posix()]
        assert path.read_text("utf-8").rstrip("\n") in both.values()


def test_each_target_is_asked_for_and_judged_right(written: tuple[Path, Collection]) -> None:
    folder, made = written
    asked = [json.loads(line) for line in lines(folder / "queries.jsonl")]
    targets = {entry.family: entry for entry in made.entries if entry.kind == "target"}
    relation = {entry.family for entry in made.entries if entry.kind == "relation"}
    pictures = {family for family, entry in targets.items() if entry.medium == "picture"}
    assert [question["id"] for question in asked] == [request.id for request in made.requests]
    judged = {}
    for line in lines(folder / "qrels.txt"):
        question, iteration, path, grade = line.split(" ")
        assert (iteration, grade) == ("0", "1")
        judged[question] = path
    assert judged.keys() == {question["id"] for question in asked}
    for question in asked:
        medium, family, way = question["id"].split("-")
        assert judged[question["id"]] == targets[int(family)].path
        assert question["medium"] == medium == targets[int(family)].medium
        assert question["language"] == ("" if way == "image" else way)
        assert bool(question["text"]) == (way != "image")
        assert question["text"].isascii() == (way != "zh")
        if way == "image":
            with Image.open(folder / question["image"]) as picture:
                assert picture.size in collection.PICTURE_SIZES
            target = folder / targets[int(family)].path
            assert (folder / question["image"]).read_bytes() != target.read_bytes()
    for way in ("en", "zh"):
        assert sum(question["language"] == way for question in asked) == len(targets)
    # A picture does not say which of its relations matter.
    shown = {int(question["id"].split("-")[1]) for question in asked if question["image"]}
    assert shown == pictures - relation


def test_texts_tell_of_the_relation_that_is_asked_for(tmp_path: Path) -> None:
    made = write_collection(
        tmp_path / "texts", pictures=0, clips=0, texts=120, family=4, image_queries=0, seed=2
    )
    sides = {side: re.compile(rf"\b{side} (of|side of)\b") for side in ("left", "right")}
    asked = [
        (side, made.captions[request.relevant[0]]["en"])
        for request in made.requests
        if request.language == "en"
        for side, words in sides.items()
        if words.search(request.text)
    ]
    assert len(asked) >= 5
    for side, caption in asked:
        assert sides[side].search(caption), caption


def test_the_same_seed_writes_the_same_bytes(
    written: tuple[Path, Collection], tmp_path: Path
) -> None:
    write_collection(tmp_path / "again", **COUNTS)
    first, again = files(written[0]), files(tmp_path / "again")
    assert first == again
    write_collection(tmp_path / "other", pictures=2, clips=0, texts=0, seed=2)
    other = files(tmp_path / "other")
    assert other["queries.jsonl"] != first["queries.jsonl"]
    assert other["pictures/0001.jpg"] != first["pictures/0001.jpg"]


@pytest.mark.parametrize("seed", [0, 1, 11])
def test_large_collections_are_planned_in_finite_time(seed: int) -> None:
    """A fact with one alternative must not be asked for a second one."""
    for size in (6, 50):
        entries: list[Entry] = []
        plans: dict[int, Plan] = {}
        rng = random.Random(f"collection test {seed}")
        for medium in ("picture", "clip", "text"):
            collection._add_families(entries, plans, medium, 200, size, "test", rng)
        assert len(entries) == 600
        assert len({repr(entry.scene) for entry in entries}) == 600


def test_a_fact_with_one_alternative_makes_way_for_others() -> None:
    rng = random.Random(3)
    scene: Scene = sample(rng, split="test")
    plan = Plan(time=True, place=True)
    times = {near_miss(scene, plan, "time", rng).time for _ in range(50)}
    found = collection._near_misses(scene, plan, ["time"], len(times) + 1, "test", rng)
    assert {other.time for _, other in found} == times
    found = collection._near_misses(scene, plan, ["time", "place"], 2 * len(times) + 2, "test", rng)
    assert len(found) == 2 * len(times) + 2
    assert [kind for kind, _ in found][:2] == ["time", "place"]
    assert sum(kind == "place" for kind, _ in found) == len(times) + 2


def test_a_folder_in_use_and_numbers_without_sense_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")
    for folder, message in ((tmp_path, "is not empty"), (kept, "is not a folder")):
        with pytest.raises(InputError, match=f"{message}.*name a new folder"):
            write_collection(folder, pictures=1, clips=0, texts=0)
    new = tmp_path / "new"
    with pytest.raises(InputError, match=r"cannot make -1 pictures.*at least one file"):
        write_collection(new, pictures=-1)
    with pytest.raises(InputError, match="0 pictures, 0 clips and 0 texts"):
        write_collection(new, pictures=0, clips=0, texts=0)
    for family in (0, collection.MAX_FAMILY + 1):
        with pytest.raises(InputError, match=f"families of {family} .*from 1 to"):
            write_collection(new, family=family)
    assert files(tmp_path) == {"kept.txt": b"mine"}


def test_the_command_writes_the_collection_and_says_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few: dict[str, Any] = {"pictures": 2, "clips": 0, "texts": 1, "family": 2, "seed": 9}
    scenes(tmp_path / "media", **few, split="validation", as_json=True)
    asked = lines(tmp_path / "media" / "queries.jsonl")
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(tmp_path / "media"),
        "files": 3,
        "queries": len(asked),
    }
    write_collection(tmp_path / "same", **few, split="validation")
    assert files(tmp_path / "media") == files(tmp_path / "same")


def test_the_command_refuses_in_one_line_with_a_remedy(tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    for options, code, problem, remedy in (
        (("--split", "tset"), 1, "unknown split 'tset'", "one of train, validation, test"),
        (("--family", "1000"), 1, "cannot make families of 1000", "a size from 1 to 100"),
        (("--pictures", "-1"), 2, "--pictures", "greater than or equal to 0"),
    ):
        done = run("scenes", new, *options)
        assert (done.returncode, done.stdout) == (code, "")
        assert problem in done.stderr
        assert remedy in done.stderr
    assert not Path(new).exists()
