"""`status --verify`: whether catalog and store agree, and what brings them together again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from secondglance.cli.app import app
from secondglance.types import Record
from tests.libraries import Open, counts, verify


def break_it(open_library: Open, media: Path) -> tuple[str, str]:
    """Loses one record of the store and adds a foreign one; returns (lost file, lost id)."""
    library = open_library()
    library.index([media])
    lost = media / "photos" / "picture-0002.jpg"
    row = library._parts.catalog.file(lost)
    assert row is not None
    assert row.hash is not None
    [id_] = library._parts.catalog.record_ids(row.hash)
    store = library._parts.store()
    [record] = store.get([id_])
    store.delete([id_])
    vector = np.ones_like(record.vector)
    store.upsert([Record(id="foreign", vector=vector, payload=record.payload)])
    return str(lost), id_


def test_a_good_library_agrees(media: Path, open_library: Open) -> None:
    library = open_library()
    assert library.verify().agrees
    library.index([media])
    found = library.verify()
    assert found.agrees
    assert found.remedy is None
    assert (found.files, found.contents, found.records, found.stored) == (8, 8, 11, 11)
    assert (found.missing, found.foreign, found.duplicates, found.unfinished) == (0, 0, 0, 0)


def test_what_is_missing_and_foreign_is_found_and_repaired(media: Path, open_library: Open) -> None:
    lost, id_ = break_it(open_library, media)
    library = open_library()
    found = library.verify()
    assert not found.agrees
    assert (found.missing, found.foreign, found.lost_files) == (1, 1, (lost,))
    assert found.examples == {"missing": [id_], "foreign": ["foreign"], "duplicates": []}
    assert "--repair" in (found.remedy or "")
    assert library.verify(repair=True).repaired
    after = library.verify()
    assert after.agrees
    assert after.unfinished == 1
    assert [f["path"] for f in library.status()["failures"]] == [lost]
    assert counts(library.index([media])) == {"files": 8, "indexed": 1, "unchanged": 7}
    assert library.verify().unfinished == 0
    assert library.status()["failures"] == []
    verify(library)


def test_an_announced_content_is_unfinished_and_no_disagreement(
    media: Path, open_library: Open
) -> None:
    library = open_library()
    library.index([media])
    with library._parts.catalog.transaction() as database:
        database.execute("UPDATE contents SET done = 0 WHERE kind = 'video'")
        database.execute("DELETE FROM files WHERE kind = 'video'")
    found = library.verify()
    assert found.agrees
    assert found.unfinished == 1
    assert "index" in (found.remedy or "")
    # A file that is marked done before its content is another matter.
    with library._parts.catalog.transaction() as database:
        database.execute("UPDATE contents SET done = 0 WHERE kind = 'text'")
    assert library.verify().lost_files == (str(media / "notes.txt"),)
    assert not library.verify().agrees


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_while_records_are_removed_is_no_disagreement(
    media: Path, open_library: Open, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    library = open_library()
    library.index([media])
    (media / "photos" / "picture-0002.jpg").unlink()
    store = library._parts.store()
    place, name = (
        (store, "delete") if when == "before" else (library._parts.catalog, "drop_contents")
    )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            library.index([media])
    found = library.verify()
    assert found.agrees, found
    assert (found.files, found.contents, found.records) == (7, 7, 10)
    assert (found.stored, found.unfinished) == (11 if when == "before" else 10, 1)
    library.index([media])
    found = library.verify()
    assert (found.agrees, found.stored, found.unfinished) == (True, 10, 0)


def test_the_command_exits_with_1_where_they_disagree(
    media: Path, open_library: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, _ = break_it(open_library, media)
    open_library.close()
    command = ["status", "--library", str(open_library.folder), "--verify"]
    assert app([*command, "--json"], standalone_mode=False) == 1
    found = json.loads(capsys.readouterr().out)["verify"]
    assert (found["agrees"], found["missing"], found["foreign"]) == (False, 1, 1)
    assert app(command, standalone_mode=False) == 1
    shown = capsys.readouterr().out
    assert "1 missing, 1 foreign" in shown
    assert lost in shown.replace("\n", "")
    assert not app([*command, "--repair"], standalone_mode=False)
    assert not app(command, standalone_mode=False)
