"""A search that was made before, and what makes it another one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from secondglance.library import Library
from secondglance.pipelines.render import timings
from secondglance.types import Query, SearchResult
from tests.media import picture, write_clip, write_pictures

Opener = Callable[..., Library]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    write_pictures(folder, 4)
    write_clip(folder / "clip.mp4", [20, 21], scene_s=2)
    (folder / "notes.txt").write_text("A dog on a beach.")
    return folder


@pytest.fixture
def opener(tmp_path: Path, media: Path) -> Iterator[Opener]:
    """Opens one library of the starter preset with other settings of the second pass."""
    opened: list[Library] = []

    def open_library(**rerank: Any) -> Library:
        while opened:
            opened.pop().close()
        library = Library.open(
            tmp_path / "library",
            preset="starter",
            # One look a video, so that there are as many scores as hits.
            settings={"store": {"backend": "exact"}, "rerank": rerank, "search": {"moments": 1}},
        )
        opened.append(library)
        return library

    open_library().index([media])
    yield open_library
    for library in opened:
        library.close()


def scores(result: SearchResult) -> dict[str, float | None]:
    return {f"{hit.path}@{hit.start_s}": hit.rerank_score for hit in result.hits}


def test_the_same_search_again_is_all_hits_with_the_same_scores(opener: Opener) -> None:
    library = opener()
    first = library.search("a dog")
    assert len(first.hits) == 6
    assert first.rerank_cache_hits == 0
    assert "from the cache" not in timings(first)
    again = library.search("a dog", k=10)
    assert again.rerank_cache_hits == 6
    assert again.hits == first.hits
    assert json.loads(json.dumps(again.to_dict()))["rerank_cache_hits"] == 6
    assert timings(again).endswith("; 6 scores from the cache")
    library = opener()
    later = library.search("a dog", budget_ms=60_000)
    assert later.rerank_cache_hits == 6
    assert later.hits == first.hits
    assert library.search("a cat").rerank_cache_hits == 0


def test_groups_within_a_time_budget_are_summed(opener: Opener, media: Path) -> None:
    write_pictures(media, 16, first=100)
    library = opener()
    library.index([media])
    first = library.search("a dog", k=22, budget_ms=600_000)
    assert all(hit.rerank_score is not None for hit in first.hits)
    again = library.search("a dog", k=22, budget_ms=600_000)
    assert again.rerank_cache_hits == len(again.hits) == 22
    # With words to avoid, each candidate is scored twice, and one half is known.
    assert library.search(Query(text="a dog", not_text="a cat"), k=22).rerank_cache_hits == 22


def test_other_bytes_in_a_file_get_a_score_of_their_own(opener: Opener, media: Path) -> None:
    library = opener()
    first = library.search("a dog", kind="image")
    path = media / "picture-0001.jpg"
    picture(77).save(path)
    changed = library.search("a dog", kind="image")
    assert changed.rerank_cache_hits == 3
    plain = opener(score_cache_mb=0).search("a dog", kind="image")
    assert plain.rerank_cache_hits == 0
    assert scores(changed) == pytest.approx(scores(plain), abs=1e-4)
    assert scores(changed)[f"{path}@None"] != scores(first)[f"{path}@None"]
    path.unlink()
    gone = opener().search("a dog", kind="image")
    assert gone.rerank_cache_hits == 3
    assert [hit.path for hit in gone.hits if hit.error] == [str(path)]


def test_another_instruction_limit_or_type_is_another_score(opener: Opener) -> None:
    opener().search("a dog")
    assert opener(batch_tokens=512).search("a dog").rerank_cache_hits == 6
    library = opener()
    asked = library.search(Query(text="a dog", instruction="Find photographs of the animal."))
    assert asked.rerank_cache_hits == 0
    for changed in (
        {"instruction": "Find it."},
        {"max_pixels": 16_384},
        {"max_frames": 4},
        {"max_length": 4096},
        {"dtype": "bfloat16"},
    ):
        assert opener(**changed).search("a dog").rerank_cache_hits == 0, changed


def test_a_damaged_cache_is_begun_anew(
    opener: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opener().search("a dog")
    opener()  # which closes the library before
    (tmp_path / "library" / "scores.sqlite").write_bytes(b"no database" * 1000)
    library = opener()
    again = library.search("a dog")
    assert again.hits == first.hits
    assert again.rerank_cache_hits == 0
    assert library.search("a dog").rerank_cache_hits == 6
    assert ["is now called" in record.message for record in caplog.records] == [True]


def test_no_cache_no_file(opener: Opener, tmp_path: Path) -> None:
    library = opener(score_cache_mb=0)
    for _ in range(2):
        assert library.search("a dog").rerank_cache_hits == 0
    assert not list((tmp_path / "library").glob("scores*"))
