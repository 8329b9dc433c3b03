"""Explanations of a library's hits: the right picture, frame or text; the real starter; errors."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from secondglance.cli.app import app
from secondglance.config import load_settings, read_preset
from secondglance.errors import InputError, MediaError
from secondglance.library import Library
from secondglance.pipelines.build import open_reranker
from secondglance.pipelines.explain import explain_pair
from secondglance.pipelines.explain_hit import hit_of_rank
from secondglance.scenes.drawing import draw
from secondglance.scenes.media import rendered
from secondglance.scenes.render import Renderer
from secondglance.scenes.scene import Group, Scene
from secondglance.scenes.vocabulary import kinds
from secondglance.types import Content, Hit, PairScore, Query
from tests.libraries import Open
from tests.media import picture, write_clip


class Brightness:
    """Log-odds are ten times the brightness of what is shown, plus one for each `dog`."""

    name = "brightness"

    def __init__(self) -> None:
        self.instructions: set[str | None] = set()

    def score(
        self, query: Content, documents: Sequence[Content], *, instruction: str | None = None
    ) -> list[PairScore]:
        self.instructions.add(instruction)
        return [PairScore(score=0.5, log_odds=self._odds(document)) for document in documents]

    def _odds(self, document: Content) -> float:
        frames = [frame for clip in document.videos for frame in clip.frames]
        shown = [self._light(image) for image in (*document.images, *frames)]
        return float(np.mean(shown)) * 10 if shown else float("".join(document.texts).count("dog"))

    def _light(self, image: Path | Image.Image) -> float:
        if isinstance(image, Path):
            with Image.open(image) as opened:
                return self._light(opened.convert("RGB"))
        return float(np.asarray(image.convert("L"), dtype=np.float64).mean()) / 255


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    dark = Image.new("RGB", (240, 160))
    dark.paste((255, 255, 255), (200, 40, 240, 80))
    dark.save(folder / "lamp.png")
    write_clip(folder / "clip.mp4", [20, 21], scene_s=2)
    (folder / "notes.txt").write_text("A dog on a beach.")
    return folder


@pytest.fixture
def library(media: Path, open_library: Open) -> Library:
    library = open_library()
    library.index([media])
    library._parts.__dict__["_reranker"] = Brightness()
    return library


def hit(library: Library, name: str) -> Hit:
    found = library.search("x", rerank=False, group=False).hits
    return next(each for each in found if Path(each.path).name == name)


def test_a_picture_of_a_library_is_explained_by_its_regions(library: Library) -> None:
    found = library.explain(
        Query(text="a lamp", instruction="Find lamps."), hit(library, "lamp.png").id
    )
    assert found.kind == "image"
    assert found.id == hit(library, "lamp.png").id
    assert found.regions is not None
    assert (found.regions.rows, found.regions.cols) == (4, 6)
    assert found.regions.peak == (5.5 / 6, 1.5 / 4)
    assert library._parts.reranker().instructions == {"Find lamps."}  # type: ignore[attr-defined]
    shown = library.shown_picture(found.id)
    assert shown is not None
    assert shown.size == (240, 160)


def test_a_stretch_of_a_video_is_explained_on_its_keyframe(library: Library) -> None:
    clip = hit(library, "clip.mp4")
    found = library.explain("x", clip.id, grid=2)
    assert found.kind == "video"
    assert found.regions is not None
    assert found.regions.at_s == pytest.approx(clip.keyframe_s)
    assert found.regions.width / found.regions.height == pytest.approx(96 / 72, rel=0.2)
    assert clip.start_s is not None
    shown = library.shown_picture(clip.id)
    assert shown is not None
    expected = np.asarray(picture(20 if clip.start_s < 2 else 21), dtype=float)
    assert np.abs(np.asarray(shown, dtype=float) - expected).mean() < 20


def test_a_text_is_explained_by_its_words(library: Library) -> None:
    found = library.explain("x", hit(library, "notes.txt").id)
    assert found.kind == "text"
    assert [w.text for w in found.words if w.effect == 1] == ["dog"]
    assert library.shown_picture(found.id) is None


def test_what_cannot_be_explained(library: Library, media: Path, tmp_path: Path) -> None:
    lamp = hit(library, "lamp.png")
    with pytest.raises(InputError, match="the query is empty"):
        library.explain(" ", lamp.id)
    for unknown in ("", "no-such-id"):
        with pytest.raises(InputError, match=f"no record '{unknown}'"):
            library.explain("x", unknown)
    warned = library.explain(Query(text="x", not_text="night"), lamp.id)
    assert warned.warnings[0] == "what is not wanted ('night') has no part in the explanation"
    library._parts.__dict__.pop("_reranker")
    with pytest.raises(MediaError, match=r"the query.*missing\.jpg"):
        library.explain(Query(image=tmp_path / "missing.jpg"), lamp.id)
    (media / "lamp.png").write_bytes(b"no picture")
    with pytest.raises(MediaError, match=r"lamp\.png"):
        library.explain("x", lamp.id)
    shutil.rmtree(media)
    with pytest.raises(MediaError, match="not there now"):
        library.explain("x", lamp.id)
    with pytest.raises(MediaError, match="not there now"):
        library.shown_picture(lamp.id)


def test_a_library_without_second_pass_says_so(media: Path, open_library: Open) -> None:
    library = open_library(rerank={"backend": "passthrough"})
    library.index([media])
    with pytest.raises(InputError, match="backend is passthrough"):
        library.explain("x", hit(library, "lamp.png").id)


def test_a_hit_by_rank(library: Library) -> None:
    query = Query(text="x")
    third = library.search(query, k=3).hits[2].id
    assert hit_of_rank(library.search, query, "", rank=3) == third
    assert hit_of_rank(library.search, query, "abc", rank=None) == "abc"
    with pytest.raises(InputError, match="no hit of rank 9: the search has 3"):
        hit_of_rank(library.search, query, "", rank=9)
    with pytest.raises(InputError, match="neither --id nor --rank"):
        hit_of_rank(library.search, query, "", rank=None)
    with pytest.raises(InputError, match="both --id and --rank"):
        hit_of_rank(library.search, query, "abc", rank=1)


def test_the_command_writes_the_overlay(library: Library, tmp_path: Path) -> None:
    lamp = hit(library, "lamp.png").id
    library.close()
    arguments = ["explain", "x", "--library", str(library.folder), "--grid", "2"]
    done = CliRunner().invoke(
        app, [*arguments, "--id", lamp, "--out", str(tmp_path / "why"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert f'"id": "{lamp}"' in done.stdout
    with Image.open(tmp_path / "why" / f"{lamp}-why.png") as drawn:
        assert drawn.size == (240, 160)
    plain = CliRunner().invoke(app, [*arguments, "--rank", "1", "--kind", "text", "--query-words"])
    assert plain.exit_code == 0, plain.output
    assert "A dog on a beach." in plain.stdout
    assert "pairs scored in" in plain.stdout


def test_the_starter_model_points_at_what_the_query_names() -> None:
    """One picture, two queries: each map has its peak on the thing its query names."""
    number = {kind.en[0]: place for place, kind in enumerate(kinds())}
    wanted = {"tractor": (0.3, 0.3), "octopus": (0.7, 0.7)}
    scene = Scene(
        place="meadow", time="day", weather="clear",
        groups=tuple(Group(kind=number[name], x=x, y=y) for name, (x, y) in wanted.items()),
    )  # fmt: skip
    drawing = draw(scene, random.Random(0))
    [pixels] = rendered(Renderer("cpu"), [drawing], (0.0,), width=192, height=192)
    reranker = open_reranker(load_settings(base=read_preset("starter")).rerank)
    for name, (x, y) in wanted.items():
        found = explain_pair(
            reranker,
            Content(texts=(f"a {name}",)),
            Content(images=(Image.fromarray(pixels[0]),)),
            grid=5,
        )
        assert found.regions is not None
        peak = found.regions.peak
        assert abs(peak[0] - x) < 0.15, (name, peak)
        assert abs(peak[1] - y) < 0.15, (name, peak)
        assert max(map(max, found.regions.effects)) > 1
