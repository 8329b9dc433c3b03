"""Where a CLIP model may come from, and what is said when it cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from secondglance.errors import ModelError
from secondglance.ingest.checkpoint import find_clip
from secondglance.ingest.embedder import ClipEmbedder
from secondglance.media.files import file_hash
from tests.media import picture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def broken(untrained_clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_clip, tmp_path / "clip"))


@pytest.fixture
def hub_cache(untrained_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds the model as someone/clip, and no connection."""
    from huggingface_hub import constants

    repository = tmp_path / "hub" / "models--someone--clip"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(untrained_clip, repository / "snapshots" / COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


def test_a_folder_and_the_same_model_from_the_hub_cache_agree(
    untrained_clip: Path, hub_cache: Path
) -> None:
    local = ClipEmbedder(str(untrained_clip))
    for name in ("someone/clip", "hf-hub:someone/clip"):
        cached = ClipEmbedder(name, revision=COMMIT)
        assert cached.fingerprint == local.fingerprint
        assert np.array_equal(cached.embed_texts(["a dog"]), local.embed_texts(["a dog"]))


def test_vectors_are_unit_float32_whatever_the_batch(untrained_clip: Path) -> None:
    pictures = [picture(seed) for seed in range(5)]
    whole = ClipEmbedder(str(untrained_clip), batch_size=32)
    parts = ClipEmbedder(str(untrained_clip), batch_size=2)
    vectors = whole.embed_pictures(pictures)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, whole.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(parts.embed_pictures(pictures), vectors, atol=1e-5)
    assert whole.embed_texts([]).shape == (0, whole.dim)


def test_chinese_and_english_words_are_told_apart(untrained_clip: Path) -> None:
    vectors = ClipEmbedder(str(untrained_clip)).embed_texts(["a dog", "一只狗", "一只猫"])
    assert (vectors @ vectors.T)[np.triu_indices(3, 1)].max() < 0.9999


def test_a_model_that_is_nowhere(tmp_path: Path, hub_cache: Path) -> None:
    with pytest.raises(ModelError, match=r"no CLIP folder at .*none.*recall\.model"):
        find_clip(str(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"cannot fetch the CLIP model a/b.*HF_ENDPOINT"):
        find_clip("a/b")
    with pytest.raises(ModelError, match=r"unknown CLIP model 'ViT-B-32-SigLIP3'.*ViT-B-32-SigLIP"):
        find_clip("ViT-B-32-SigLIP3")
    with pytest.raises(ModelError, match=r"no weights tagged 'nothing'.*webli"):
        find_clip("ViT-B-32-SigLIP2-256", pretrained="nothing")


def test_a_folder_that_is_incomplete_or_pickled(broken: Path) -> None:
    weights = broken / "open_clip_model.safetensors"
    weights.rename(broken / "open_clip_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \.safetensors weights.*pickled weights are never"):
        ClipEmbedder(str(broken))
    (broken / "open_clip_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
        ClipEmbedder(str(broken))


def test_weights_that_are_cut_off_or_of_another_hash(broken: Path) -> None:
    weights = broken / "open_clip_model.safetensors"
    right = file_hash(weights)
    assert ClipEmbedder(str(broken), sha256=right.upper()).dim > 0
    with pytest.raises(ModelError, match=f"has SHA-256 {right}, not {'0' * 64}"):
        ClipEmbedder(str(broken), sha256="0" * 64)
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="open-clip cannot load"):
        ClipEmbedder(str(broken))


def test_a_config_of_another_architecture(broken: Path) -> None:
    config = broken / "open_clip_config.json"
    config.write_text(config.read_text().replace('"embed_dim": 128', '"embed_dim": 64'))
    with pytest.raises(ModelError, match="open-clip cannot load"):
        ClipEmbedder(str(broken))


def test_a_compiled_tower_sees_batches_of_one_size(
    untrained_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = ClipEmbedder(str(untrained_clip), device="cpu")
    side = embedder.preprocessing.height
    pixels = np.random.default_rng(0).integers(0, 256, (11, side, side, 3), dtype=np.uint8)
    expected = embedder.embed_pixels(pixels)
    encode, sizes = embedder._encode, []

    def counted(batch: torch.Tensor) -> torch.Tensor:
        sizes.append(len(batch))
        found: torch.Tensor = encode(batch)
        return found

    monkeypatch.setattr(embedder, "_compiled", True)
    monkeypatch.setattr(embedder, "_encode", counted)
    monkeypatch.setattr(embedder, "batch_size", 4)
    found = embedder.begin_pixels(pixels)()
    assert sizes == [4, 4, 4]
    assert np.abs(found - expected).max() < 1e-5
