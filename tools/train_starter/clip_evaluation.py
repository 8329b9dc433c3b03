"""How well the starter CLIP finds held-out scenes among others and their near-misses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.train_starter.clip_data import scene_batch

CUTOFFS = (1, 5, 10, 50)
SEED = 20_000
BATCH = 250


@torch.inference_mode()
def evaluate(
    model: nn.Module, studio: Any, tokenizer: Any, *, count: int, device: str
) -> dict[str, Any]:
    """Recall and mean reciprocal rank by language, on scenes of the validation split.

    Args:
        model: open-clip's, in evaluation mode.
        studio: `clip_towers.Studio`.
        tokenizer: The model's.
        count: Pictures of the library, families of near-misses included; each with one query.
        device: The model's.
    """
    from secondglance.scenes.examples import captioned

    items = captioned(count, seed=SEED, split="validation")
    batch = scene_batch(items, tokenizer)
    images, texts = [], []
    for first in range(0, count, BATCH):
        rows = slice(first, first + BATCH)
        pictures = studio.pictures(batch.sprites[rows], batch.backdrop[rows], varied=False)
        images.append(model.encode_image(pictures).float())  # type: ignore[operator]
        texts.append(model.encode_text(batch.ids[rows].to(device)).float())  # type: ignore[operator]
    found = ranks(torch.cat(texts), torch.cat(images), batch.duplicates(device)).cpu()
    languages = {
        language: [item.language == language for item in items] for language in ("en", "zh")
    }
    return {
        "library": count,
        **{name: _figures(found[torch.tensor(chosen)]) for name, chosen in languages.items()},
    }


def ranks(texts: Tensor, images: Tensor, same: Tensor) -> Tensor:
    """Ranks from 1 of each text's picture, (n,); ties count against it.

    Args:
        texts: (n, dim).
        images: (n, dim), in the same order.
        same: (n, n) bool, pictures that count neither for nor against a text.
    """
    scores = functional.normalize(texts, dim=-1) @ functional.normalize(images, dim=-1).T
    own = scores.diagonal()[:, None]
    return ((scores >= own) & ~same).sum(1).clamp_min(1)


def _figures(ranks_: Tensor) -> dict[str, float]:
    if not len(ranks_):
        return {}
    recall = {f"recall@{k}": round((ranks_ <= k).float().mean().item(), 4) for k in CUTOFFS}
    return {"queries": len(ranks_), **recall, "mrr": round((1 / ranks_).mean().item(), 4)}
