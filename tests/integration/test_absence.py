"""Drives that go away and come back, and removals that somebody must agree to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from secondglance.cli.app import app
from secondglance.errors import InputError
from secondglance.pipelines.removal import RemovalRefusedError
from tests.libraries import Open, counts, stored_ids, verify
from tests.media import write_pictures

pytestmark = pytest.mark.usefixtures("one_embedder")


def test_a_drive_that_is_away_keeps_its_entries_until_it_is_back(
    tmp_path: Path, open_library: Open
) -> None:
    drive, local = tmp_path / "drive", tmp_path / "local"
    write_pictures(drive, 4)
    write_pictures(local, 30, first=10)
    library = open_library()
    library.index([drive, local])
    before = stored_ids(library)

    for state in ("missing", "empty"):
        drive.rename(tmp_path / "unplugged")
        if state == "empty":
            drive.mkdir()
        for prune in (False, True):
            report = library.index([local], prune=prune)
            assert counts(report) == {"files": 30, "unchanged": 30}
            assert report.absent == (4 if prune else 0)
        report = library.index([drive, local])
        assert counts(report) == {"files": 30, "unchanged": 30}
        assert report.absent == 4
        why = {"missing": "not there", "empty": "empty"}[state]
        assert f"{drive} is {why}; 4 indexed files are kept and marked" in report.warnings[0]
        roots = {root["path"]: root for root in library.status()["roots"]}
        assert roots[str(drive)] == {
            "path": str(drive),
            "present": False,
            "absence": state,
            "files": 4,
        }
        assert roots[str(local)]["present"]
        hits = library.search("x", k=34).hits
        assert {hit.path for hit in hits if hit.absent} == {
            str(drive / f"picture-{n:04}.jpg") for n in range(4)
        }
        for hit in hits:
            assert (hit.rerank_score is None) == hit.absent
            assert ("not there now" in (hit.error or "")) == hit.absent
        shutil.rmtree(drive, ignore_errors=True)
        (tmp_path / "unplugged").rename(drive)

    assert not any(hit.absent for hit in library.search("x", k=34, rerank=False).hits)
    assert counts(library.index([drive, local])) == {"files": 34, "unchanged": 34}
    assert stored_ids(library) == before


def test_a_drive_below_a_named_folder_is_noticed(tmp_path: Path, open_library: Open) -> None:
    drive = tmp_path / "home" / "drive"
    write_pictures(drive, 3)
    write_pictures(tmp_path / "home", 3, first=10)
    library = open_library()
    library.index([drive])
    # Known below their own root first; then as part of the larger folder, while away.
    shutil.rmtree(drive)
    drive.mkdir()
    report = library.index([tmp_path / "home"], prune=True)
    assert (report.removed, report.absent) == (0, 3)


def test_what_moved_from_a_drive_that_is_away_is_a_copy(tmp_path: Path, open_library: Open) -> None:
    drive = tmp_path / "drive"
    write_pictures(drive, 2)
    library = open_library()
    library.index([drive])
    shutil.copytree(drive, tmp_path / "local")
    shutil.rmtree(drive)
    drive.mkdir()
    report = library.index([tmp_path / "local"])
    assert counts(report) == {"files": 2, "indexed": 2}
    assert report.segments == 0
    hits = library.search("x", rerank=False).hits
    assert [(Path(hit.path).parent.name, hit.absent) for hit in hits] == [("local", False)] * 2
    assert all(Path(hit.copies[0]).parent == drive for hit in hits)


def test_many_deletions_need_a_yes(tmp_path: Path, open_library: Open) -> None:
    media = tmp_path / "media"
    paths = write_pictures(media, 24)
    library = open_library()
    library.index([media])
    for path in paths[:10]:
        path.unlink()
    assert library.index([media]).removed == 10  # few, whatever share they are
    more = write_pictures(media, 16, first=50)
    assert library.index([media]).indexed == 16
    for path in more[:11]:
        path.unlink()
    report = library.index([media])
    assert (report.removed, report.absent) == (0, 11)
    assert "11 of 30 indexed files are gone, more than 10%" in report.warnings[0]
    assert "--prune" in report.warnings[0]

    write_pictures(media, 1, first=90)
    with pytest.raises(RemovalRefusedError, match=r"remove 11 of 31 .*--prune --yes") as refused:
        library.index([media], prune=True)
    assert (refused.value.report.indexed, refused.value.report.removed) == (1, 0)

    asked: list[tuple[int, int]] = []

    def answer(count: int, total: int) -> bool:
        asked.append((count, total))
        return len(asked) > 1

    assert library.index([media], prune=True, confirm=answer).removed == 0
    report = library.index([media], prune=True, confirm=answer)
    assert (report.removed, report.absent) == (11, 0)
    assert asked == [(11, 31)] * 2
    verify(library)


def test_a_drive_that_was_sold_is_pruned_by_name(tmp_path: Path, open_library: Open) -> None:
    drive = tmp_path / "drive"
    write_pictures(drive, 2)
    write_pictures(tmp_path / "local", 2, first=10)
    library = open_library()
    library.index([drive, tmp_path / "local"])
    shutil.rmtree(drive)
    with pytest.raises(InputError, match="no file or folder"):
        library.index([tmp_path / "typo"])
    with pytest.raises(RemovalRefusedError, match="2 of 4"):
        library.index([drive], prune=True)
    assert library.index([drive], prune=True, confirm=lambda *_: True).removed == 2
    assert [root["path"] for root in library.status()["roots"]] == [str(tmp_path / "local")]
    verify(library)


def test_prune_without_a_terminal_needs_yes(
    tmp_path: Path, open_library: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    media = tmp_path / "media"
    paths = write_pictures(media, 12)
    open_library().index([media])
    open_library.close()
    for path in paths[:4]:
        path.unlink()
    command = ["index", str(media), "--library", str(open_library.folder), "--prune", "--json"]
    with pytest.raises(RemovalRefusedError, match=r"remove 4 of 12 .*--prune --yes"):
        app(command, standalone_mode=False)
    report = json.loads(capsys.readouterr().out)
    assert (report["removed"], report["absent"], report["unchanged"]) == (0, 4, 8)
    app([*command, "--yes"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["removed"] == 4
