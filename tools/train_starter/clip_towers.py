"""Parts of the starter CLIP's training: towers made ready, pictures rendered, weights averaged."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tools.train_starter.clip_model import SIDE_PX
from tools.train_starter.reranker_pixels import Pictures

SHAPES = ((192, 192), (192, 192), (192, 192), (160, 224), (224, 160))
"""Height and width at which scenes are rendered before they are squashed."""
ROUND = 256
"""Pictures that share one shape and one way of being damaged."""
DECAY = 0.998


class FrozenNorm(nn.Module):
    """A batch norm with fixed statistics and weights, and the activation after it.

    It keeps one tensor for the backward pass where `torch.nn.BatchNorm2d` keeps two.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        self.register_buffer("scale", scale.detach().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.detach().view(1, -1, 1, 1), persistent=False)
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """Of any (n, channels, h, w)."""
        found: Tensor = self.act(torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype)))
        return found


def freeze_norms(trunk: nn.Module, prefix: str = "visual.trunk.") -> dict[str, Tensor]:
    """Replaces all batch norms in place.

    Returns:
        Their tensors by name: with them the trunk's other weights make a whole checkpoint.
    """
    kept: dict[str, Tensor] = {}
    for path, module in list(trunk.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            for name, value in module.state_dict().items():
                kept[f"{prefix}{path}.{name}"] = value.clone()
            parent, _, child = path.rpartition(".")
            setattr(trunk.get_submodule(parent), child, FrozenNorm(module))
    return kept


def start_text(text: Any, student: Any, encoder: Any, sentence_tokenizer: Any) -> None:
    """Gives the student's tokens the teacher's word vectors, turned and cut to its width.

    Args:
        text: open-clip's `TextTransformer`.
        student: Its tokenizer.
        encoder: `SentenceEncoder`.
        sentence_tokenizer: Of the encoder.
    """
    words = encoder.net.embeddings.word_embeddings.weight.detach().float().cpu()
    known = sentence_tokenizer.get_vocab()
    pairs = [(i, known[piece]) for piece, i in student.get_vocab().items() if piece in known]
    own, theirs = (list(column) for column in zip(*pairs, strict=True))
    found = words[theirs] - words[theirs].mean(0)
    _, directions = torch.linalg.eigh(found.T.cov())
    with torch.no_grad():
        turned = found @ directions.flip(1)[:, : text.width]
        text.token_embedding.weight.normal_(std=0.02)
        text.token_embedding.weight[own] = turned * (0.04 / turned.std())


def groups(model: nn.Module, *, lr: float, trunk: float) -> list[dict[str, Any]]:
    """Parameters by learning rate (`top`, which the schedule multiplies) and weight decay."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        top = trunk if name.startswith("visual.trunk.") else lr
        plain = parameter.ndim < 2 or "embedding" in name
        found.setdefault((top, 0.0 if plain else 0.02), []).append(parameter)
    return [
        {"params": members, "lr": top, "top": top, "weight_decay": decay}
        for (top, decay), members in found.items()
    ]


def in_chunks(encode: Callable[[Tensor], Tensor], pictures: Tensor, *, size: int) -> Tensor:
    """Vectors of pictures, `size` at once and computed again for the gradient; 0 is all at once."""
    if not size or len(pictures) <= size:
        return encode(pictures)
    parts = [checkpoint(encode, part, use_reentrant=False) for part in torch.split(pictures, size)]
    return torch.cat(parts)


class Studio:
    """Renders scenes as the model is going to see files of them.

    Args:
        device: Where pictures are wanted.
        seed: Of their variations.
    """

    def __init__(self, device: str, *, seed: int) -> None:
        from secondglance.scenes.render import Renderer

        renderer = Renderer(device=device)
        self._varied = Pictures(renderer, device, augment=True, seed=seed)
        self._plain = Pictures(renderer, device, augment=False)
        self._choice = random.Random(seed)

    @torch.no_grad()
    def pictures(self, sprites: Tensor, backdrop: Tensor, *, varied: bool) -> Tensor:
        """Pictures (n, 3, SIDE_PX, SIDE_PX) in -1..1, channels last.

        Args:
            sprites: (n, 1, slots, 8).
            backdrop: (n, 4).
            varied: Random aspects and damage; else painted at twice the size and reduced.
        """
        parts = []
        for first in range(0, len(sprites), ROUND):
            rows = slice(first, first + ROUND)
            height, width = self._choice.choice(SHAPES) if varied else (2 * SIDE_PX, 2 * SIDE_PX)
            source = self._varied if varied else self._plain
            drawn = source.frames(
                _array(sprites[rows]), _array(backdrop[rows]), (0.0,), height=height, width=width
            )[:, 0]
            if drawn.shape[2:] != (SIDE_PX, SIDE_PX):
                drawn = functional.interpolate(
                    drawn, (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True, align_corners=False
                ).clamp(-1, 1)
            parts.append(drawn)
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)


class Average:
    """An exponential moving average of a model's weights, which lags less at the start."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self._updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the model's present weights."""
        self._updates += 1
        decay = min(DECAY, (1 + self._updates) / (10 + self._updates))
        now = model.state_dict()
        own = [v for v in self.weights.values() if v.is_floating_point()]
        new = [now[name] for name, v in self.weights.items() if v.is_floating_point()]
        torch._foreach_lerp_(own, new, 1 - decay)

    def copy_to(self, model: nn.Module) -> None:
        """Gives the model the averaged weights."""
        model.load_state_dict(self.weights)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.numpy()
    return array
