"""The Ray engine's bookkeeping, over stages that run in this process; see `test_ray_cluster`."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from secondglance.errors import (
    ClusterError,
    EmbedderMismatchError,
    InputError,
    MissingExtraError,
    StoppedError,
)
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.ingest.media_types import FileKind
from secondglance.pipelines import ray_engine, ray_stages
from secondglance.pipelines.index import IndexInterruptedError, IndexStoppedError, Progress
from secondglance.pipelines.ray_driver import _blocks
from secondglance.pipelines.ray_messages import Done, EmbedCommand, File, HashCommand, Rows
from secondglance.rerank.stopping import stoppable
from tests.hazards import hazardous_decode_all
from tests.libraries import Open, counts, verify
from tests.media import write_pictures
from tests.ray_here import Command, GoneError, Here, names

pytestmark = pytest.mark.usefixtures("one_embedder")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    yield Here(monkeypatch)
    # What decodes in this process ends with the test.
    if ray_stages._pool.cache_info().currsize:
        monkeypatch.undo()
        ray_stages._pool.cache_clear()


def contents(library: Any) -> dict[str, Any]:
    """All that the store holds, by id."""
    store = library._parts.store()
    return {record.id: record for record in store.get(sorted(store.ids()))}


def same(one: Any, other: Any) -> None:
    """Both libraries hold the same records, but for rounding."""
    first, second = contents(one), contents(other)
    assert first.keys() == second.keys() != set()
    for id_, record in first.items():
        assert dict(record.payload) == dict(second[id_].payload)
        assert np.abs(record.vector - second[id_].vector).max() < 1e-5


def test_copies_captions_and_bad_files_end_as_with_the_local_engine(
    media: Path, open_library: Open, here: Here
) -> None:
    shutil.copy(media / "photos" / "picture-0001.jpg", media / "a-copy.jpg")
    rows = [{"file": "photos/picture-0000.jpg", "caption": "a red square"}, {"text": "words"}]
    (media / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (media / "table.csv").write_text("x,y\n1,2\n")
    (media / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no jpeg")
    (media / "film.mp4").write_text("no video")
    locally, on_ray = open_library("locally"), open_library("on-ray")
    expected = locally.index([media])
    found = on_ray.index([media], engine="ray")
    assert counts(found) == counts(expected) == {"files": 13, "indexed": 10, "failed": 3}
    assert found.errors == expected.errors
    assert found.segments == expected.segments
    same(on_ray, locally)
    verify(on_ray)
    assert here.started == 1
    embedded = [name for call in names(here.commands[1]) for name in call]
    assert embedded.count("a-copy.jpg") + embedded.count("picture-0001.jpg") == 1

    assert on_ray.index([media], engine="ray").unchanged == 10
    assert here.started == 1  # nothing to do, so nothing was started
    (media / "a-copy.jpg").rename(media / "moved.jpg")
    assert on_ray.index([media], engine="ray").moved == 1
    assert isinstance(here.commands[-1], HashCommand)  # a move needs no model
    verify(on_ray)


def test_the_engine_of_the_settings_is_taken(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 2)
    library = open_library(ingest={"engine": "ray"})
    assert library.index([tmp_path / "media"]).indexed == 2
    assert here.started == 1


def test_what_is_lost_is_asked_again_each_file_by_itself(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 12)
    lost: list[str] = []

    def answers(command: Command) -> Iterator[Any]:
        for call in command.calls:
            called = [file.path.name for file in call]
            hit = {"picture-0003.jpg", "picture-0007.jpg"} & set(called)
            if isinstance(command, EmbedCommand) and (
                "picture-0007.jpg" in hit or (hit and not command.alone)
            ):
                lost.extend(called)
            else:
                yield here.rows(command, call)
        yield Done(node_lost=False, error="OutOfMemoryError: ...")

    here.answers = answers
    library = open_library()
    report = library.index([tmp_path / "media"], engine="ray")
    assert counts(report) == {"files": 12, "indexed": 11, "failed": 1}
    [failure] = report.errors
    assert Path(failure.path).name == "picture-0007.jpg"
    assert "killed twice" in failure.reason
    _, first, again = here.commands
    assert isinstance(first, EmbedCommand)
    assert isinstance(again, EmbedCommand)
    assert max(map(len, first.calls)) > 1
    assert set(map(len, again.calls)) == {1}
    assert sorted(lost) == sorted([*(call[0] for call in names(again)), "picture-0007.jpg"])
    verify(library)
    here.answers = here.of
    assert counts(library.index([tmp_path / "media"], engine="ray"))["indexed"] == 1


def test_a_lost_node_is_not_held_against_the_files(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 8)
    nodes = 3

    def answers(command: Command) -> Iterator[Any]:
        nonlocal nodes
        nodes -= 1
        for call in command.calls[: 2 if nodes > 0 else None]:
            yield here.rows(command, call)
        stalled = nodes == 1 and isinstance(command, EmbedCommand)
        yield Done(node_lost=nodes > 0, stalled=stalled)

    here.answers = answers
    library = open_library()
    assert counts(library.index([tmp_path / "media"], engine="ray")) == {"files": 8, "indexed": 8}
    assert all(not c.alone for c in here.commands if isinstance(c, EmbedCommand))
    verify(library)


def test_a_cluster_that_stalls_is_joined_anew(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 6)

    def answers(command: Command) -> Iterator[Any]:
        if isinstance(command, EmbedCommand) and here.started == 1:
            yield here.rows(command, command.calls[0])
            yield Done(node_lost=True, stalled=True)
        else:
            yield from here.of(command)

    here.answers = answers
    library = open_library()
    assert library.index([tmp_path / "media"], engine="ray").indexed == 6
    assert here.started == 2
    assert len(here.commands[-1].calls) < len(here.commands[1].calls)
    verify(library)


def test_answers_that_come_twice_or_out_of_order_count_once(
    media: Path, open_library: Open, here: Here
) -> None:
    def answers(command: Command) -> Iterator[Any]:
        messages = list(here.of(command))
        for message in messages[:-1]:
            yield Rows(list(reversed(message.rows)))
            yield message
        yield messages[-1]

    here.answers = answers
    locally, on_ray = open_library("locally"), open_library("on-ray")
    expected = locally.index([media])
    found = on_ray.index([media], engine="ray")
    assert (found.indexed, found.segments) == (expected.indexed, expected.segments)
    same(on_ray, locally)


def test_a_lost_cluster_keeps_what_is_done_and_the_next_run_goes_on(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 12)

    def answers(command: Command) -> Iterator[Any]:
        for number, message in enumerate(here.of(command)):
            if isinstance(command, EmbedCommand) and number == 2:
                raise GoneError
            yield message

    here.answers = answers
    library = open_library()
    with pytest.raises(ClusterError, match=r"lost.* 4 of 12 files are done .*same command again"):
        library.index([tmp_path / "media"], engine="ray")
    verify(library)
    assert counts(library.index([tmp_path / "media"])) == {
        "files": 12,
        "indexed": 8,
        "unchanged": 4,
    }
    verify(library)


def test_a_cluster_that_can_do_nothing_blames_no_file(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 3)
    here.answers = lambda _: iter([Done(node_lost=False, error="RuntimeError: no room")])
    library = open_library()
    with pytest.raises(ClusterError, match="did nothing of what it was asked: RuntimeError: no r"):
        library.index([tmp_path / "media"], engine="ray")
    assert library.status()["failures"] == []


def test_stop_and_ctrl_c_store_what_is_embedded(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 12)
    library = open_library()
    stop = threading.Event()

    def answers(command: Command) -> Iterator[Any]:
        for number, message in enumerate(here.of(command)):
            if isinstance(command, EmbedCommand) and number == 2:
                stop.set()  # and then nothing comes: the run must not wait for it
                assert here.killed.wait(10)
            yield message

    here.answers = answers
    with stoppable(stop), pytest.raises(IndexStoppedError) as stopped:
        library.index([tmp_path / "media"], engine="ray")
    kept = stopped.value.report.indexed
    assert 0 < kept <= 4
    verify(library)
    here.answers = here.of

    def interrupt(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done > 2:
            raise KeyboardInterrupt

    with pytest.raises(IndexInterruptedError) as interrupted:
        library.index([tmp_path / "media"], engine="ray", on_progress=interrupt)
    verify(library)
    kept += interrupted.value.report.indexed
    assert kept < 12
    assert library.index([tmp_path / "media"], engine="ray").indexed == 12 - kept
    verify(library)


def test_workers_that_hang_die_or_starve_cost_one_file_each(
    tmp_path: Path, open_library: Open, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_stages, "decode_all", hazardous_decode_all)
    media = tmp_path / "media"
    good = write_pictures(media, 5)
    for name in ("hangs", "kills", "greedy"):
        shutil.copy(good[0], media / f"{name}.jpg")
        with (media / f"{name}.jpg").open("ab") as file:
            file.write(name.encode())  # a content of its own
    library = open_library(ingest={"timeout_s": 3, "max_memory_mb": 1024})
    report = library.index([media], engine="ray")
    assert counts(report) == {"files": 8, "indexed": 5, "failed": 3}
    reasons = {Path(failure.path).stem: failure.reason for failure in report.errors}
    assert "longer than 3 s" in reasons["hangs"]
    assert "the decoder crashed on it" in reasons["kills"]
    assert "more than 1024 MB" in reasons["greedy"]
    verify(library)


@pytest.mark.parametrize("stage", ["hash", "decode"])
def test_a_file_that_a_node_does_not_see_is_said_to_be_so(
    tmp_path: Path, open_library: Open, here: Here, stage: str
) -> None:
    photos = write_pictures(tmp_path / "media", 3)

    def answers(command: Command) -> Iterator[Any]:
        if isinstance(command, HashCommand) == (stage == "hash"):
            calls = [
                [dataclasses.replace(file, path=Path("/not/here") / file.path.name)]
                if file.path == photos[1]
                else [file]
                for call in command.calls
                for file in call
            ]
            command = dataclasses.replace(command, calls=calls)
        yield from here.of(command)

    here.answers = answers
    library = open_library()
    report = library.index([tmp_path / "media"], engine="ray")
    assert counts(report) == {"files": 3, "indexed": 2, "failed": 1}
    [failure] = report.errors
    assert failure.path == str(photos[1])
    assert f"cannot be read: node {os.uname().nodename} does not see it" in failure.reason
    here.answers = here.of  # mounted now
    assert library.index([tmp_path / "media"], engine="ray").indexed == 1


def test_a_file_that_is_gone_reads_as_with_the_local_engine(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    photos = write_pictures(tmp_path / "media", 2)

    def answers(command: Command) -> Iterator[Any]:
        photos[1].unlink(missing_ok=True)
        yield from here.of(command)

    here.answers = answers
    [failure] = open_library().index([tmp_path / "media"], engine="ray").errors
    assert failure.reason == "cannot be read: No such file or directory"


def test_batches_that_do_not_fit_are_halved_and_what_never_fits_is_listed(
    tmp_path: Path, open_library: Open, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "media", 6)
    Image.new("RGB", (64, 64), "white").save(tmp_path / "media" / "white.png")
    library = open_library()
    library._parts.embedder()  # embeds a word to see how it does
    whole = ClipEmbedder.embed_pixels
    sizes: list[int] = []

    def small(self: ClipEmbedder, pixels: Any) -> Any:
        sizes.append(len(pixels))
        if len(pixels) > 1 or pixels.min() == 255:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return whole(self, pixels)

    def at_once(command: Command) -> Iterator[Any]:
        files = [file for call in command.calls for file in call]
        yield here.rows(command, files)
        yield Done(node_lost=False)

    monkeypatch.setattr(ClipEmbedder, "embed_pixels", small)
    monkeypatch.setattr(ray_stages, "FRAMES_PER_CALL", 8)
    here.answers = at_once
    report = library.index([tmp_path / "media"], engine="ray")
    assert counts(report) == {"files": 7, "indexed": 6, "failed": 1}
    assert report.errors[0].reason == "there is not enough memory to embed it"
    assert max(sizes) == 7
    verify(library)


def test_a_node_with_another_checkpoint_ends_the_job(
    tmp_path: Path, open_library: Open, here: Here
) -> None:
    write_pictures(tmp_path / "media", 3)

    def answers(command: Command) -> Iterator[Any]:
        if isinstance(command, EmbedCommand):
            embedding = dataclasses.replace(command.embedding, fingerprint="0123456789abcdef")
            command = dataclasses.replace(command, embedding=embedding)
        yield from here.of(command)

    here.answers = answers
    library = open_library()
    with pytest.raises(EmbedderMismatchError, match=r"on node .* has other weights .*every node"):
        library.index([tmp_path / "media"], engine="ray")
    assert library.status()["failures"] == []


def test_work_is_cut_so_that_every_cpu_has_some_and_long_files_go_alone() -> None:
    def calls(kind: FileKind, count: int, at_once: int) -> list[list[File]]:
        return [
            [File(f"{kind}-{call}-{file}", Path("x"), kind) for file in range(at_once)]
            for call in range(count)
        ]

    def sizes(calls: list[list[File]], **options: Any) -> list[int]:
        return [sum(map(len, block)) for block in _blocks(calls, 4, **options)]

    many = calls("image", 1000, 8)
    assert set(sizes(many, alone=False)) == {64}
    assert sum(sizes(many, alone=False)) == 8000
    assert max(sizes(calls("image", 4, 8), alone=False)) == 8
    assert sizes(calls("image", 5, 1), alone=True) == [1] * 5
    mixed = [*calls("image", 8, 8), *calls("video", 2, 1), *calls("text", 3, 1), *many]
    blocks = _blocks(mixed, 4, alone=False)
    assert [file.key for block in blocks for call in block for file in call] == [
        file.key for call in mixed for file in call
    ]
    for block in blocks:
        kinds = [file.kind for call in block for file in call]
        assert "video" not in kinds or kinds == ["video"]


def test_without_the_package_the_error_says_how_to_get_it(
    media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "ray" else known(name)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'secondglance\[ray\]'"):
        open_library().index([media], engine="ray")


@pytest.mark.parametrize("address", ["ray://host:10001", "host", "host:0", ":6379", "host:x"])
def test_an_address_that_is_none_is_refused(media: Path, open_library: Open, address: str) -> None:
    with pytest.raises(InputError, match=r"no address of a Ray cluster.*auto, or host:port"):
        open_library().index([media], engine="ray", address=address)


def test_an_address_where_nothing_answers_is_said_at_once(media: Path, open_library: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    library = open_library()
    with pytest.raises(ClusterError, match=f"no Ray cluster answers at 127.0.0.1:{port}") as caught:
        library.index([media], engine="ray", address=f"127.0.0.1:{port}")
    assert not isinstance(caught.value, StoppedError)
    assert library.status()["vectors"] == 0


def test_what_ray_wrote_is_removed_though_workers_still_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ray"
    (folder / "logs").mkdir(parents=True)
    remove = shutil.rmtree
    left = iter([True, True])

    def remove_beside_a_worker(path: Path, *, ignore_errors: bool) -> None:
        remove(path, ignore_errors=ignore_errors)
        if next(left, False):
            (folder / "logs").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", remove_beside_a_worker)
    ray_engine._remove(folder)
    assert not folder.exists()
    assert next(left, None) is None
