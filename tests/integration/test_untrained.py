"""The untrained checkpoints load as real ones do, are reproducible, and tell inputs apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from secondglance.models.untrained import build_untrained_clip, build_untrained_reranker
from secondglance.rerank import Qwen3VLReranker
from secondglance.types import Content
from tests.media import picture

WEIGHTS = {"clip": "open_clip_model.safetensors", "reranker": "model.safetensors"}
BUILDERS = {"clip": build_untrained_clip, "reranker": build_untrained_reranker}


def test_clip_loads_in_open_clip(untrained_clip: Path) -> None:
    import open_clip
    import torch

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{untrained_clip}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{untrained_clip}")
    texts = ["two dogs", "穿粉色裙子的小女孩", "爬楼梯"]
    pixels = torch.stack([transform(picture(seed)) for seed in range(4)])
    with torch.inference_mode():
        words = torch.nn.functional.normalize(model.encode_text(tokenizer(texts)), dim=-1)
        looks = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1)
    assert words.shape == (3, 128)
    assert looks.shape == (4, 128)
    for vectors in (words.numpy(), looks.numpy()):
        others = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
        assert others.max() < 0.999


def test_reranker_tells_candidates_apart(untrained_reranker: Path) -> None:
    reranker = Qwen3VLReranker(untrained_reranker, device="cpu")
    documents = [Content(images=[picture(seed)]) for seed in range(6)]
    log_odds = np.array(reranker.log_odds(Content(texts=["dogs"]), documents))
    assert log_odds.std() > 0.05
    other = np.array(reranker.log_odds(Content(texts=["a red boat"]), documents))
    assert np.abs(log_odds - other).max() > 0.01


def test_the_chat_template_renders_the_prompt(untrained_reranker: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(untrained_reranker)
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Judge."}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<Query>:"},
                {"type": "image"},
                {"type": "text", "text": " dogs"},
                {"type": "text", "text": "\n<Document>:"},
                {"type": "video"},
            ],
        },
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n<Query>:"
        "<|vision_start|><|image_pad|><|vision_end|> dogs\n<Document>:"
        "<|vision_start|><|video_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("kind", ["clip", "reranker"])
def test_builds_are_reproducible(kind: str, tmp_path: Path) -> None:
    build, weights = BUILDERS[kind], WEIGHTS[kind]
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    other = build(tmp_path / "c", seed=1)
    assert (first / weights).read_bytes() == (second / weights).read_bytes()
    assert (first / weights).read_bytes() != (other / weights).read_bytes()
    assert "rankings are meaningless" in (first / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["clip", "reranker"])
def test_a_complete_folder_stays_and_a_torn_one_is_replaced(kind: str, tmp_path: Path) -> None:
    build, weights = BUILDERS[kind], WEIGHTS[kind]
    folder = build(tmp_path / "model")
    stamp = (folder / weights).stat().st_mtime_ns
    assert build(folder) == folder
    assert (folder / weights).stat().st_mtime_ns == stamp

    (folder / "README.md").unlink()
    (folder / weights).write_bytes(b"torn")
    build(folder)
    assert (folder / weights).stat().st_size > 1_000_000
