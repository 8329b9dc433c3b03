"""Naming and opening the libraries of a server, and what `serve` says of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.errors import InputError, LibraryError
from secondglance.library import Library
from secondglance.pipelines.sharing import SharedModels
from secondglance.server.libraries_file import read_libraries_file, specs_of_folders
from secondglance.server.opening import open_members, own_keys
from secondglance.server.turns import JobTurns, Turns

ROOT = Path(__file__).parents[2]
KEY, OTHER = "a-key-of-the-server-0123456789", "a-key-of-one-library-0123456789"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two libraries without files, a damaged one, and folders."""
    base = tmp_path_factory.mktemp("place")
    for name in ("photos", "lectures"):
        Library.open(
            base / f"{name}.library", preset="starter", settings={"store": {"backend": "exact"}}
        ).close()
    (base / "damaged.library").mkdir()
    (base / "damaged.library" / "library.json").write_text("{")
    (base / "films").mkdir()
    (base / "reports").mkdir()
    keys = base / "keys.txt"
    keys.write_text(f"{OTHER}\n")
    keys.chmod(0o600)
    return base


def written(place: Path, text: str) -> Path:
    file = place / "libraries.toml"
    file.write_text(text)
    return file


def test_a_file_names_libraries_relative_to_itself(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    file = written(
        place,
        """
        [library.photos]
        path = "photos.library"
        title = "Our photos"
        roots = ["films", "~"]
        api_key_file = "keys.txt"
        reports = ["reports"]
        config = "own.toml"
        settings.search.recall = 70

        [library."lectures.2024"]
        path = "lectures.library"
        """,
    )
    photos, lectures = read_libraries_file(file)
    assert (photos.name, photos.title, photos.path) == (
        "photos",
        "Our photos",
        place / "photos.library",
    )
    assert photos.roots == (place / "films", Path.home())
    assert (photos.api_key_file, photos.config) == (place / "keys.txt", place / "own.toml")
    assert photos.reports == (place / "reports",)
    assert photos.settings == {"search": {"recall": 70}}
    assert (lectures.name, lectures.title, lectures.roots) == ("lectures.2024", "", ())
    assert own_keys([photos, lectures], (KEY,)) == {"photos": (OTHER,), "lectures.2024": (KEY,)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no library"),
        ("library = 3", "names no library"),
        ("[libary.a]\npath='x'", "unknown key 'libary'"),
        ("[library]\na = 'x'", "library.a in .* is no table"),
        ("[library.a]\npth = 'x'", r"unknown key 'pth' in \[library.a\] of .*did you mean 'path'"),
        ("[library.a]\npath = 'x'\ncolour = 1", "unknown key 'colour'.*known: path, title, roots"),
        ("[library.a]\ntitle = 'x'", r"there is no path in \[library.a\]"),
        ("[library.a]\npath = 3", "path = 3 in .* is no text"),
        ("[library.a]\npath = ''", "path = '' in .* is no path"),
        ("[library.a]\npath = 'x'\nroots = 'films'", "roots in .* is no list of folders"),
        ("[library.a]\npath = 'x'\nroots = ['nowhere']", "roots in .*nowhere is not a folder"),
        ("[library.a]\npath = 'x'\nkeys = ['secret']", "keys do not belong into this file"),
        ("[library.a]\npath = 'x'\nsettings = 'fast'", "settings in .* is no table"),
        ('[library.a]\npath = "x"\ntitle = "a\\nb"', "title in .* or a line break"),
        ("[library.'a/b']\npath = 'x'", "'a/b' in .* cannot be the name of a library"),
        ("[library.'.']\npath = 'x'", "cannot be the name"),
        ("[library.a]\npath='x'\n[library.A]\npath='y'", "2 libraries would be called 'a'"),
        ("[library.a]\npath='x'\n[library.b]\npath='./x'", "a and b are the same library folder"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(place: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_libraries_file(written(place, text))
    assert "secret" not in str(caught.value)


def test_folders_give_their_names(place: Path) -> None:
    folders = [Path("/x/photos.library"), Path("/x/My talks (2024).library"), Path("~/lectures")]
    specs = specs_of_folders(folders)
    assert [spec.name for spec in specs] == ["photos", "My-talks-2024", "lectures"]
    assert [spec.title for spec in specs] == ["", "My talks (2024)", ""]
    assert specs[2].path == Path.home() / "lectures"
    with pytest.raises(InputError, match=r"2 libraries would be called 'photos': /x/.*, /y/"):
        specs_of_folders([Path("/x/photos.library"), Path("/y/Photos")][::1])
    with pytest.raises(InputError, match="makes no name for an address"):
        specs_of_folders([Path("/x/照片.library")])
    (place / "link.library").symlink_to(place / "photos.library")
    with pytest.raises(InputError, match="photos and link are the same library folder"):
        specs_of_folders([place / "photos.library", place / "link.library"])


def test_one_that_fails_keeps_no_other_and_all_that_fail_end_it(place: Path) -> None:
    specs = specs_of_folders([place / f"{n}.library" for n in ("photos", "damaged", "absent")])
    keys = own_keys(specs, ())
    with ExitStack() as stack:
        members, warnings = open_members(specs, keys=keys, stack=stack)
        assert [member.library is not None for member in members] == [True, False, False]
        assert all(member.reason for member in members[1:])
        assert not any(str(place) in member.reason for member in members)
        # Whoever runs the server is told more.
        assert len([w for w in warnings if str(place) in w and "is unavailable" in w]) == 2
    with ExitStack() as stack, pytest.raises(LibraryError, match="no library can be opened"):
        open_members(specs[1:], keys=keys, stack=stack)


def test_settings_of_a_library_go_before_those_of_all(place: Path) -> None:
    text = "[library.a]\npath='photos.library'\nsettings.search.recall=70\n"
    specs = read_libraries_file(written(place, text + "[library.b]\npath='lectures.library'"))
    common = {"search": {"recall": 30, "rerank_weight": 0.5}}
    with ExitStack() as stack:
        keys = own_keys(specs, ())
        members, _ = open_members(specs, keys=keys, stack=stack, settings=common)
        found = [member.library.settings.search for member in members if member.library]
    assert [(each.recall, each.rerank_weight) for each in found] == [(70, 0.5), (30, 0.5)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--library", "photos.library", "--libraries", "l.toml"], "not both"),
        (["--libraries", "absent.toml"], "cannot read the settings file"),
        (["--library", "photos.library", "--library", "photos.library"], "would be called"),
        (
            ["-L", "photos.library", "-L", "lectures.library", "--index-root", "films"],
            "--index-root does not say for which of several libraries",
        ),
        (
            ["-L", "photos.library", "-L", "lectures.library", "--host", "0.0.0.0"],
            "library photos: the host 0.0.0.0 can be reached by others",
        ),
        (["-L", "damaged.library", "-L", "absent.library"], "no library can be opened"),
        ([], "name a library folder"),
    ],
)
def test_serve_refuses_what_it_cannot_serve(
    place: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("SECONDGLANCE_LIBRARY", raising=False)
    monkeypatch.delenv("SECONDGLANCE_API_KEYS", raising=False)
    result = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert result.exit_code != 0
    shown = f"{result.output} {result.exception}"
    assert " ".join(said.split()) in " ".join(shown.replace("│", " ").split())


def test_serve_lists_the_libraries_and_ends_with_all_of_them(place: Path) -> None:
    text = "[library.photos]\npath='photos.library'\ntitle='Our photos'\napi_key_file='keys.txt'\n"
    text += "[library.lost]\npath='absent.library'\n[library.talks]\npath='lectures.library'\n"
    command = [sys.executable, "-m", "secondglance", "serve", "--port", "0", "--libraries"]
    process = subprocess.Popen(
        [*command, str(written(place, text))],
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        text=True,
    )
    try:
        assert process.stderr is not None
        said: list[str] = []
        while not any("talks" in line for line in said):
            said.append(process.stderr.readline())
            assert said[-1], said
        url = next(line.split(" at ")[1].split(" - ")[0] for line in said if " at http" in line)
        assert f"3 libraries at {url} - Ctrl-C ends it" in "".join(said)
        assert f"photos  {url}libraries/photos/  Our photos" in "".join(said)
        assert "lost  unavailable" in "".join(said)
        found: Any = []
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                found = httpx.get(f"{url}libraries", timeout=30).json()
                break
        assert [each["name"] for each in found] == ["lost", "talks"]
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0, rest
        assert "Traceback" not in rest
    finally:
        process.kill()
        process.communicate()


def test_turns_go_round_and_none_is_lost() -> None:
    async def told() -> list[str]:
        turns, order = Turns(2), []
        for name in ("a", "b", "c"):
            turns.join(name)

        async def work(name: str) -> None:
            await turns.take(name)
            order.append(name)
            await asyncio.sleep(0)
            turns.give_back(name)

        # One of two turns is the most of one owner.
        await turns.take("a")
        assert not turns.has_room("a")
        assert turns.has_room("b")
        await turns.take("b")
        waiting = [asyncio.create_task(work(name)) for name in "aaaabbc"]
        await asyncio.sleep(0)
        waiting[1].cancel()
        turns.give_back("a")
        turns.give_back("b")
        await asyncio.gather(*waiting, return_exceptions=True)
        assert all(turns.has_room(name) for name in "abc")
        # Others go on while one is alone, and it waits for what runs of its own.
        await turns.take("a")
        with pytest.raises(asyncio.TimeoutError):
            async with turns.alone("a", 0.01):
                raise AssertionError
        turns.give_back("a")
        async with turns.alone("a", 1.0):
            assert not turns.has_room("a")
            late = asyncio.create_task(work("a"))
            await work("b")
            assert not late.done()
        await late
        # A turn that comes together with the end of the wait goes to the next one.
        await turns.take("a")
        gone = asyncio.create_task(work("a"))
        await asyncio.sleep(0)
        turns.give_back("a")
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert turns.has_room("a")
        turns.close()
        return order

    order = asyncio.run(told())
    assert order[:3] == ["a", "b", "c"]
    assert sorted(order[:6]) == ["a", "a", "a", "b", "b", "c"]


def test_jobs_wait_in_line_until_they_are_stopped() -> None:
    turns, stop, go = JobTurns(1), threading.Event(), threading.Event()
    assert turns.take(go)
    assert not turns.is_free()
    got: list[bool] = []
    waits = threading.Thread(target=lambda: got.append(turns.take(stop)))
    waits.start()
    stop.set()
    waits.join(10)
    assert got == [False]
    turns.give_back()
    assert turns.is_free()
    assert turns.take(go)


def test_models_are_lent_once_and_freed_with_the_last() -> None:
    models, made = SharedModels(), []

    def load() -> object:
        made.append(object())
        return made[-1]

    first, second = models.take("key", load), models.take("key", load)
    assert first is second
    assert models.take("other", load) is not first
    assert not models.give_back(first)
    assert models.give_back(second)
    assert models.take("key", load) is not first
    assert models.give_back(object())  # of nobody else

    def fails() -> object:
        raise ValueError("broken")

    before = len(models)
    with pytest.raises(ValueError, match="broken"):
        models.take("broken", fails)
    assert len(models) == before
    assert models.take("broken", load) is made[-1]
