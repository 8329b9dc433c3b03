"""The starter reranker's training: the same prompts, pixels and answers as the real engine's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from secondglance.rerank import Qwen3VLReranker, prompt
from secondglance.rerank.layers import patches
from secondglance.scenes.examples import Task
from tools.train_starter import reranker_model
from tools.train_starter.reranker_data import KINDS, SHARES, WIDTHS, Batch, Batches, View
from tools.train_starter.reranker_evaluation import as_text, measure
from tools.train_starter.reranker_forward import Forward, Seen, join
from tools.train_starter.reranker_pixels import Pictures, jpeg
from tools.train_starter.reranker_prompts import Prompts, Slot
from tools.train_starter.reranker_seeing import IGNORED
from tools.train_starter.weights import PART_BYTES, read_weights, write_weights

PAIRS = 3


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    return Prompts()


@pytest.fixture(scope="module")
def folder(prompts: Prompts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = reranker_model.build_model(prompts.tokenizer, seed=3).state_dict()
    # Zeros and ones would hide a bias or norm that is left out.
    generator = torch.Generator().manual_seed(0)
    for value in weights.values():
        if value.ndim == 1:
            value += torch.randn(value.shape, generator=generator) * 0.1
    return reranker_model.assemble(weights, tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Qwen3VLReranker:
    return Qwen3VLReranker(folder, device="cpu")


@pytest.fixture(scope="module")
def forward(folder: Path, prompts: Prompts) -> Forward:
    model = reranker_model.build_model(prompts.tokenizer)
    reranker_model.load_weights(model, read_weights(folder))
    return Forward(model.eval())


def pixels(view: View | None, seed: int) -> torch.Tensor | None:
    if view is None:
        return None
    shape = (PAIRS, len(view.times_s), 3, view.height, view.width)
    whole = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed))
    return whole.float() / 127.5 - 1


def look(forward: Forward, batch: Batch) -> tuple[Seen | None, list[torch.Tensor]]:
    parts, cuts = [], []
    for seed, view in enumerate((batch.query, batch.document)):
        frames = pixels(view, seed)
        if view is not None and frames is not None:
            cuts.append(patches(frames))
            parts.append(forward.see(cuts[-1], view.height, view.width))
    return (join(parts) if parts else None), cuts


def make(prompts: Prompts, task: Task, *, vary: bool = True) -> Batch:
    return Batches(prompts, size=PAIRS, split="train", vary=vary).make(task, seed=5, hard=0.5)


@pytest.mark.parametrize("task", list(SHARES))
def test_forward_is_that_of_transformers(
    task: Task, prompts: Prompts, engine: Qwen3VLReranker, forward: Forward
) -> None:
    batch = make(prompts, task)
    ids, positions = (
        torch.from_numpy(value).long() for value in (batch.words.ids, batch.words.positions)
    )
    inputs: dict[str, Any] = {"input_ids": ids, "position_ids": positions}
    with torch.no_grad():
        seen, cuts = look(forward, batch)
        per_kind: dict[str, list[tuple[torch.Tensor, list[int]]]] = {}
        views = [view for view in (batch.query, batch.document) if view is not None]
        for pair in range(PAIRS):  # the engine's order: pair by pair
            for view, cut in zip(views, cuts, strict=True):
                name = "video" if len(view.times_s) > 1 else "image"
                grid = [cut.shape[1], view.height // 16, view.width // 16]
                per_kind.setdefault(name, []).append((cut[pair].flatten(0, 1), grid))
        for name, parts in per_kind.items():
            key = "pixel_values_videos" if name == "video" else "pixel_values"
            inputs[key] = torch.cat([part for part, _ in parts])
            inputs[f"{name}_grid_thw"] = torch.tensor([grid for _, grid in parts])
        expected = engine.model(**inputs, use_cache=False).last_hidden_state
        spots = torch.from_numpy(batch.words.spots).long()
        hidden = forward.read(ids, positions, seen, spots if seen is not None else None)
        yes, no = (prompts.special_ids[word] for word in ("yes", "no"))
        odds = forward.log_odds(hidden[torch.arange(PAIRS), torch.from_numpy(batch.last)], yes, no)
        last = expected[torch.arange(PAIRS), torch.from_numpy(batch.last)]
    for pair, end in enumerate(batch.last):
        torch.testing.assert_close(
            hidden[pair, : end + 1], expected[pair, : end + 1], atol=1e-4, rtol=0
        )
    table = engine.model.language_model.embed_tokens.weight
    head = table[yes] - table[no]
    torch.testing.assert_close(odds, last @ head, atol=1e-4, rtol=0)
    assert float(hidden[0, batch.last[0]].std()) > 0.1  # it says something at all


@pytest.mark.parametrize("task", list(SHARES))
def test_prompts_are_those_of_the_recipe(task: Task, prompts: Prompts) -> None:
    batch = make(prompts, task)
    from secondglance.scenes.examples import pairs

    plain = make(prompts, task, vary=False)
    for number, pair in enumerate(pairs(task, PAIRS, seed=5, split="train", hard=0.5)):
        sides = []
        for side, view in ((pair.query, plain.query), (pair.document, plain.document)):
            pieces: list[prompt.Piece] = []
            if view is not None:
                size = view.height // 32, view.width // 32
                times = np.reshape(view.times_s, (-1, 2)).mean(1) if len(view.times_s) > 1 else []
                pieces += prompt.video_pieces(list(times), *size)
                pieces += [] if len(times) else prompt.image_pieces(*size)
            sides.append([*pieces, side.text] if side.text else pieces)
        expected = prompt.encode(
            prompt.query_pieces(sides[0], prompt.DEFAULT_INSTRUCTION),
            prompt.document_pieces(sides[1]),
            tokenize=lambda text: prompts.tokenizer.encode(text, add_special_tokens=False).ids,
            special_ids=prompts.special_ids,
        )
        end = plain.last[number] + 1
        assert plain.words.ids[number, :end].tolist() == expected.ids.tolist()
        assert plain.words.positions[:, number, :end].tolist() == expected.positions.tolist()
        placed = plain.words.ids[number, plain.words.spots[number]]
        assert set(placed.tolist()) <= set(prompts.pads)
    assert batch.words.ids.shape[1] == WIDTHS[task][0]


@pytest.mark.parametrize("text", ["A dog.", "一只狗。", "3 dogs", "狗，猫"])
def test_punctuation_joins_what_follows_as_in_the_recipe(text: str, prompts: Prompts) -> None:
    words, last, _ = prompts.fill(prompts.template([Slot()], [Slot()]), [[text], [text]])
    expected = prompt.encode(
        prompt.query_pieces([text], prompt.DEFAULT_INSTRUCTION),
        prompt.document_pieces([text]),
        tokenize=lambda text: prompts.tokenizer.encode(text, add_special_tokens=False).ids,
        special_ids=prompts.special_ids,
    )
    assert words.ids[0, : last[0] + 1].tolist() == expected.ids.tolist()


@pytest.mark.parametrize("task", ["text-image", "text-clip", "text-text"])
def test_captions_follow_their_prompts(task: Task, prompts: Prompts) -> None:
    batch = make(prompts, task)
    assert batch.caption is not None
    from secondglance.scenes.examples import pairs

    for number, pair in enumerate(pairs(task, PAIRS, seed=5, split="train", hard=0.5)):
        told = batch.caption_to[number][batch.caption_to[number] != IGNORED].tolist()
        assert told[-1] == prompts.special_ids["<|im_end|>"]
        assert prompts.tokenizer.decode(told[:-1]) in (pair.caption, pair.statement)
        assert batch.told_from <= (batch.caption_to[number] != IGNORED).argmax()


def test_patches_are_the_processors(engine: Qwen3VLReranker) -> None:
    clip = torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8)
    made = engine.processor.video_processor(
        videos=[clip], do_resize=False, do_sample_frames=False, return_tensors="pt"
    )
    mine = patches(clip[None].float() / 127.5 - 1)[0].flatten(0, 1)
    torch.testing.assert_close(mine, made["pixel_values_videos"], atol=1e-6, rtol=0)
    made = engine.processor.image_processor(images=[clip[0]], do_resize=False, return_tensors="pt")
    mine = patches(clip[None, :1].float() / 127.5 - 1)[0].flatten(0, 1)
    torch.testing.assert_close(mine, made["pixel_values"], atol=1e-6, rtol=0)


def test_tokenizer_of_the_folder(prompts: Prompts, engine: Qwen3VLReranker) -> None:
    tokenizer = engine.processor.tokenizer
    text = "A red dog, 12 cats <|im_end|> 红色的狗在左边。\n<0.3 seconds>"
    mine = prompts.tokenizer.encode(text, add_special_tokens=False).ids
    assert engine._tokenizer.encode(text, add_special_tokens=False).ids == mine
    for text in ("yes", "no", "红", "狗", "，"):
        assert len(tokenizer.encode(text)) == 1
    assert tokenizer.decode(tokenizer.encode("一只小狗 Zebra")) == "一只小狗 Zebra"
    assert len(prompts.tokenizer.encode(prompt.SYSTEM).ids) <= 32


def test_weights_travel_in_parts(tmp_path: Path, prompts: Prompts) -> None:
    weights = reranker_model.build_model(prompts.tokenizer).state_dict()
    parts = write_weights(reranker_model.without_head(weights), tmp_path)
    assert len(parts) == 2
    assert all(part.stat().st_size <= PART_BYTES for part in parts)
    read = read_weights(tmp_path)
    assert read.keys() == weights.keys() - {"lm_head.weight"}
    assert all(torch.equal(read[name], weights[name].half()) for name in read)


def test_captioning_one_batch_is_learned(prompts: Prompts, forward: Forward) -> None:
    batch = make(prompts, "text-image")
    assert batch.caption is not None
    weights = list(forward.model.parameters())
    kept = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, lr=3e-4)
    losses = []
    for _ in range(5):
        seen, _ = look(forward, batch)
        words = batch.caption
        hidden = forward.read(
            torch.from_numpy(words.ids).long(),
            torch.from_numpy(words.positions).long(),
            seen,
            torch.from_numpy(words.spots).long(),
        )
        logits = forward.logits(hidden).flatten(0, 1)
        targets = torch.from_numpy(batch.caption_to).long().flatten()
        loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        torch._foreach_copy_(weights, kept)
    assert losses[-1] < losses[0] - 0.3


def test_pictures_are_varied_within_bounds() -> None:
    class Flat:
        def render(self, sprites: torch.Tensor, *_: object, **size: Any) -> torch.Tensor:
            shape = (len(sprites), sprites.shape[1], size["height"], size["width"], 3)
            return torch.full(shape, 128, dtype=torch.uint8)

    sprites, backdrop = np.zeros((2, 8, 1, 8), np.float32), np.zeros((2, 4), np.int64)
    for seed in range(6):
        frames = Pictures(Flat(), "cpu", augment=True, seed=seed).frames(
            sprites, backdrop, [0.5 * n for n in range(8)], height=64, width=96
        )
        assert frames.shape == (2, 8, 3, 64, 96)
        assert float(frames.abs().max()) < 0.6


def test_jpeg_loses_detail_only() -> None:
    ramp = torch.linspace(0, 1, 96)[None, None, None].expand(1, 3, 72, 96)
    assert float((jpeg(ramp, 75) - ramp).abs().max()) < 0.03
    noise = torch.rand(1, 3, 72, 96, generator=torch.Generator().manual_seed(0))
    errors = [float((jpeg(noise, quality) - noise).abs().mean()) for quality in (95, 60, 20)]
    assert errors == sorted(errors)


def test_evaluation_counts_by_kind(prompts: Prompts) -> None:
    batch = make(prompts, "text-text")
    batch.labels = np.array([1.0, 0.0, 0.0])
    batch.kinds = np.array([KINDS.index(kind) for kind in ("positive", "random", "count")])
    batch.chinese = np.array([True, False, True])
    table = measure([batch], lambda _: np.array([2.0, -1.0, 1.0]))
    rows = table["text-text"]
    assert {name: row["accuracy"] for name, row in rows.items()} == pytest.approx(
        {"all": 2 / 3, "en": 1, "zh": 1 / 2, "positive": 1, "random": 1, "count": 0, "auc": 1}
    )
    assert "66.7" in as_text(table)
