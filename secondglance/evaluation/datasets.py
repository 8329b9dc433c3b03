"""Standard datasets for retrieval, read from a folder on disk by their published protocols."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from secondglance.errors import InputError
from secondglance.evaluation.dataset_files import (
    HOMES,
    Caption,
    DatasetName,
    karpathy,
    malformed,
    msrvtt,
    msrvtt_full,
    msvd,
    xtd,
)
from secondglance.evaluation.queries import described
from secondglance.evaluation.trec import named
from secondglance.evaluation.types import EvaluationQuery, Qrels
from secondglance.types import Query

Direction = Literal["text-to-media", "image-to-text"]
KARPATHY: tuple[DatasetName, ...] = ("flickr30k", "coco")

SPLITS: dict[DatasetName, tuple[str, ...]] = {
    "flickr30k": ("test", "val"),
    "coco": ("test", "val", "1k-1", "1k-2", "1k-3", "1k-4", "1k-5"),
    "msrvtt": ("test", "full"),
    "msvd": ("test",),
    "xtd": ("test",),
}
"""The first is the one that papers report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A dataset of which every file is on disk.

    Attributes:
        name: As in `DatasetName`.
        split: As in `SPLITS`.
        documents: Files to index; nothing else belongs in the library. None where texts are.
        queries: What is asked: words, or pictures.
        qrels: By query id, then the document's path below the dataset's folder, or a text's name.
        protocol: How figures with it are taken in papers, for the report.
        measures: What papers report, as `metrics` names it.
        texts: Captions to index as texts, by the name of their file, for `write_captions`; none
            where files are documents.
    """

    name: DatasetName
    split: str
    documents: tuple[Path, ...]
    queries: tuple[EvaluationQuery, ...]
    qrels: Qrels
    protocol: str
    measures: tuple[str, ...] = ("Recall@1", "Recall@5", "Recall@10")
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many documents the library should hold."""
        return len(self.documents) or len(self.texts)


def load(
    name: str,
    folder: Path | str,
    *,
    split: str = "test",
    languages: Sequence[str] = (),
    direction: str = "text-to-media",
) -> Dataset:
    """Reads a dataset.

    Args:
        name: `flickr30k`, `coco`, `msrvtt`, `msvd` or `xtd`.
        folder: Where it lies; `docs/datasets.md` shows the layouts.
        split: As in `SPLITS`.
        languages: Of `xtd`, all that are there by default: BCP 47 codes, `de`.
        direction: `text-to-media`; or `image-to-text`, of `flickr30k` and `coco`, where pictures
            are asked for their captions.

    Raises:
        InputError: There is no such dataset, split, language or direction, or a file is missing or
            malformed; the message names it, and where people get it.
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
    if direction not in get_args(Direction):
        raise InputError(
            f"there is no direction {direction!r}",
            remedy=f"name one of {', '.join(get_args(Direction))}",
        )
    back = direction == "image-to-text"
    if back and dataset not in KARPATHY:
        raise InputError(
            f"{dataset} is not read from image to text", remedy=f"{' and '.join(KARPATHY)} are"
        )
    root = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    if not root.is_dir():
        raise InputError(
            f"there is no folder {root}", remedy=f"{dataset} comes from {HOMES[dataset]}"
        )
    read: dict[DatasetName, Callable[[], tuple[list[Caption], str]]] = {
        "flickr30k": lambda: karpathy(root, "flickr30k", split),
        "coco": lambda: karpathy(root, "coco", split),
        "msrvtt": lambda: msrvtt_full(root) if split == "full" else msrvtt(root),
        "msvd": lambda: msvd(root),
        "xtd": lambda: xtd(root, languages),
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
    if back:
        return _image_to_text(dataset, split, root, captions, protocol)
    if dataset in KARPATHY:
        protocol += (
            ". Text to image: each of the first five captions of an image is a query, its image "
            "the only relevant one; papers report Recall@1, 5 and 10."
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
        InputError: A document is not below the folder of `path`, or the documents are captions.
    """
    if dataset.texts:
        raise InputError(
            f"the documents of {dataset.name} {dataset.split} are captions, not files",
            remedy="write them with write_captions",
        )
    base = Path(os.path.abspath(path)).parent  # noqa: PTH100 - keeps links
    if outside := [str(file) for file in dataset.documents if not file.is_relative_to(base)]:
        raise InputError(
            f"{len(outside)} documents are not below {base}: {named(outside)}",
            remedy="write the manifest into the dataset's folder",
        )
    files = [file.relative_to(base).as_posix() for file in dataset.documents]
    text = "".join(json.dumps({"file": file}) + "\n" for file in files)
    Path(path).write_text(text, "utf-8", newline="\n")


def write_captions(folder: Path | str, dataset: Dataset) -> None:
    """Writes each caption as a text of its own, `SENTID.txt`, for `secondglance index` to take.

    Args:
        folder: Is made if it is not there; must be empty, as nothing else belongs in the library.
        dataset: Loaded from image to text.

    Raises:
        InputError: The dataset has no texts, or the folder is not empty or cannot be written.
    """
    folder = Path(folder)
    if not dataset.texts:
        raise InputError(
            f"{dataset.name} {dataset.split} was not loaded from image to text",
            remedy="load it with direction='image-to-text'",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty", remedy="name an empty or a new folder")
        for name, words in dataset.texts.items():
            (folder / name).write_text(f"{words}\n", "utf-8", newline="\n")
    except OSError as error:
        raise InputError(
            f"cannot write captions to {folder}: {error.strerror}", remedy="name another folder"
        ) from None


def _image_to_text(
    name: DatasetName, split: str, root: Path, captions: Sequence[Caption], what: str
) -> Dataset:
    """Each picture is a query; its captions are the relevant ones of all captions."""
    texts = {f"{caption.id}.txt": caption.text for caption in captions}
    if len(texts) < len(captions) or any(Path(text).name != text for text in texts):
        raise malformed(root, name, "a sentid comes twice, or makes no file's name")
    qrels: dict[str, dict[str, int]] = {}
    files: dict[str, Path] = {}
    for caption in captions:
        id = caption.document.relative_to(root).as_posix()
        files[id] = caption.document
        qrels.setdefault(id, {})[f"{caption.id}.txt"] = 1
    return Dataset(
        name=name,
        split=split,
        documents=(),
        queries=tuple(described(id, Query(image=file)) for id, file in files.items()),
        qrels=qrels,
        protocol=f"{what}. Image to text: each image is a query, its first five captions are the "
        "relevant ones; what papers report as Recall@1, 5 and 10, whether any of the five is among "
        f"the first, are Hit@1, 5 and 10 here. {len(texts)} documents, {len(files)} queries.",
        measures=("Hit@1", "Hit@5", "Hit@10"),
        texts=texts,
    )
