"""The ingestion job on a library of its own: every file once, none lost, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import (
    InputError,
)
from tests.libraries import Open, counts, stored_ids, verify
from tests.media import Frame, picture, write_pictures


def test_indexes_pictures_clips_and_texts(media: Path, open_library: Open) -> None:
    library = open_library()
    report = library.index([media])
    assert counts(report) == {"files": 8, "indexed": 8}
    assert report.errors == ()
    status = library.status()
    assert {k: v for k, v in status["counts"].items() if v} == {
        "image": 6,
        "video": 1,
        "text": 1,
        "records": report.segments,
    }
    assert report.segments == 6 + 3 + 2
    verify(library)


def test_a_second_run_embeds_nothing_and_loads_no_model(media: Path, open_library: Open) -> None:
    open_library().index([media])
    code = (
        "import sys; from secondglance import Library\n"
        f"with Library.open({str(open_library.folder)!r}) as library:\n"
        f"    report = library.index([{str(media)!r}])\n"
        "assert report.unchanged == 8 and report.indexed == 0, report\n"
        "loaded = {'torch', 'open_clip', 'transformers'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    open_library.close()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_script_without_a_main_guard_runs_once(media: Path, open_library: Open) -> None:
    script = media.parent / "script.py"
    script.write_text(
        "print('started')\n"
        "from secondglance import Library\n"
        f"settings = {open_library.settings!r}\n"
        f"library = Library.open({str(open_library.folder)!r}, settings=settings)\n"
        f"print(library.index([{str(media)!r}]).indexed)\n"
        "print(len(library.search('a dog', k=3, rerank=False).hits))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], check=True, timeout=120, capture_output=True, text=True
    )
    assert done.stdout.split() == ["started", "8", "3"]


def test_ids_are_the_same_in_another_library(media: Path, open_library: Open) -> None:
    first = open_library()
    first.index([media])
    second = open_library("other", store="exact")
    second.index([media])
    assert stored_ids(first) == stored_ids(second) != set()


def test_a_changed_file_is_embedded_again(media: Path, open_library: Open) -> None:
    library = open_library()
    library.index([media])
    before = stored_ids(library)
    changed = media / "photos" / "picture-0003.jpg"
    picture(99).save(changed)
    assert counts(library.index([media])) == {"files": 8, "indexed": 1, "unchanged": 7}
    after = stored_ids(library)
    assert len(after) == len(before)
    assert len(before - after) == 1
    verify(library)


def test_a_deleted_file_is_removed_with_its_records(media: Path, open_library: Open) -> None:
    library = open_library()
    library.index([media])
    (media / "clip.mp4").unlink()
    report = library.index([media])
    assert counts(report) == {"files": 7, "unchanged": 7, "removed": 1}
    assert library.status()["vectors"] == 8
    verify(library)


def test_folders_that_were_not_scanned_keep_their_files(media: Path, open_library: Open) -> None:
    elsewhere = media.parent / "elsewhere"
    gone, _ = write_pictures(elsewhere, 2, first=50)
    library = open_library()
    library.index([media, elsewhere])
    gone.unlink()
    assert counts(library.index([media])) == {"files": 8, "unchanged": 8}
    report = library.index([media], prune=True, confirm=lambda *_: True)
    assert counts(report) == {"files": 8, "unchanged": 8, "removed": 1}
    verify(library)


def test_an_emptied_folder_may_be_an_unplugged_drive(media: Path, open_library: Open) -> None:
    library = open_library()
    library.index([media])
    shutil.rmtree(media)
    media.mkdir()
    report = library.index([media])
    assert report.removed == 0
    assert "8 indexed files are kept" in report.warnings[0]
    assert library.index([media], prune=True, confirm=lambda *_: True).removed == 8
    assert library.status()["vectors"] == 0
    shutil.rmtree(media)
    with pytest.raises(InputError, match=r"no file or folder .*media.*Nothing was changed"):
        library.index([media])


def test_a_moved_file_keeps_its_vectors(media: Path, open_library: Open) -> None:
    library = open_library()
    library.index([media])
    before = stored_ids(library)
    (media / "photos" / "picture-0000.jpg").rename(media / "renamed.jpg")
    report = library.index([media])
    assert counts(report) == {"files": 8, "moved": 1, "unchanged": 7}
    assert report.segments == 0
    assert stored_ids(library) == before
    found = library.search("x", kind="image", k=10, rerank=False, filter='path == "renamed.jpg"')
    assert [hit.path for hit in found.hits] == [str(media / "renamed.jpg")]
    verify(library)


def test_copies_share_vectors_and_are_one_hit(media: Path, open_library: Open) -> None:
    original = media / "photos" / "picture-0001.jpg"
    copy = shutil.copy(original, media / "a-copy.jpg")
    library = open_library()
    report = library.index([media])
    assert counts(report) == {"files": 9, "indexed": 9}
    assert library.status()["vectors"] == 11
    hits = library.search("x", kind="image", k=10, rerank=False).hits
    [hit] = [hit for hit in hits if hit.copies]
    assert {hit.path, *hit.copies} == {str(copy), str(original)}
    Path(hit.path).unlink()
    library.index([media])
    [left] = {str(copy), str(original)} - {hit.path}
    name = Path(left).name
    found = library.search("x", k=10, rerank=False, filter=f'name == "{name}"').hits
    assert [h.path for h in found] == [left]
    verify(library)


def test_manifests_caption_files_and_bring_texts(media: Path, open_library: Open) -> None:
    rows: list[dict[str, object]] = [
        {"file": "photos/picture-0000.jpg", "captions": ["a red square", "a shape"]},
        {"file": "photos/none.jpg", "caption": "not there"},
        {"file": "../outside.jpg", "caption": "not below"},
        {"text": "a sentence of its own"},
    ]
    manifest = media / "captions.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    library = open_library()
    report = library.index([media])
    assert counts(report) == {"files": 9, "indexed": 9}
    assert [(Path(e.path).name, e.reason.split(" ")[0]) for e in report.errors] == [
        ("captions.jsonl:2", "there"),
        ("captions.jsonl:3", "'../outside.jpg'"),
    ]
    hits = library.search("x", k=50, rerank=False, filter='text like "%red square%"').hits
    assert [hit.path for hit in hits] == [str(media / "photos" / "picture-0000.jpg")]
    texts = library.search("x", k=50, kind="text", rerank=False).hits
    assert "a sentence of its own" in {hit.text for hit in texts}

    rows[0]["captions"] = ["a blue circle"]
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    before = stored_ids(library)
    assert counts(library.index([media])) == {"files": 9, "indexed": 1, "unchanged": 8}
    hits = library.search("x", k=50, rerank=False, filter='text like "%blue circle%"').hits
    assert [hit.path for hit in hits] == [str(media / "photos" / "picture-0000.jpg")]
    assert len(stored_ids(library) - before) == 1  # the manifest's own sentence, no picture
    verify(library)


def test_a_manifest_by_itself_stands_for_its_files(media: Path, open_library: Open) -> None:
    manifest = media / "some.csv"
    manifest.write_text("image,caption\nphotos/picture-0002.jpg,a picture\n")
    library = open_library()
    assert counts(library.index([manifest])) == {"files": 2, "indexed": 2}
    assert library.status()["vectors"] == 1


def test_bad_files_are_listed_and_stop_nothing(media: Path, open_library: Open) -> None:
    (media / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no jpeg")
    (media / "empty.png").touch()
    (media / "film.mp4").write_text("no video")
    (media / "table.csv").write_text("x,y\n1,2\n")
    (media / "program.exe").write_bytes(b"MZ\0\0")
    (media / "folder.jpg").mkdir()
    picture(70).save(media / "folder.jpg" / "inside.png")
    picture(71).save(media / "no_extension", "PNG")
    (media / ".hidden.jpg").write_bytes(b"x")
    os.mkfifo(media / "pipe.jpg")
    library = open_library()
    report = library.index([media])
    assert counts(report) == {"files": 15, "indexed": 10, "failed": 5}
    reasons = {Path(e.path).name: e.reason for e in report.errors}
    assert reasons.keys() == {"broken.jpg", "empty.png", "film.mp4", "table.csv", "program.exe"}
    assert "empty" in reasons["empty.png"]
    assert "no column to index" in reasons["table.csv"]
    assert "'.exe'" in reasons["program.exe"]
    verify(library)

    again = library.index([media])
    assert counts(again) == {"files": 15, "unchanged": 10, "failed": 5}
    assert {Path(e.path).name: e.reason for e in again.errors} == reasons
    picture(72).save(media / "broken.jpg")
    assert counts(library.index([media])) == {
        "files": 15,
        "indexed": 1,
        "unchanged": 10,
        "failed": 4,
    }


def test_a_file_that_breaks_keeps_what_was_indexed(media: Path, open_library: Open) -> None:
    library = open_library()
    library.index([media])
    before = stored_ids(library)
    (media / "photos" / "picture-0000.jpg").write_bytes(b"\xff\xd8 damaged")
    report = library.index([media])
    assert counts(report) == {"files": 8, "unchanged": 7, "failed": 1}
    assert stored_ids(library) == before


def test_a_picture_that_is_too_slow_or_too_large_costs_only_itself(
    media: Path, open_library: Open
) -> None:
    Image.new("RGB", (2500, 2500)).save(media / "large.png")
    library = open_library(ingest={"max_pixels": 1_000_000})
    [failure] = library.index([media]).errors
    assert "2500x2500 is over the limit of 1000000 pixels" in failure.reason
    library = open_library("hasty", ingest={"timeout_s": 0.001})
    report = library.index([media / "large.png"])
    assert "longer than 0.001 s" in report.errors[0].reason


def test_vectors_are_those_of_open_clip(media: Path, open_library: Open) -> None:
    import open_clip
    import torch

    library = open_library(store="exact")
    library.index([media])
    name = f"local-dir:{library.settings.recall.model}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    path = media / "photos" / "picture-0002.jpg"
    with torch.inference_mode(), Image.open(path) as image:
        expected = model.eval().encode_image(preprocess(image)[None], normalize=True)[0].numpy()
    [record] = [
        record
        for record in library._parts.store().get(sorted(stored_ids(library)))
        if record.payload["name"] == path.name
    ]
    assert float(np.dot(record.vector, expected)) > 1 - 1e-5
    assert np.linalg.norm(record.vector) == pytest.approx(1, abs=1e-5)


def test_a_picture_without_a_usable_vector_costs_only_itself(
    media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = open_library()
    embedder = library._parts.embedder()
    begin = embedder.begin_pixels

    def overflow(pixels: Frame) -> object:
        vectors = begin(pixels)()
        vectors[0] = np.nan
        return lambda: vectors

    monkeypatch.setattr(embedder, "begin_pixels", overflow)
    report = library.index([media / "photos"])
    assert counts(report) == {"files": 6, "indexed": 5, "failed": 1}
    assert "no usable vector" in report.errors[0].reason
    verify(library)


@pytest.mark.parametrize("store", ["milvus", "faiss"])
def test_long_captions_in_any_script_fit(media: Path, open_library: Open, store: str) -> None:
    rows = [
        {"file": f"photos/picture-000{number}.jpg", "caption": character * 20_000}
        for number, character in enumerate("x犬😀")
    ]
    (media / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    library = open_library(store=store)
    assert counts(library.index([media])) == {"files": 9, "indexed": 9}
    verify(library)


def test_moves_and_copies_load_no_model_and_commit_together(
    tmp_path: Path, open_library: Open
) -> None:
    media = tmp_path / "notes"
    (media / "a").mkdir(parents=True)
    for number in range(300):
        (media / "a" / f"{number}.txt").write_text(f"note {number % 200}")
    library = open_library()
    assert counts(library.index([media])) == {"files": 300, "indexed": 300}
    before = stored_ids(library)
    assert len(before) == 200
    open_library.close()
    (media / "a").rename(media / "b")
    shutil.copytree(media / "b", media / "c")
    code = (
        "import sys; from secondglance import Library\n"
        f"with Library.open({str(open_library.folder)!r}) as library:\n"
        "    statements = []\n"
        "    library._parts.catalog._db.set_trace_callback(statements.append)\n"
        f"    report = library.index([{str(media)!r}])\n"
        "assert (report.moved, report.indexed, report.removed) == (300, 300, 0), report\n"
        "assert 'torch' not in sys.modules\n"
        "commits = sum(statement == 'COMMIT' for statement in statements)\n"
        "assert commits < 30, commits\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    library = open_library()
    assert stored_ids(library) == before
    verify(library)
    assert counts(library.index([media])) == {"files": 600, "unchanged": 600}
