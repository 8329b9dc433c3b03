"""Folders by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from secondglance.server.roots import Roots

if TYPE_CHECKING:
    from secondglance.library import Library


class Holding:
    """As much of a library as has roots."""

    def __init__(self, *roots: str) -> None:
        self._roots = roots

    def roots(self) -> tuple[str, ...]:
        return self._roots


def roots(*paths: str, more: tuple[Path, ...] = ()) -> Roots:
    return Roots(cast("Library", Holding(*paths)), more)


def test_names_are_unique_and_do_not_depend_on_order() -> None:
    paths = ("/a/2023/photos", "/a/2024/photos", "/b/2024/photos", "/c/clips", "/")
    names = {
        "photos (2023)": Path("/a/2023/photos"),
        "photos (2024)": Path("/a/2024/photos"),
        "photos (2024) 2": Path("/b/2024/photos"),
        "clips": Path("/c/clips"),
        "root": Path("/"),
    }
    assert roots(*paths).by_name == names
    assert roots(*reversed(paths)).by_name == names
    assert roots(*paths, more=(Path("/c/clips"),)).by_name == names


def test_a_path_is_shown_from_the_nearest_root_down() -> None:
    found = roots("/srv/media", "/srv/media/films")
    assert found.shown("/srv/media/films/a b.mp4") == "films/a b.mp4"
    assert found.shown("/srv/media/a.jpg") == "media/a.jpg"
    assert found.shown("/srv/media") == "media"
    assert found.shown("/etc/passwd") == "passwd"


def test_messages_name_roots_and_no_other_folder() -> None:
    found = roots("/srv/My Media")
    text = "/srv/My Media/a b.jpg: not like /var/lib/x.jpg; see /srv/My Media"
    assert found.in_text(text) == "My Media/a b.jpg: not like x.jpg; see My Media"
