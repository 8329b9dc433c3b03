"""Videos in a library: segments that show the same become one, and nothing stale is left."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from secondglance.library import Library
from secondglance.pipelines.alike import merge_alike
from secondglance.types import Segment
from tests.libraries import Open, stored_ids, verify
from tests.media import write_clip


def stretches(library: Library) -> list[tuple[object, object, object]]:
    catalog, store = library._parts.catalog, library._parts.store()
    ids = [row[0] for row in catalog._db.execute("SELECT id FROM records").fetchall()]
    found = [record.payload for record in store.get(ids)]
    return sorted((p["start_s"], p["end_s"], p["position"]) for p in found)


def test_a_still_shot_is_one_segment(tmp_path: Path, open_library: Open) -> None:
    write_clip(tmp_path / "videos" / "still.mp4", [1], scene_s=14)
    library = open_library(ingest={"alike": 0.9999})
    report = library.index([tmp_path / "videos"])
    assert (report.indexed, report.segments) == (1, 1)
    assert stretches(library) == [(0, 14, 0)]
    verify(library)


def test_a_video_cut_anew_leaves_nothing_of_the_old_cut(tmp_path: Path, open_library: Open) -> None:
    write_clip(tmp_path / "videos" / "clip.mp4", [1, 2], scene_s=4)
    open_library().index([tmp_path / "videos"])
    open_library.close()
    library = open_library(ingest={"max_segment_s": 1.0})
    before = stored_ids(library)
    # As a run leaves it that is killed after the vectors and before the file.
    library._parts.catalog._db.execute("DELETE FROM files")
    library._parts.catalog._db.execute("UPDATE contents SET done = 0")
    library._parts.catalog._db.commit()
    library.index([tmp_path / "videos"])
    assert stretches(library) == [(float(i), float(i + 1), i) for i in range(8)]
    assert not before & stored_ids(library)
    verify(library)


def test_finding_shots_goes_on_in_another_call(tmp_path: Path, open_library: Open) -> None:
    write_clip(tmp_path / "videos" / "clip.mp4", list(range(8)), scene_s=2)
    whole = open_library("whole")
    whole.index([tmp_path / "videos"])
    portions = open_library("portions")
    limits = dataclasses.replace(portions._parts.limits, portion_s=0.0)
    portions._parts.__dict__["limits"] = limits
    portions.index([tmp_path / "videos"])
    assert stretches(portions) == stretches(whole)
    assert len(stretches(whole)) == 8
    assert stored_ids(portions) == stored_ids(whole)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_a_second_with_either_decoder(
    tmp_path: Path, open_library: Open, decoder: str
) -> None:
    write_clip(tmp_path / "videos" / "clip.mp4", [1, 2], scene_s=2)
    library = open_library(ingest={"fps": 2.0, "video_decoder": decoder})
    library.index([tmp_path / "videos"])
    assert stretches(library) == [(i / 2, i / 2 + 0.5, i) for i in range(8)]


# Merging


def unit(angle: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


def segments(count: int) -> list[Segment]:
    return [
        Segment(kind="video", start_s=5.0 * i, end_s=5.0 * i + 5, keyframe_s=5.0 * i, position=i)
        for i in range(count)
    ]


def merged(angles: dict[int, float], count: int, alike: float = 0.98) -> list[tuple[float, float]]:
    vectors = {place: unit(angle) for place, angle in angles.items()}
    found = merge_alike(segments(count), vectors, alike=alike, max_segment_s=5.0)
    assert [segment.position for segment, _ in found] == list(range(len(found)))
    return [(segment.start_s or 0.0, segment.end_s or 0.0) for segment, _ in found]


def test_alike_neighbours_become_one() -> None:
    assert merged({0: 0, 1: 0.05, 2: 1.0, 3: 1.0, 4: 0}, 5) == [(0, 10), (10, 20), (20, 25)]
    assert merged({0: 0, 1: 0, 2: 0}, 3, alike=1.0) == [(0, 5), (5, 10), (10, 15)]


def test_slow_changes_do_not_add_up() -> None:
    # cos 0.15 = 0.989, cos 0.3 = 0.955: each is like its neighbour, and not like the second next.
    assert merged({i: 0.15 * i for i in range(4)}, 4) == [(0, 10), (10, 20)]


def test_a_damaged_keyframe_is_a_gap() -> None:
    assert merged({0: 0, 2: 0}, 3) == [(0, 5), (10, 15)]


def test_merged_segments_end_after_a_minute() -> None:
    assert merged(dict.fromkeys(range(30), 0.0), 30) == [(0, 60), (60, 120), (120, 150)]
