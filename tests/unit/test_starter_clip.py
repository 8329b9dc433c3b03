"""The starter CLIP that ships with the package: it sees, in both languages, and says what it lacks.

Thresholds lie below the least value that eight seeds gave.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from secondglance.config import load_settings, read_preset
from secondglance.errors import ModelError
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.ingest.images import resize
from secondglance.pipelines.builtin import STARTER, clip_folder, starter_folder
from secondglance.scenes.drawing import STILL_S, draw
from secondglance.scenes.edit import differences, near_miss
from secondglance.scenes.examples import say
from secondglance.scenes.media import rendered
from secondglance.scenes.plan import Plan, full_plan
from secondglance.scenes.render import Renderer
from secondglance.scenes.scene import Scene, sample
from secondglance.scenes.vocabulary import Difference, Language, kinds

SIDE = 192
COUNT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Scenes of the test split with everything that can be said of them, and their pictures."""

    scenes: list[Scene]
    plans: list[Plan]
    pictures: list[Image.Image]
    vectors: npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def embedder() -> ClipEmbedder:
    settings = load_settings(base=read_preset("starter")).recall
    assert settings.model == STARTER
    return ClipEmbedder(clip_folder(settings.model), device="cpu", batch_size=settings.batch_size)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer("cpu")


def photographed(
    scenes: Sequence[Scene], renderer: Renderer, rng: random.Random
) -> list[Image.Image]:
    drawings = [draw(scene, rng) for scene in scenes]
    pixels = rendered(renderer, drawings, STILL_S, width=SIDE, height=SIDE)
    return [Image.fromarray(frame) for frame in pixels[:, 0]]


@pytest.fixture(scope="module")
def shown(embedder: ClipEmbedder, renderer: Renderer) -> Shown:
    rng = random.Random(0)
    scenes = [sample(rng, split="test") for _ in range(COUNT)]
    pictures = photographed(scenes, renderer, rng)
    return Shown(
        scenes=scenes,
        plans=[full_plan(scene, rng) for scene in scenes],
        pictures=pictures,
        vectors=embedder.embed_pictures(pictures),
    )


@pytest.mark.parametrize("language", ["en", "zh"])
def test_descriptions_find_their_pictures(
    embedder: ClipEmbedder, shown: Shown, language: Language
) -> None:
    rng = random.Random(1)
    texts = [
        say(scene, plan, language, rng)
        for scene, plan in zip(shown.scenes, shown.plans, strict=True)
    ]
    scores = embedder.embed_texts(texts) @ shown.vectors.T
    ranks = (scores >= np.diagonal(scores)[:, None]).sum(axis=1)
    # Always 1.0 of 60 pictures; chance is 1/60 and 1/6.
    assert (ranks == 1).mean() >= 0.95
    assert (ranks <= 10).all()


def test_a_single_word_finds_what_it_names(embedder: ClipEmbedder, shown: Shown) -> None:
    rows = kinds()
    for language in ("en", "zh"):
        found = []
        for number, scene in enumerate(shown.scenes):
            row = rows[scene.groups[0].kind]
            [vector] = embedder.embed_texts([row.en[0] if language == "en" else row.zh[0]])
            order = np.argsort(-(shown.vectors @ vector)).tolist()
            found.append(order.index(number) < 10)
        assert np.mean(found) >= 0.75


@pytest.mark.parametrize(
    ("difference", "least"), [("object", 0.85), ("colour", 0.75), ("place", 0.8)]
)
def test_near_misses_are_further_away(
    embedder: ClipEmbedder, renderer: Renderer, shown: Shown, difference: Difference, least: float
) -> None:
    rng = random.Random(difference)
    some = [
        number
        for number in range(COUNT)
        if difference in differences(shown.scenes[number], shown.plans[number])
    ][:25]
    others = [
        near_miss(shown.scenes[n], shown.plans[n], difference, rng, split="test") for n in some
    ]
    missed = embedder.embed_pictures(photographed(others, renderer, rng))
    texts = embedder.embed_texts([say(shown.scenes[n], shown.plans[n], "en", rng) for n in some])
    right = (texts * shown.vectors[some]).sum(1) > (texts * missed).sum(1)
    assert len(some) >= 15
    assert right.mean() >= least


def test_both_languages_mean_the_same(embedder: ClipEmbedder) -> None:
    words = {"dog": "狗", "car": "汽车", "boat": "船", "flower": "花", "apple": "苹果"}
    english = embedder.embed_texts(list(words))
    chinese = embedder.embed_texts(list(words.values()))
    assert (english @ chinese.T).argmax(axis=1).tolist() == list(range(len(words)))


def test_the_embedder_gives_what_open_clip_gives(embedder: ClipEmbedder, shown: Shown) -> None:
    import open_clip

    name = f"local-dir:{starter_folder('clip')}"
    model = open_clip.create_model(name, require_pretrained=True).eval()
    tokenizer = open_clip.get_tokenizer(name)
    pixels = np.stack([resize(picture, embedder.preprocessing) for picture in shown.pictures[:4]])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    texts = ["a red dog", "一只红色的狗在海滩上", "the", ""]
    with torch.inference_mode():
        images = model.encode_image(batch, normalize=True).numpy()
        words = model.encode_text(tokenizer(texts), normalize=True).numpy()
    np.testing.assert_allclose(embedder.embed_pixels(pixels), images, atol=2e-4)
    np.testing.assert_allclose(embedder.embed_texts(texts), words, atol=2e-4)


def test_texts_of_any_kind_become_unit_vectors(embedder: ClipEmbedder) -> None:
    texts = ["", "  ", "dog " * 500, "狗" * 500, "🐕", "\x00", "Ünïcödé", "собака"]
    vectors = embedder.embed_texts(texts)
    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_folder_is_small_and_safe() -> None:
    folder = starter_folder("clip")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 22 * 10**6
    assert {path.suffix for path in folder.iterdir()} == {".json", ".md", ".safetensors"}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(starter_folder("clip"), tmp_path / "clip"))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("open_clip_config.json", r"has no open_clip_config\.json"),
        ("open_clip_model.safetensors", r"has no \.safetensors weights"),
        ("tokenizer.json", "open-clip cannot load"),
        ("tokenizer_config.json", r"open-clip cannot load .*padding token"),
    ],
)
def test_a_missing_file_is_named(copied: Path, lost: str, message: str) -> None:
    (copied / lost).unlink()
    with pytest.raises(ModelError, match=message):
        ClipEmbedder(str(copied), device="cpu")


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_cfg", "timm_model_name", "tf_efficientnet_lite0"),
        ("vision_cfg", "timm_model_name", "no_such_tower"),
        ("text_cfg", "vocab_size", 100),
        ("", "embed_dim", 128),
    ],
)
def test_a_config_that_does_not_fit_the_weights(
    copied: Path, part: str, key: str, value: object
) -> None:
    file = copied / "open_clip_config.json"
    config = json.loads(file.read_text("utf-8"))
    section = config["model_cfg"][part] if part else config["model_cfg"]
    assert key in section
    section[key] = value
    for text in (json.dumps(config), "{"):
        file.write_text(text, "utf-8")
        with pytest.raises(ModelError, match=r"open-clip cannot load .*complete open-clip check"):
            ClipEmbedder(str(copied), device="cpu")
