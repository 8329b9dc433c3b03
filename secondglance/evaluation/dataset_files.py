"""Lists of standard datasets as they are published, and where the files they name lie."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from secondglance.errors import InputError
from secondglance.evaluation.trec import named, read_lines, read_text

DatasetName = Literal["flickr30k", "coco", "msrvtt", "msvd", "xtd"]

HOMES: dict[DatasetName, str] = {
    "flickr30k": "the Flickr30k page of the University of Illinois (pictures) and Andrej "
    "Karpathy's page on deep visual-semantic alignments (captions and splits)",
    "coco": "cocodataset.org (pictures) and Andrej Karpathy's page on deep visual-semantic "
    "alignments (captions and splits)",
    "msrvtt": "the MSR-VTT page of Microsoft Research (clips, and captions of the full split) and "
    "the repository of JSFusion or CLIP4Clip (the 1k-A list)",
    "msvd": "the Microsoft Research Video Description Corpus (clips and descriptions) and the "
    "repository of CLIP4Clip (the lists)",
    "xtd": "the Cross-lingual Test Dataset XTD10 of Adobe Research (captions) and cocodataset.org "
    "(pictures)",
}
"""Where people get it."""

CAPTIONS_PER_IMAGE = 5
FOLD = 1000
VIDEO_SUFFIXES = (".mp4", ".avi", ".webm", ".mkv")
LANGUAGE_CODES = {"jp": "ja", "cn": "zh", "kr": "ko"}
"""Codes of countries that such files use for languages."""


class Caption(NamedTuple):
    """What somebody wrote about one file.

    Attributes:
        id: Of the caption, once in its dataset.
        text: With single spaces.
        language: BCP 47 code.
        document: The file.
    """

    id: str
    text: str
    language: str
    document: Path


def karpathy(
    root: Path, name: Literal["flickr30k", "coco"], split: str
) -> tuple[list[Caption], str]:
    """`dataset_NAME.json`: images with `filename`, `split`, `sentences`; COCO's with `filepath`.

    Returns the captions, and which part of the dataset they are.
    """
    file = _present(root, f"dataset_{name}.json", name)
    wanted = "test" if split.startswith("1k-") else split
    try:
        images = [image for image in json.loads(read_text(file))["images"]
                  if image["split"] == wanted]  # fmt: skip
        if split.startswith("1k-"):
            fold = int(split[-1])
            images = images[(fold - 1) * FOLD : fold * FOLD]
        places = [str(Path(image.get("filepath", "")) / image["filename"]) for image in images]
        files = _files(root, places, ("flickr30k-images", "flickr30k_images", "images"))
        captions = [
            Caption(str(sentence["sentid"]), " ".join(sentence["raw"].split()), "en", file)
            for image, file in zip(images, files, strict=True)
            for sentence in image["sentences"][:CAPTIONS_PER_IMAGE]
            if sentence["raw"].strip()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise malformed(file, name, f"{type(error).__name__}: {error}") from None
    what = {
        "flickr30k": f"Flickr30k, Karpathy split, {split}",
        "coco": f"COCO 2014, Karpathy split, {wanted}",
    }[name]
    if split.startswith("1k-"):
        what += f", fold {split[-1]} of 5; published 1k figures are the mean of the five"
    return captions, what


def msrvtt(root: Path) -> tuple[list[Caption], str]:
    """`MSRVTT_JSFUSION_test.csv`: columns `video_id` and `sentence`."""
    file = _present(root, "MSRVTT_JSFUSION_test.csv", "msrvtt")
    rows = list(csv.DictReader(io.StringIO(read_text(file), newline="")))
    if not rows or not {"video_id", "sentence"} <= set(rows[0]):
        raise malformed(file, "msrvtt", "its columns must have video_id and sentence")
    if bad := [
        str(n) for n, row in enumerate(rows, 2) if not row["video_id"] or not row["sentence"]
    ]:
        raise malformed(file, "msrvtt", f"{len(bad)} lines have no video or words: {named(bad)}")
    clips = _clips(root, [row["video_id"] for row in rows])
    captions = [
        Caption(f"{row['video_id']}#{place}", " ".join(row["sentence"].split()), "en", clip)
        for place, (row, clip) in enumerate(zip(rows, clips, strict=True))
    ]
    return captions, (
        "MSR-VTT, 1k-A (JSFusion). Text to video: one caption a clip is a query, its clip the only "
        "relevant one; papers report Recall@1, 5 and 10."
    )


def msrvtt_full(root: Path) -> tuple[list[Caption], str]:
    """`test_videodatainfo.json` or `MSRVTT_data.json`: the corpus's own lists.

    `videos` have `video_id` and `split`, `sentences` have `video_id`, `sen_id` and `caption`.
    """
    file = _found(root, "MSRVTT_data.json") or _present(root, "test_videodatainfo.json", "msrvtt")
    try:
        content = json.loads(read_text(file))
        ids = [str(video["video_id"]) for video in content["videos"] if video["split"] == "test"]
        said: dict[str, list[tuple[str, str]]] = {id: [] for id in ids}
        for sentence in content["sentences"]:
            words = " ".join(sentence["caption"].split())
            if sentence["video_id"] in said and words:
                said[sentence["video_id"]].append((str(sentence["sen_id"]), words))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise malformed(file, "msrvtt", f"{type(error).__name__}: {error}") from None
    if silent := [id for id, sentences in said.items() if not sentences]:
        raise malformed(file, "msrvtt", f"{len(silent)} clips have no words: {named(silent)}")
    captions = [
        Caption(sentence, words, "en", clip)
        for sentences, clip in zip(said.values(), _clips(root, said), strict=True)
        for sentence, words in sentences
    ]
    return captions, (
        "MSR-VTT, full test split. Text to video: each caption of a clip is a query, its clip the "
        "only relevant one; papers report Recall@1, 5 and 10."
    )


def msvd(root: Path) -> tuple[list[Caption], str]:
    """`test_list.txt` and `AllVideoDescriptions.txt`, whose lines are a clip's id and words."""
    file = _present(root, "test_list.txt", "msvd")
    wanted = dict.fromkeys(line.strip() for _, line in read_lines(file))
    if (root / "raw-captions.pkl").is_file() and not _found(root, "AllVideoDescriptions.txt"):
        raise InputError(
            f"{root} has raw-captions.pkl, which is not read: a pickle may run any program",
            remedy="put AllVideoDescriptions.txt of the corpus beside it",
        )
    file = _present(root, "AllVideoDescriptions.txt", "msvd")
    said: dict[str, list[str]] = {id: [] for id in wanted}
    for _, line in read_lines(file):
        id, _, words = line.strip().partition(" ")
        if id in said and words.strip():
            said[id].append(" ".join(words.split()))
    if silent := [id for id, words in said.items() if not words]:
        raise malformed(file, "msvd", f"{len(silent)} clips have no words: {named(silent)}")
    clips = dict(zip(said, _clips(root, said), strict=True))
    captions = [
        Caption(f"{id}#{place}", words, "en", clips[id])
        for id, all_words in said.items()
        for place, words in enumerate(all_words)
    ]
    return captions, (
        "MSVD, test list. Text to video: each caption of a clip is a query, its clip the only "
        "relevant one; papers report Recall@1, 5 and 10."
    )


def xtd(root: Path, languages: Sequence[str]) -> tuple[list[Caption], str]:
    """`test_image_names.txt`, and `test_1kcaptions_LANG.txt` whose lines are in its order."""
    names_file = _present(root, "test_image_names.txt", "xtd")
    names = _lines(names_file)
    prefix = "test_1kcaptions_"
    there: dict[str, Path] = {}
    for file in sorted(root.rglob(f"{prefix}*.txt"), key=lambda path: (len(path.parts), path)):
        code = file.stem.removeprefix(prefix)
        there.setdefault(LANGUAGE_CODES.get(code, code), file)
    if not there:
        _present(root, f"{prefix}en.txt", "xtd")
    if absent := [code for code in languages if LANGUAGE_CODES.get(code, code) not in there]:
        raise InputError(
            f"xtd in {root} has no captions in {', '.join(absent)}",
            remedy=f"there are {', '.join(there)}; a language's file is {prefix}LANG.txt",
        )
    chosen = [LANGUAGE_CODES.get(code, code) for code in languages] or sorted(there)
    files = list(_files(root, names, ("images",)))
    captions = []
    for code in dict.fromkeys(chosen):
        said = _lines(there[code])
        if len(said) != len(names):
            raise malformed(
                there[code], "xtd", f"{len(said)} lines for the {len(names)} of {names_file.name}"
            )
        if empty := [str(number) for number, words in enumerate(said, 1) if not words]:
            raise malformed(there[code], "xtd", f"lines without words: {named(empty)}")
        captions += [
            Caption(f"{place}-{code}", words, code, file)
            for place, (words, file) in enumerate(zip(said, files, strict=True))
        ]
    return captions, (
        f"XTD, captions in {', '.join(dict.fromkeys(chosen))}. Text to image: one caption an image "
        "and language is a query, its image the only relevant one; papers report Recall@10 by "
        "language."
    )


def _found(root: Path, name: str) -> Path | None:
    places = (root / name, root / "annotations" / name, root / "captions" / name)
    return next((place for place in places if place.is_file()), None)


def _present(root: Path, name: str, dataset: DatasetName) -> Path:
    found = _found(root, name)
    if found is None:
        raise InputError(f"{root} has no {name}", remedy=f"{dataset} comes from {HOMES[dataset]}")
    return found


def _files(root: Path, names: Iterable[str], folders: Sequence[str]) -> Iterator[Path]:
    """Where each file lies: below the folder itself or one of these below it, else the first."""
    for name in names:
        own = (*folders, _coco_folder(name), str(Path("images") / _coco_folder(name)))
        places = [root / name, *(root / folder / name for folder in own)]
        yield _inside(root, next((place for place in places if place.is_file()), places[0]))


def _clips(root: Path, ids: Iterable[str]) -> Iterator[Path]:
    folders = ("", "videos", "video", "videos/all", "MSRVTT_Videos", "TestVideo", "MSVD_Videos",
               "YouTubeClips")  # fmt: skip
    for id in ids:
        places = [
            root / folder / f"{id}{suffix}" for folder in folders for suffix in VIDEO_SUFFIXES
        ]
        yield _inside(root, next((place for place in places if place.is_file()), places[0]))


def _inside(root: Path, path: Path) -> Path:
    if not path.is_relative_to(root) or ".." in path.parts:
        raise InputError(f"{path} leaves the folder of the dataset", remedy="check its lists")
    return path


def _coco_folder(name: str) -> str:
    """`COCO_val2014_000000391895.jpg` lies in `val2014`."""
    parts = Path(name).name.split("_")
    return parts[1] if len(parts) == 3 and parts[0] == "COCO" else ""


def _lines(file: Path) -> list[str]:
    """All lines, as others are in their order; ends of the file apart."""
    return [" ".join(line.split()) for line in read_text(file).rstrip().split("\n")]


def malformed(file: Path, dataset: DatasetName, why: Any) -> InputError:
    """The error for a list that is not as it is published."""
    return InputError(
        f"{file} is not as {dataset} has it: {why}", remedy=f"it comes from {HOMES[dataset]}"
    )
