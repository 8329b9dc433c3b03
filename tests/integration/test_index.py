"""The ingestion job on a library of its own: every file once, none lost, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import (
    CatalogError,
    EmbedderMismatchError,
    InputError,
    LibraryBusyError,
    LibraryError,
)
from secondglance.library import Library
from secondglance.types import IndexReport
from tests.libraries import Open, stored_ids, verify
from tests.media import Frame, picture, write_clip, write_pictures


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    write_pictures(folder / "photos", 6)
    write_clip(folder / "clip.mp4", [20, 21, 22])
    (folder / "notes.txt").write_text("A dog on a beach.\n\n" + "Words about a harbour. " * 30)
    return folder


def counts(report: IndexReport) -> dict[str, int]:
    names = ("files", "indexed", "unchanged", "moved", "removed", "failed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


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
        "print(len(library.search('a dog', k=3).hits))\n"
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
    report = library.index([media], prune=True)
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
    assert library.index([media], prune=True).removed == 8
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
    (media / "notes.mp4").write_text("no video")
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
    assert reasons.keys() == {"broken.jpg", "empty.png", "notes.mp4", "table.csv", "program.exe"}
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


def test_two_runs_at_once_are_refused(media: Path, open_library: Open) -> None:
    library = open_library()
    other = Library.open(open_library.folder)
    busy: list[str] = []

    def during(_: object) -> None:
        if not busy:
            with pytest.raises(LibraryBusyError) as caught:
                other.index([media])
            busy.append(str(caught.value))

    library.index([media], on_progress=during)
    assert "another process is indexing" in busy[0]


def test_another_embedder_is_refused(media: Path, open_library: Open, tmp_path: Path) -> None:
    from secondglance.models.untrained import build_untrained_clip

    open_library().index([media])
    open_library.close()
    other = build_untrained_clip(tmp_path / "other-clip", seed=5)
    with pytest.raises(EmbedderMismatchError, match=r"made with recall.model = .*index into a new"):
        Library.open(open_library.folder, settings={"recall": {"model": str(other)}})
    # The same name with other weights is found by its fingerprint.
    clip = Path(open_library.settings["recall"]["model"])
    moved = clip.rename(clip.with_name("away"))
    shutil.copytree(other, clip)
    try:
        with Library.open(open_library.folder) as library:
            with pytest.raises(EmbedderMismatchError, match="made with the embedder"):
                library.search("x")
            assert library.status()["vectors"] == 11
    finally:
        shutil.rmtree(clip)
        moved.rename(clip)


def test_a_corrupt_catalog_and_a_folder_that_is_no_library(
    media: Path, open_library: Open, tmp_path: Path
) -> None:
    open_library().index([media])
    open_library.close()
    (open_library.folder / "catalog.sqlite").write_bytes(b"no database at all" * 100)
    for suffix in ("-wal", "-shm"):
        (open_library.folder / f"catalog.sqlite{suffix}").unlink(missing_ok=True)
    with pytest.raises(CatalogError, match=r"is damaged.*move it away.*not lost"):
        Library.open(open_library.folder)
    (open_library.folder / "catalog.sqlite").unlink()
    with Library.open(open_library.folder) as library:
        assert counts(library.index([media])) == {"files": 8, "indexed": 8}
        verify(library)
    with pytest.raises(LibraryError, match="holds other files"):
        Library.open(media, preset="starter")
    with pytest.raises(LibraryError, match="there is no library in"):
        Library.open(tmp_path / "none", create=False)
    with pytest.raises(LibraryError, match="is a file, not a folder"):
        Library.open(media / "notes.txt", preset="starter")


def start_index(open_library: Open, media: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "secondglance", "index", str(media)]
    command += ["--library", str(open_library.folder), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_vectors(open_library: Open, at_least: int, process: subprocess.Popen[str]) -> None:
    """Until the catalog has files done; it is read without locking it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            database = sqlite3.connect(
                f"file:{open_library.folder}/catalog.sqlite?mode=ro", uri=True
            )
            done = database.execute("SELECT count(*) FROM files WHERE state = 'done'").fetchone()
            database.close()
            if done[0] >= at_least:
                return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.01)
    raise AssertionError(f"it never got that far: {process.communicate()}")


@pytest.mark.parametrize("store", ["milvus", "faiss", "exact"])
def test_killed_in_the_middle_loses_nothing(tmp_path: Path, open_library: Open, store: str) -> None:
    media = tmp_path / "many"
    write_pictures(media, 700)
    write_clip(media / "clip.mp4", [1, 2, 3])
    open_library(store=store)
    open_library.close()
    process = start_index(open_library, media)
    wait_for_vectors(open_library, 1, process)
    process.kill()
    process.communicate()
    interrupted = sqlite3.connect(open_library.folder / "catalog.sqlite")
    done = interrupted.execute("SELECT count(*) FROM files").fetchone()[0]
    interrupted.close()
    assert 0 < done < 701, "the kill came too late to test anything"
    with Library.open(open_library.folder) as library:
        report = library.index([media])
        assert counts(report) == {"files": 701, "indexed": 701 - done, "unchanged": done}
        assert library.status()["vectors"] == 703
        verify(library)


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(tmp_path: Path, open_library: Open) -> None:
    media = tmp_path / "many"
    write_pictures(media, 700)
    open_library(store="faiss")
    open_library.close()
    process = start_index(open_library, media)
    wait_for_vectors(open_library, 1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    first = json.loads(output)["indexed"]
    assert 0 < first < 700
    with Library.open(open_library.folder) as library:
        verify(library)
        report = library.index([media])
        assert counts(report) == {"files": 700, "indexed": 700 - first, "unchanged": first}
        verify(library)


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


def test_a_full_disk_is_one_clear_error(tmp_path: Path, open_library: Open) -> None:
    """A limit on file size stands in for a full disk: writes fail in the middle of the job."""
    import resource

    media = tmp_path / "many"
    write_pictures(media, 300)
    open_library(store="faiss")
    open_library.close()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    command = [sys.executable, "-m", "secondglance", "index", str(media)]
    command += ["--library", str(open_library.folder)]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert "disk" in done.stderr
    with Library.open(open_library.folder) as library:
        report = library.index([media])
        assert report.indexed + report.unchanged == 300
        verify(library)


def test_libraries_on_one_server_have_collections_of_their_own(tmp_path: Path) -> None:
    settings = {"store": {"backend": "milvus", "uri": "http://127.0.0.1:9", "token": "secret"}}
    names = set()
    for number in range(2):
        folder = tmp_path / str(number)
        with Library.open(folder, preset="starter", settings=settings) as library:
            names.add(library.settings.store.collection)
        with Library.open(folder) as library:
            assert library.settings.store.collection in names
            assert library.settings.store.uri == "http://127.0.0.1:9"
        assert "secret" not in (folder / "library.json").read_text()
    assert len(names) == 2


def test_a_picture_without_a_usable_vector_costs_only_itself(
    media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = open_library()
    embedder = library._parts.embedder()
    embed = embedder.embed_pixels

    def overflow(pixels: Frame) -> object:
        vectors = embed(pixels)
        vectors[0] = np.nan
        return vectors

    monkeypatch.setattr(embedder, "embed_pixels", overflow)
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
