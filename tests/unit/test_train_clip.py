"""The starter CLIP's training: teachers made of noise, real shapes, a few steps."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from secondglance.ingest.embedder import ClipEmbedder
from tools.train_starter import clip_model, weights
from tools.train_starter.clip_captions import Captions
from tools.train_starter.clip_classes import class_texts
from tools.train_starter.clip_evaluation import ranks
from tools.train_starter.clip_teachers import JointSpace
from tools.train_starter.clip_towers import FrozenNorm, freeze_norms, in_chunks

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
PIECES = [*LETTERS, *(f"##{letter}" for letter in LETTERS), "dog", "red", "##s", "狗", "红", "."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    clip_model.write_tokenizer(PIECES, root / "student")
    torch.manual_seed(0)
    model = clip_model.create(len(PIECES) + 2)
    weights.write_weights(model.state_dict(), root / "parts", part_bytes=3 * 2**20)
    first = next((root / "parts").glob("weights-1-of-*.safetensors"))
    return clip_model.assemble(first, root / "student", root / "folder")


def test_weights_travel_in_parts(folder: Path) -> None:
    parts = sorted((folder.parent / "parts").iterdir())
    assert len(parts) >= 4
    assert all(part.stat().st_size < 3.1 * 2**20 for part in parts)
    whole = weights.read_weights(folder.parent / "parts")
    assert whole.keys() == weights.read_weights(folder / "open_clip_model.safetensors").keys()


def test_embedder_reads_the_folder(folder: Path) -> None:
    embedder = ClipEmbedder(str(folder), device="cpu")
    spec = embedder.preprocessing
    assert (spec.height, spec.width, spec.resize_mode) == (192, 192, "squash")
    assert spec.interpolation == "bicubic"
    assert (spec.mean, spec.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert embedder.dim == clip_model.DIM
    vectors = embedder.embed_texts(["red dogs", "red dogs   ", "狗", ""])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert vectors[0] @ vectors[2] < 0.9999


def test_tokenizer_splits_words_and_han_characters(folder: Path) -> None:
    tokenizer = clip_model.read_tokenizer(folder)
    encoded = tokenizer.encode("Red DOGS红狗.")
    assert len(encoded.ids) == clip_model.CONTEXT
    used = [token for token in encoded.tokens if token != "[PAD]"]
    assert used == ["red", "dog", "##s", "红", "狗", "."]


def test_padding_does_not_matter(folder: Path) -> None:
    model = clip_model.create(len(PIECES) + 2).eval()
    ids = torch.zeros(1, clip_model.CONTEXT, dtype=torch.long)
    ids[0, :3] = torch.tensor([5, 6, 7])
    with torch.no_grad():
        before = model.encode_text(ids)
        # The mask lets one piece of padding through, none after it.
        model.text.positional_embedding[5:-1] += 1
        after = model.encode_text(ids)
    torch.testing.assert_close(before, after)


def test_frozen_norms_give_what_batch_norms_gave() -> None:
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    norm = trunk[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    assert norm.running_mean is not None
    norm.running_mean.uniform_()
    norm.weight.data.uniform_()
    pixels = torch.randn(2, 3, 8, 8)
    before = trunk(pixels)
    kept = freeze_norms(trunk, prefix="x.")
    assert isinstance(trunk[1], FrozenNorm)
    torch.testing.assert_close(trunk(pixels), before)
    names = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert kept.keys() == {f"x.1.{name}" for name in names}
    assert "1.weight" not in trunk.state_dict()


def test_chunks_give_the_same_gradient() -> None:
    layer = torch.nn.Linear(4, 3)
    pixels = torch.randn(7, 4)
    gradients = []
    for size in (0, 2):
        layer.zero_grad()
        in_chunks(layer, pixels, size=size).square().sum().backward()  # type: ignore[no-untyped-call]
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_sure_classifier_points_at_its_class() -> None:
    classes = functional.normalize(torch.randn(1000, 256), dim=-1)
    space = JointSpace(
        mean=torch.zeros(384),
        basis=torch.eye(384)[:, :256],
        classes=classes,
        images_mean=torch.zeros(256),
    )
    logits = torch.full((1, 1000), -40.0)
    logits[0, 7] = 40.0
    torch.testing.assert_close(space.images(logits)[0], classes[7], atol=1e-4, rtol=1e-4)


def test_ranks() -> None:
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]])
    images = torch.tensor([[1.0, 0.0], [1.0, 0.2], [1.0, 0.1]])
    none = torch.zeros(3, 3, dtype=torch.bool)
    assert ranks(texts, images, none).tolist() == [1, 1, 1]
    assert ranks(texts, images.roll(1, 0), none).tolist() == [2, 3, 2]


def test_captions() -> None:
    captions = Captions(names=[("狗", "dog")], words=["stone"], rng=random.Random(0))
    pairs = [captions.pair() for _ in range(300)]
    assert len({text for text, _ in pairs}) > 200
    assert all(meant.isascii() for _, meant in pairs)
    assert any("狗" in text and "dog" in meant for text, meant in pairs)


def test_class_texts_tell_what_breeds_are() -> None:
    texts = class_texts(207, "golden retriever", "a dog with a golden coat")
    assert "a photo of a golden retriever" in texts
    assert any("dog" in text and "golden" not in text for text in texts)
    assert json.dumps(texts)
