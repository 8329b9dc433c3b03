"""Pictures asked for their captions: a dataset on disk, a library of its captions, the command."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.evaluation import datasets
from secondglance.library import Library
from tests.libraries import Open
from tests.media import write_pictures

SAID = ("a red circle", "a blue square", "stripes", "dots", "green")


def dataset(root: Path) -> Path:
    pictures = write_pictures(root / "images", 3)
    images = [
        {
            "filename": path.name,
            "split": "test",
            "sentences": [
                # Captions of two pictures may be the same words: one text, found for both.
                {"raw": words if k == 4 else f"{words} {number}", "sentid": 10 * number + k}
                for k, words in enumerate(SAID)
            ],
        }
        for number, path in enumerate(pictures)
    ]
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return root


def test_pictures_find_texts_and_the_measures_are_those_of_papers(
    open_library: Open, tmp_path: Path
) -> None:
    root = dataset(tmp_path / "flickr30k")
    found = datasets.load("flickr30k", root, direction="image-to-text")
    datasets.write_captions(tmp_path / "captions", found)
    library = open_library()
    library.index([tmp_path / "captions"])
    expected = ranks(library, found)
    folder = library.folder
    library.close()
    done = CliRunner().invoke(
        app,
        [
            "evaluate", "--library", str(folder), "--dataset", "flickr30k", "--dataset-folder",
            str(root), "--direction", "image-to-text", "--out", str(tmp_path / "out"),
            "--systems", "clip", "--no-curves", "--json",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["queries"] == 3
    values = {name: value["mean"] for name, value in summary["systems"]["clip"].items()}
    for k in (1, 5, 10):
        assert values[f"Hit@{k}"] == sum(rank <= k for rank in expected) / 3
    assert values["MRR"] == sum(1 / rank for rank in expected) / 3
    assert "figures cannot be compared" not in done.stderr


def ranks(library: Library, found: datasets.Dataset) -> list[int]:
    """The rank of the first caption of each picture, by search itself."""
    firsts = []
    for query in found.queries:
        hits = library.search(query.query, k=50, rerank=False, words=False).hits
        right = {found.texts[name] for name in found.qrels[query.id]}
        firsts.append(next(n for n, hit in enumerate(hits, 1) if hit.text.strip() in right))
    return firsts
