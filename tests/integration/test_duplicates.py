"""Copies and pictures that look alike: listed, and one result each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from secondglance.cli.app import app
from secondglance.errors import InputError
from tests.libraries import Open, counts, verify
from tests.media import picture, write_pictures


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two exact copies and a smaller version of one picture, two of a text, two others."""
    album = tmp_path / "album"
    write_pictures(album, 3)
    large = album / "large.png"
    picture(7, width=640, height=480).save(large)
    shutil.copy(large, album / "large again.png")
    picture(7, width=640, height=480).resize((320, 240)).save(album / "small.jpg", quality=60)
    for name in ("note.txt", "note copy.txt"):
        (album / name).write_text("the same words")
    return album


def test_duplicates_are_listed_with_the_one_to_keep(album: Path, open_library: Open) -> None:
    library = open_library()
    library.index([album])
    found = library.duplicates()
    near, exact = found.groups
    assert near.kind == "near"
    assert [(Path(f.path).name, f.width, f.keep) for f in near.files] == [
        ("large.png", 640, True),
        ("large again.png", 640, False),
        ("small.jpg", 320, False),
    ]
    sizes = {path.name: path.stat().st_size for path in album.iterdir()}
    assert near.spare_bytes == sizes["large again.png"] + sizes["small.jpg"]
    assert exact.kind == "exact"
    assert [Path(f.path).name for f in exact.files] == ["note.txt", "note copy.txt"]
    assert len(list(album.iterdir())) == 8

    # Byte for byte only: the small one is another picture then.
    strict = library.duplicates(threshold=1.0)
    assert {group.kind for group in strict.groups} <= {"exact", "near"}
    with pytest.raises(InputError, match=r"0\.5; it must be in"):
        library.duplicates(threshold=0.5)

    (album / "large.png").unlink()
    assert [f.absent for f in library.duplicates().groups[0].files] == [False, False, True]
    library.index([album])
    assert [Path(f.path).name for f in library.duplicates().groups[0].files] == [
        "large again.png",
        "small.jpg",
    ]
    for name in ("large again.png", "small.jpg"):
        (album / name).unlink()
    library.index([album])
    verify(library)
    left = library._parts.catalog._db.execute("SELECT count(*) FROM looks").fetchone()
    assert left == (3,)


def test_pictures_of_an_earlier_release_are_looked_at_once(album: Path, open_library: Open) -> None:
    library = open_library()
    library.index([album])
    expected = library.duplicates()
    with library._parts.catalog.transaction() as database:
        database.execute("DROP TABLE looks")
    assert counts(library.index([album])) == {"files": 8, "unchanged": 8}
    asked: list[tuple[int, int]] = []
    found = library.duplicates(on_progress=lambda *progress: asked.append(progress))
    assert [[f.path for f in group.files] for group in found.groups] == [
        [f.path for f in group.files] for group in expected.groups
    ]
    assert asked[-1] == (5, 5)
    asked.clear()
    library.duplicates(on_progress=lambda *progress: asked.append(progress))
    assert asked == []


def test_near_duplicates_are_one_result(album: Path, open_library: Open) -> None:
    library = open_library()
    library.index([album])
    same = {str(album / name) for name in ("large.png", "large again.png", "small.jpg")}
    [hit] = [h for h in library.search("x", k=10, kind="image").hits if h.near_duplicates]
    assert {hit.path, *hit.copies, *hit.near_duplicates} == same
    assert hit.rerank_score is not None
    apart = library.search("x", k=10, kind="image", group_duplicates=False).hits
    assert len(apart) == 5
    assert not any(h.near_duplicates for h in apart)
    # Two of the five are one; asked for four, all four distinct ones come.
    assert len(library.search("x", k=4, recall=4, kind="image", rerank=False).hits) == 4
    # The version that is there is shown, not the one that is away.
    for name in ("large.png", "large again.png"):
        (album / name).rename(album.parent / name)
    [hit] = [h for h in library.search("x", k=10, kind="image").hits if h.near_duplicates]
    assert (Path(hit.path).name, hit.absent) == ("small.jpg", False)


def test_the_command_lists_and_deletes_nothing(
    album: Path, open_library: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    open_library().index([album])
    open_library.close()
    command = ["duplicates", "--library", str(open_library.folder)]
    app([*command, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert [group["kind"] for group in found["groups"]] == ["near", "exact"]
    assert [Path(f["path"]).name for f in found["groups"][0]["files"] if f["keep"]] == ["large.png"]
    assert found["spare_bytes"] == sum(group["spare_bytes"] for group in found["groups"])
    assert len(list(album.iterdir())) == 8
