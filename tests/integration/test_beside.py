"""Another model for a library: built beside the one in use, nothing lost, switched over at once."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secondglance.errors import (
    EmbedderMismatchError,
    InputError,
    LibraryBusyError,
    LibraryError,
    ModelError,
)
from secondglance.evaluation.fusion_model import FittedFusion
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.library import Library
from secondglance.models import untrained
from secondglance.pipelines import build, fitting, leases
from secondglance.pipelines.beside import ModelChange, names_other_model
from secondglance.pipelines.generations import LIST_FILE, Generation, mark, read_generations, sweep
from secondglance.pipelines.index import IndexInterruptedError, Progress
from secondglance.pipelines.locking import writing
from secondglance.pipelines.opening import Said
from secondglance.pipelines.stamp import read_stamp
from tests.libraries import other_clip, verify
from tests.media import picture, write_pictures

pytestmark = pytest.mark.usefixtures("one_embedder")

SETTINGS: dict[str, Any] = {
    "rerank": {"backend": "passthrough"},
    "store": {"backend": "faiss"},
    "ingest": {"workers": 1},
}


@dataclass(frozen=True)
class Made:
    """A library that no test changes, its media, and two models that it does not have."""

    folder: Path
    media: Path
    old: Path
    other: Path
    third: Path


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, untrained_clip: Path, one_embedder: None
) -> Made:
    base = tmp_path_factory.mktemp("beside")
    other = other_clip(base / "other-clip")
    third = untrained.build_untrained_clip(base / "third-clip", seed=2)
    media = base / "media"
    write_pictures(media / "photos", 4)
    (media / "photos" / "picture-0000.jpg.txt").write_text("An anchor on a quay.")
    rows = [{"image": "photos/picture-0001.jpg", "caption": "A violin at dawn."}]
    (media / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (media / "notes.txt").write_text("A dog on a beach.\n\n" + "Words about a harbour. " * 30)
    write_pictures(base / "alone", 2, first=50)
    (base / "alone" / "picture-0050.jpg").rename(base / "alone" / ".hidden.jpg")
    settings = {**SETTINGS, "recall": {"model": str(untrained_clip)}}
    with Library.open(base / "library", preset="starter", settings=settings) as library:
        library.index([media, base / "alone" / ".hidden.jpg"])
    return Made(base / "library", media, untrained_clip, other, third)


@pytest.fixture
def library(made: Made, tmp_path: Path) -> Iterator[Library]:
    shutil.copytree(made.folder, tmp_path / "library")
    with opened(tmp_path / "library") as library:
        yield library


def opened(folder: Path) -> Library:
    return Library.open(folder, settings={"ingest": {"workers": 1}})


def change(library: Library, model: Path, *paths: Path, **options: Any) -> ModelChange:
    settings = {"recall": {"model": str(model)}, "ingest": {"workers": 1}}
    settings |= options.pop("settings", {})
    return library.change_model(paths, settings=settings, **options)


def held(library: Library) -> dict[str, tuple[str, str]]:
    """Each file's root and caption."""
    with library._reading() as parts:
        rows = parts.catalog.files_among([Path(path) for path, _ in parts.catalog.paths()])
    return {path: (row.root, row.caption) for path, row in rows.items()}


def fingerprint(library: Library) -> str | None:
    with library._reading() as parts:
        return parts.catalog.get_meta("fingerprint")


def lengths(library: Library) -> set[int]:
    with library._reading() as parts:
        return {record.vector.size for record in parts.store().get(sorted(parts.store().ids()))}


def test_new_vectors_take_the_place_of_the_old_ones(made: Made, library: Library) -> None:
    files, before = held(library), library.status()
    assert str(made.folder.parent / "alone" / ".hidden.jpg") in files
    with opened(library.folder) as other:
        violin = other.search("violin", k=1).hits[0].path
        seen = [other.search("anything", k=50).hits[0].recall_score]
        done = change(library, made.other)
        assert (done.report.indexed, done.report.files, done.left_out) == (7, 7, 0)
        assert (done.model, done.before, done.kept) == (str(made.other), str(made.old), None)
        # What another library has open follows with whatever it is asked, and keeps nothing back.
        assert other.status()["embedder"] == str(made.other)
        assert lengths(other) == {64}
        hits = other.search("violin", k=1).hits
        assert (hits[0].path, hits[0].lexical_score is not None) == (violin, True)
        assert other.search("anything", k=50).hits[0].recall_score not in seen
    assert held(library) == files
    after = library.status()
    for name in ("counts", "vectors", "roots", "failures", "store", "preset"):
        assert after[name] == before[name]
    verify(library)
    # The old vectors went with the last program that searched them.
    library.index([made.media])
    assert read_generations(library.folder) == []
    names = {path.name for path in library.folder.iterdir()}
    assert not names & {"catalog.sqlite", "words.sqlite", "faiss", LIST_FILE}
    assert len([name for name in names if name.startswith("generation-")]) == 1
    with Library.open(library.folder) as again:
        assert again.settings.recall.model == str(made.other)
        assert again.index([made.media]).indexed == 0


def test_what_is_named_besides_is_indexed_and_nothing_else(
    made: Made, library: Library, tmp_path: Path
) -> None:
    files = held(library)
    extra = write_pictures(tmp_path / "extra", 2, first=80)
    done = change(library, made.other, tmp_path / "extra")
    assert done.report.indexed == 9
    # The neighbour of the file that was named by itself is still no part of the library.
    assert held(library).keys() == files.keys() | set(map(str, extra))


def interrupted(library: Library, model: Path, *, after: int) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done >= after:
            raise KeyboardInterrupt

    with pytest.raises(IndexInterruptedError):
        change(library, model, on_progress=stop)


def test_an_unfinished_change_is_gone_on_with(made: Made, library: Library) -> None:
    interrupted(library, made.other, after=2)
    [beside] = library.status()["beside"]
    assert (beside["model"], beside["state"]) == (str(made.other), "building")
    assert 2 <= beside["files"] <= 7
    assert library.status()["embedder"] == str(made.old)
    warnings = library.index([made.media]).warnings
    assert any("are unfinished" in w and f"recall.model={made.other}" in w for w in warnings)
    with pytest.raises(InputError, match=rf"for {made.other} .*finished.* {made.third}"):
        change(library, made.third)
    done = change(library, made.other)
    assert done.report.unchanged == beside["files"]
    assert done.report.indexed == 7 - beside["files"]
    verify(library)
    assert lengths(library) == {64}


def test_what_changed_in_the_library_meanwhile_comes_along(
    made: Made, library: Library, tmp_path: Path
) -> None:
    extra = tmp_path / "extra"
    write_pictures(extra, 4, first=80)
    library.index([extra])
    interrupted(library, made.other, after=11)
    (extra / "picture-0080.jpg").unlink()
    (extra / "picture-0081.jpg").rename(extra / "moved.jpg")
    picture(99).save(extra / "picture-0082.jpg")
    write_pictures(extra, 1, first=90)
    library.index([extra])
    done = change(library, made.other)
    assert (done.left_out, done.warnings) == (0, ())
    names = {Path(path).name for path in held(library) if str(extra) in path}
    assert names == {"moved.jpg", "picture-0082.jpg", "picture-0083.jpg", "picture-0090.jpg"}
    verify(library)


def test_files_that_change_while_others_are_embedded_are_taken_in(
    made: Made, library: Library, tmp_path: Path
) -> None:
    [changed] = write_pictures(tmp_path / "extra", 1, first=80)
    library.index([changed.parent])

    def on_tidy(progress: Progress) -> None:
        if progress.stage == "tidy" and not seen:
            seen.append(progress)
            picture(200, width=200).save(changed)

    seen: list[Progress] = []
    assert change(library, made.other, on_progress=on_tidy).report.indexed == 9
    assert library.index([changed.parent]).indexed == 0
    verify(library)


def test_giving_up_leaves_the_library_as_it_was(made: Made, library: Library) -> None:
    interrupted(library, made.other, after=2)
    assert library.discard() == (1, [])
    assert library.status()["beside"] == []
    assert list(library.folder.glob("generation-*")) == []
    assert lengths(library) == {128}
    interrupted(library, made.other, after=2)
    assert change(library, made.third, discard=True).report.indexed == 7
    assert [p.name for p in library.folder.glob("generation-*")] == [
        (read_stamp(library.folder) or {})["data"]
    ]


def test_old_vectors_that_are_kept_can_be_gone_back_to(
    made: Made, library: Library, tmp_path: Path
) -> None:
    files = held(library)
    hits = [hit.id for hit in library.search("anything", k=9, rerank=False).hits]
    done = change(library, made.other, keep_old=True)
    assert done.kept == str(library.folder / "faiss")
    [kept] = library.status()["beside"]
    assert (kept["state"], kept["model"], kept["files"]) == ("kept", str(made.old), 7)
    write_pictures(tmp_path / "extra", 1, first=80)
    library.index([tmp_path / "extra"])
    back = change(library, made.old, keep_old=True)
    assert (back.report.indexed, back.report.unchanged) == (1, 7)
    assert len(held(library)) == len(files) + 1
    library.index([made.media])
    found = [hit.id for hit in library.search("anything", k=9, rerank=False).hits]
    assert [id_ for id_ in found if id_ in hits] == hits
    assert (read_stamp(library.folder) or {}).get("data", ".") == "."
    assert [each["model"] for each in library.status()["beside"]] == [str(made.other)]
    assert library.discard() == (1, [])
    assert list(library.folder.glob("generation-*")) == []
    verify(library)


@pytest.fixture
def drive(library: Library, tmp_path: Path) -> Path:
    """A folder of the library that goes away when it is renamed."""
    write_pictures(tmp_path / "drive", 7, first=80)
    library.index([tmp_path / "drive"])
    return tmp_path / "drive"


def test_a_drive_that_is_away_keeps_the_old_vectors_in_use(
    made: Made, library: Library, drive: Path
) -> None:
    drive.rename(drive.with_name("unplugged"))
    told: list[str] = []
    with pytest.raises(
        LibraryError, match=r"7 files .* cannot be .*is away.* and 2 more"
    ) as refused:
        change(library, made.other, on_warning=told.append)
    assert "--without-absent" in str(refused.value)
    assert told[0].startswith("7 files of the library are not there now")
    assert lengths(library) == {128}
    drive.with_name("unplugged").rename(drive)
    done = change(library, made.other)
    assert (done.report.unchanged, done.report.indexed, done.left_out) == (7, 7, 0)
    assert lengths(library) == {64}


def test_drives_may_come_one_after_the_other(
    made: Made, library: Library, drive: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "second", 1, first=70)
    library.index([tmp_path / "second"])
    away = [(drive, tmp_path / "a"), (tmp_path / "second", tmp_path / "b")]
    away[0][0].rename(away[0][1])
    with pytest.raises(LibraryError, match="7 files"):
        change(library, made.other)
    away[0][1].rename(away[0][0])
    away[1][0].rename(away[1][1])
    assert change(library, made.other).report.indexed == 7
    assert library.status()["vectors"] == library.status()["counts"]["records"]
    assert str(tmp_path / "second" / "picture-0070.jpg") in held(library)


def test_files_that_are_away_can_be_left_out(made: Made, library: Library, drive: Path) -> None:
    shutil.rmtree(drive)
    done = change(library, made.other, without_absent=True)
    assert done.left_out == 7
    assert done.warnings[0].startswith("7 files were left out:")
    assert len(held(library)) == 7
    verify(library)


def test_a_file_that_cannot_be_read_any_more_is_not_lost(
    made: Made, library: Library, drive: Path
) -> None:
    (drive / "picture-0080.jpg").write_bytes(b"damaged")
    with pytest.raises(LibraryError, match=r"1 files .*picture-0080\.jpg \(.*\)"):
        change(library, made.other)
    picture(80).save(drive / "picture-0080.jpg")
    assert change(library, made.other).report.indexed == 1


def test_a_few_deleted_files_are_no_obstacle_and_are_named(
    made: Made, library: Library, drive: Path
) -> None:
    (drive / "picture-0080.jpg").unlink()
    done = change(library, made.other)
    assert (done.left_out, len(done.warnings)) == (1, 1)
    assert "1 files are gone and were left out" in done.warnings[0]
    assert "picture-0080.jpg" in done.warnings[0]
    assert len(held(library)) == 13


def test_imported_vectors_without_files_are_not_lost(
    made: Made, library: Library, tmp_path: Path
) -> None:
    pictures = write_pictures(tmp_path / "come", 2, first=60)
    rows = tmp_path / "rows"
    (rows / "img_emb").mkdir(parents=True)
    (rows / "metadata").mkdir()
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = ["picture-0060.jpg", "picture-0061.jpg", "never.jpg"]
    captions = ["A zeppelin.", "A kettle.", "A ghost."]
    vectors = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    np.save(rows / "img_emb" / "img_emb_0.npy", vectors)
    table = pa.table({"image_path": paths, "caption": captions})
    pq.write_table(table, rows / "metadata" / "metadata_0.parquet")
    library.import_embeddings(rows, root=tmp_path / "come", sample=0)
    with pytest.raises(LibraryError, match=r"1 files .*never\.jpg \(its vectors were imported"):
        change(library, made.other)
    change(library, made.other, without_absent=True)
    assert held(library)[str(pictures[0])][1] == "A zeppelin."
    library.index([tmp_path / "come"])
    assert held(library)[str(pictures[1])][1] == "A kettle."
    assert library.search("zeppelin", k=1).hits[0].path == str(pictures[0])


def state(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix not in (".lock", ".sqlite-shm")
        and "-wal" not in path.name
    }


def test_a_model_that_cannot_be_loaded_changes_nothing(
    made: Made, library: Library, tmp_path: Path
) -> None:
    library.search("anything", k=1)
    before = state(library.folder)
    shutil.copytree(made.other, tmp_path / "torn")
    (tmp_path / "torn" / "open_clip_model.safetensors").write_bytes(b"torn")
    for model in (tmp_path / "torn", tmp_path / "nowhere"):
        with pytest.raises(ModelError):
            change(library, model)
    assert state(library.folder) == before


def test_the_same_weights_by_another_name_need_no_new_vectors(
    made: Made, library: Library, tmp_path: Path
) -> None:
    shutil.copytree(made.old, tmp_path / "renamed")
    [extra] = write_pictures(tmp_path / "extra", 1, first=80)
    done = change(library, tmp_path / "renamed", extra)
    assert (done.report.indexed, done.model) == (1, str(tmp_path / "renamed"))
    assert not list(library.folder.glob("generation-*"))
    assert library.settings.recall.model == str(tmp_path / "renamed")
    with Library.open(library.folder) as again:
        assert again.search("anything", k=1).hits
    assert change(again, tmp_path / "renamed").report.indexed == 0


def test_only_index_changes_a_model_and_says_so(made: Made, library: Library) -> None:
    other = {"recall": {"model": str(made.other)}}
    with pytest.raises(EmbedderMismatchError, match=r"index --library .* --preset NAME"):
        Library.open(library.folder, settings=other)
    assert names_other_model(library.folder, Said(settings=other))
    assert names_other_model(library.folder, Said(preset="starter"))
    for said in (Said(), Said(settings={"recall": {"model": str(made.old)}}), Said(preset="auto")):
        assert not names_other_model(library.folder, said)
    assert not names_other_model(made.media, Said(preset="starter"))


def test_what_is_said_with_the_new_model_is_kept(
    made: Made, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(f'[recall]\nmodel = "{made.other}"\n[store]\nbackend = "exact"\n')
    assert names_other_model(library.folder, Said(config=file))
    library.change_model(config=file, settings={"ingest": {"workers": 1}})
    assert library.status()["store"] == "exact"
    stamp = read_stamp(library.folder) or {}
    assert stamp["recall"] == {"model": str(made.other), "pretrained": "", "revision": None}
    assert stamp["rerank"]["backend"] == "passthrough"
    # A named preset brings both models; the store stays where it is.
    monkeypatch.setenv("SECONDGLANCE_INGEST__WORKERS", "1")
    library.change_model(preset="starter")
    stamp = read_stamp(library.folder) or {}
    assert (stamp["recall"]["model"], stamp["rerank"]["backend"]) == ("builtin:starter", "qwen3vl")
    assert stamp["store"]["backend"] == "exact"


def test_a_busy_library_and_one_that_cannot_be_written(
    made: Made, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(library.folder, wait=False), pytest.raises(LibraryBusyError):
        change(library, made.other)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(LibraryError, match="cannot be written"):
        change(library, made.other)


def test_a_damaged_list_is_never_followed(made: Made, library: Library, tmp_path: Path) -> None:
    stamp = read_stamp(library.folder) or {}
    victim = tmp_path / "victim"
    victim.mkdir()
    mark(library.folder, Generation(state="leaving", stamp={**stamp, "data": "../victim"}))
    with pytest.raises(LibraryError, match=r"cannot use .*generations\.json: data = '\.\./victim'"):
        sweep(library.folder)
    assert victim.is_dir()
    (library.folder / LIST_FILE).write_text("{")
    with pytest.raises(LibraryError, match="delete it; the vectors in use are not touched"):
        library.status()
    (library.folder / LIST_FILE).unlink()
    (library.folder / "library.json").write_text(
        json.dumps({"schema_version": 2, **stamp, "data": "../victim"})
    )
    with pytest.raises(LibraryError, match="names no folder of a library"):
        Library.open(library.folder)


def test_a_search_in_flight_ends_on_the_old_vectors(
    made: Made, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch falls between its words and its vectors."""
    loading, switched = threading.Event(), threading.Event()
    embed = ClipEmbedder.embed_texts

    def slowly(self: ClipEmbedder, texts: Any) -> Any:
        if threading.current_thread().name == "slow":
            loading.set()
            assert switched.wait(60)
        return embed(self, texts)

    monkeypatch.setattr(ClipEmbedder, "embed_texts", slowly)
    found: list[Any] = []
    expected = [hit.id for hit in library.search("anything", k=9).hits]
    with opened(library.folder) as slow:
        thread = threading.Thread(
            target=lambda: found.append(slow.search("anything", k=9)), name="slow"
        )
        thread.start()
        assert loading.wait(60)
        change(library, made.other)
        # Others of the same library see the new vectors meanwhile.
        assert lengths(slow) == {64}
        assert (library.folder / "faiss").is_dir()
        switched.set()
        thread.join()
        assert [hit.id for hit in found[0].hits] == expected
        # It was the last one to need them.
        assert not (library.folder / "faiss").exists()


def test_vectors_that_vanish_under_a_search_are_followed(
    made: Made, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no locks, nothing keeps old vectors from being removed too early."""
    monkeypatch.setattr(leases, "fcntl", None)
    embed, changed = ClipEmbedder.embed_texts, threading.Event()

    def embed_late(self: ClipEmbedder, texts: Any) -> Any:
        if not changed.is_set():
            changed.set()
            change(library, made.other)
            assert not (library.folder / "catalog.sqlite").exists()
        return embed(self, texts)

    with opened(library.folder) as slow:
        monkeypatch.setattr(ClipEmbedder, "embed_texts", embed_late)
        assert len(slow.search("anything", k=9).hits) == 7
        assert slow.settings.recall.model == str(made.other)


def test_who_cannot_load_the_new_model_goes_on_with_the_old_one(
    made: Made, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(settings: Any) -> Any:
        raise ModelError(f"{settings.model} does not fit into memory")

    with opened(library.folder) as serving:
        before = [hit.id for hit in serving.search("anything", k=9).hits]
        change(library, made.other)
        with monkeypatch.context() as patch:
            patch.setattr(build, "open_embedder", refuse)
            for _ in range(2):
                answer = serving.search("anything", k=9)
                assert [hit.id for hit in answer.hits] == before
                assert "does not fit into memory; answers come from" in answer.warnings[-1]
            with pytest.raises(ModelError):  # what is written must not go to the old ones
                serving.index([made.media])
        monkeypatch.setattr(serving, "_rest_until", 0.0)
        answer = serving.search("anything", k=9)
        assert len(answer.hits) == 7
        assert not {hit.id for hit in answer.hits} & set(before)
        assert answer.warnings == ()


def test_an_old_store_that_is_searched_elsewhere_goes_later(library: Library) -> None:
    with opened(library.folder) as other:
        answers = [hit.id for hit in other.search("anything", k=9).hits]
        done = library.migrate("exact", remove_old=True)
        assert done.old == str(library.folder / "faiss")
        assert "still in use by another program" in done.warnings[0]
        assert (library.folder / "faiss").is_dir()
        assert [hit.id for hit in other.search("anything", k=9).hits] == answers
        assert not (library.folder / "faiss").exists()
        assert library.status()["beside"] == []


def test_a_fit_for_the_old_model_is_not_used(made: Made, library: Library) -> None:
    stored = fitting.StoredFit(
        embedder=str(fingerprint(library)),
        reranker=None,
        created="2026-01-01T00:00:00+00:00",
        queries=9,
        judgments=9,
        fusion=FittedFusion(models=()),
    )
    (library.folder / fitting.FILE_NAME).write_bytes(fitting._adapter().dump_json(stored))
    assert "knows no text queries" in library.search("anything", k=1).warnings[0]
    change(library, made.other)
    assert "it was made for the embedder" in library.search("anything", k=1).warnings[0]
