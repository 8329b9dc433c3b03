"""Standard datasets for retrieval, read from a folder on disk by their published protocols."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from secondglance.errors import InputError
from secondglance.evaluation.queries import described
from secondglance.evaluation.trec import named, read_lines, read_text
from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.types import Query

DatasetName = Literal["flickr30k", "coco", "msrvtt", "msvd", "xtd"]

SPLITS: dict[DatasetName, tuple[str, ...]] = {
    "flickr30k": ("test", "val"),
    "coco": ("test", "val", "1k-1", "1k-2", "1k-3", "1k-4", "1k-5"),
    "msrvtt": ("test",),
    "msvd": ("test",),
    "xtd": ("test",),
}
"""The first is the one that papers report."""

HOMES: dict[DatasetName, str] = {
    "flickr30k": "the Flickr30k page of the University of Illinois (pictures) and Andrej "
    "Karpathy's page on deep visual-semantic alignments (captions and splits)",
    "coco": "cocodataset.org (pictures) and Andrej Karpathy's page on deep visual-semantic "
    "alignments (captions and splits)",
    "msrvtt": "the MSR-VTT page of Microsoft Research (clips) and the repository of JSFusion or "
    "CLIP4Clip (the 1k-A list)",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset of which every file is on disk.

    Attributes:
        name: As in `DatasetName`.
        split: As in `SPLITS`.
        documents: Files to index; nothing else belongs in the library.
        queries: What is asked, in words.
        qrels: By query id, then the document's path below the dataset's folder.
        protocol: How figures with it are taken in papers, for the report.
    """

    name: DatasetName
    split: str
    documents: tuple[Path, ...]
    queries: tuple[EvaluationQuery, ...]
    qrels: Qrels
    protocol: str


class _Caption(NamedTuple):
    id: str
    text: str
    language: str
    document: Path


def load(
    name: str, folder: Path | str, *, split: str = "test", languages: Sequence[str] = ()
) -> Dataset:
    """Reads a dataset.

    Args:
        name: `flickr30k`, `coco`, `msrvtt`, `msvd` or `xtd`.
        folder: Where it lies; `docs/datasets.md` shows the layouts.
        split: As in `SPLITS`.
        languages: Of `xtd`, all that are there by default: BCP 47 codes, `de`.

    Raises:
        InputError: There is no such dataset, split or language, or a file is missing or malformed;
            the message names it, and where people get it.
    """
    known: dict[str, DatasetName] = {one.lower(): one for one in get_args(DatasetName)}
    if name.lower() not in known:
        raise InputError(f"there is no dataset {name!r}", remedy=f"name one of {', '.join(known)}")
    dataset = known[name.lower()]
    if split not in SPLITS[dataset]:
        raise InputError(
            f"{dataset} has no split {split!r}", remedy=f"name one of {', '.join(SPLITS[dataset])}"
        )
    if languages and dataset != "xtd":
        raise InputError(f"{dataset} has captions in one language", remedy="name no languages")
    root = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    if not root.is_dir():
        raise InputError(
            f"there is no folder {root}", remedy=f"{dataset} comes from {HOMES[dataset]}"
        )
    read: dict[DatasetName, Callable[[], tuple[list[_Caption], str]]] = {
        "flickr30k": lambda: _karpathy(root, "flickr30k", split),
        "coco": lambda: _karpathy(root, "coco", split),
        "msrvtt": lambda: _msrvtt(root),
        "msvd": lambda: _msvd(root),
        "xtd": lambda: _xtd(root, languages),
    }
    captions, protocol = read[dataset]()
    if not captions:
        raise InputError(f"{dataset} in {root} has no captions for the split {split!r}")
    documents = tuple(dict.fromkeys(caption.document for caption in captions))
    missing = [path.relative_to(root).as_posix() for path in documents if not path.is_file()]
    if missing:
        raise InputError(
            f"{dataset}: {len(missing)} of {len(documents)} files are missing in {root}: "
            f"{named(missing)}",
            remedy=f"the protocol needs all of them; they come from {HOMES[dataset]}",
        )
    return Dataset(
        name=dataset,
        split=split,
        documents=documents,
        queries=tuple(
            described(caption.id, Query(text=caption.text), language=caption.language)
            for caption in captions
        ),
        qrels={
            caption.id: {caption.document.relative_to(root).as_posix(): 1} for caption in captions
        },
        protocol=f"{protocol} {len(documents)} documents, {len(captions)} queries.",
    )


def write_documents(path: Path | str, dataset: Dataset) -> None:
    """Writes a manifest of the documents, without captions, for `secondglance index` to take.

    It keeps out of the library what the protocol leaves out, such as training pictures, and the
    lists with the captions, which are the queries.

    Args:
        path: To write, `.jsonl`, in the dataset's folder, as a manifest lists files below its own.
        dataset: Whose documents.

    Raises:
        InputError: A document is not below the folder of `path`.
    """
    base = Path(os.path.abspath(path)).parent  # noqa: PTH100 - keeps links
    if outside := [str(file) for file in dataset.documents if not file.is_relative_to(base)]:
        raise InputError(
            f"{len(outside)} documents are not below {base}: {named(outside)}",
            remedy="write the manifest into the dataset's folder",
        )
    files = [file.relative_to(base).as_posix() for file in dataset.documents]
    text = "".join(json.dumps({"file": file}) + "\n" for file in files)
    Path(path).write_text(text, "utf-8", newline="\n")


def _karpathy(
    root: Path, name: Literal["flickr30k", "coco"], split: str
) -> tuple[list[_Caption], str]:
    """`dataset_NAME.json`: images with `filename`, `split`, `sentences`; COCO's with `filepath`."""
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
            _Caption(str(sentence["sentid"]), " ".join(sentence["raw"].split()), "en", file)
            for image, file in zip(images, files, strict=True)
            for sentence in image["sentences"][:CAPTIONS_PER_IMAGE]
            if sentence["raw"].strip()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(file, name, f"{type(error).__name__}: {error}") from None
    what = {
        "flickr30k": f"Flickr30k, Karpathy split, {split}",
        "coco": f"COCO 2014, Karpathy split, {wanted}",
    }[name]
    if split.startswith("1k-"):
        what += f", fold {split[-1]} of 5; published 1k figures are the mean of the five"
    return captions, (
        f"{what}. Text to image: each of the first five captions of an image is a query, its image "
        "the only relevant one; papers report Recall@1, 5 and 10."
    )


def _msrvtt(root: Path) -> tuple[list[_Caption], str]:
    """`MSRVTT_JSFUSION_test.csv`: columns `video_id` and `sentence`."""
    file = _present(root, "MSRVTT_JSFUSION_test.csv", "msrvtt")
    rows = list(csv.DictReader(io.StringIO(read_text(file), newline="")))
    if not rows or not {"video_id", "sentence"} <= set(rows[0]):
        raise _malformed(file, "msrvtt", "its columns must have video_id and sentence")
    if bad := [
        str(n) for n, row in enumerate(rows, 2) if not row["video_id"] or not row["sentence"]
    ]:
        raise _malformed(file, "msrvtt", f"{len(bad)} lines have no video or words: {named(bad)}")
    clips = _clips(root, [row["video_id"] for row in rows])
    captions = [
        _Caption(f"{row['video_id']}#{place}", " ".join(row["sentence"].split()), "en", clip)
        for place, (row, clip) in enumerate(zip(rows, clips, strict=True))
    ]
    return captions, (
        "MSR-VTT, 1k-A (JSFusion). Text to video: one caption a clip is a query, its clip the only "
        "relevant one; papers report Recall@1, 5 and 10."
    )


def _msvd(root: Path) -> tuple[list[_Caption], str]:
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
        raise _malformed(file, "msvd", f"{len(silent)} clips have no words: {named(silent)}")
    clips = dict(zip(said, _clips(root, said), strict=True))
    captions = [
        _Caption(f"{id}#{place}", words, "en", clips[id])
        for id, all_words in said.items()
        for place, words in enumerate(all_words)
    ]
    return captions, (
        "MSVD, test list. Text to video: each caption of a clip is a query, its clip the only "
        "relevant one; papers report Recall@1, 5 and 10."
    )


def _xtd(root: Path, languages: Sequence[str]) -> tuple[list[_Caption], str]:
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
            raise _malformed(
                there[code], "xtd", f"{len(said)} lines for the {len(names)} of {names_file.name}"
            )
        if empty := [str(number) for number, words in enumerate(said, 1) if not words]:
            raise _malformed(there[code], "xtd", f"lines without words: {named(empty)}")
        captions += [
            _Caption(f"{place}-{code}", words, code, file)
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
    folders = ("", "videos", "video", "videos/all", "MSRVTT_Videos", "MSVD_Videos", "YouTubeClips")
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


def _malformed(file: Path, dataset: DatasetName, why: Any) -> InputError:
    return InputError(
        f"{file} is not as {dataset} has it: {why}", remedy=f"it comes from {HOMES[dataset]}"
    )
