"""The two teachers of the starter CLIP, and the space they share.

An ImageNet classifier says what a photograph shows, a sentence encoder what a caption means. A
photograph's target vector is the mean of the vectors of the classes' texts, weighted by how likely
the classifier thinks each class.

Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings" (2014).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.train_starter.clip_model import TRUNK

TEMPERATURE = 3.0
"""Of the classifier's softmax: photographs show more than their first class."""
TEXT_TOKENS = 64
"""Tokens that the sentence encoder reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JointSpace:
    """Sentence vectors, centred and rotated to the length of the student's.

    Attributes:
        mean: Of the sentence vectors of everyday captions, (384,).
        basis: Their principal directions, (384, 256).
        classes: Vectors of ImageNet's classes in the joint space, not centred, (1000, 256).
        images_mean: Mean target of photographs before centring, (256,).
    """

    mean: Tensor
    basis: Tensor
    classes: Tensor
    images_mean: Tensor

    @classmethod
    def load(cls, file: Path, *, device: str = "cpu") -> JointSpace:
        """Reads what `save` wrote."""
        from safetensors.torch import load_file

        found = load_file(file, device=device)
        return cls(**{name: value.float() for name, value in found.items()})

    def save(self, file: Path) -> None:
        """Writes a safetensors file."""
        from safetensors.torch import save_file

        names = ("mean", "basis", "classes", "images_mean")
        save_file({name: getattr(self, name).cpu().contiguous() for name in names}, file)

    def texts(self, sentences: Tensor) -> Tensor:
        """Unit vectors (n, 256) of sentence vectors (n, 384)."""
        return functional.normalize((sentences - self.mean) @ self.basis, dim=-1)

    def images(self, logits: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
        """Unit target vectors (n, 256) of pictures, from the classifier's logits (n, 1000)."""
        likely = (logits.float() / temperature).softmax(-1)
        return functional.normalize(likely @ self.classes - self.images_mean, dim=-1)


class Classifier(nn.Module):
    """timm's EfficientNet-Lite2 with its ImageNet classifier, frozen.

    Args:
        file: safetensors with timm's names.
    """

    def __init__(self, file: Path) -> None:
        import timm
        from safetensors.torch import load_file

        super().__init__()
        self.net: Any = timm.create_model(TRUNK)
        weights = {name: value.float() for name, value in load_file(file).items()}
        self.net.load_state_dict(weights, strict=False)
        missing = set(self.net.state_dict()) - set(weights)
        if any(not name.endswith("num_batches_tracked") for name in missing):
            raise ValueError(f"{file} lacks {sorted(missing)[0]}")
        self.net.eval().requires_grad_(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features (n, 1280) and logits (n, 1000) of normalised pixels (n, 3, h, w)."""
        features = self.net.forward_head(self.net.forward_features(pixels), pre_logits=True)
        return features.float(), self.logits(features)

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, 1000) of pooled features (n, 1280)."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.net.classifier(features.float())
        return logits

    def trunk_weights(self) -> dict[str, Tensor]:
        """The weights below the classifier."""
        return {k: v for k, v in self.net.state_dict().items() if not k.startswith("classifier")}

    def near_classes(self, features: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Pulls features towards one to three random classes each.

        Few photographs show few things; along the classifier's own weights lie features of all
        others.

        Args:
            features: (n, 1280), of real pictures.
            generator: Of the random numbers; on the features' device.
        """
        weights = self.net.classifier.weight
        directions = functional.normalize(weights - weights.mean(0), dim=-1)
        pulled = features
        for share in (1.0, 0.5, 0.25):
            chosen = torch.randint(
                len(weights), (len(features),), device=features.device, generator=generator
            )
            strength, use = torch.rand(
                2, len(features), 1, device=features.device, generator=generator
            )
            pulled = pulled + directions[chosen] * strength * (use < share) * 14.0
        keep = torch.rand(len(features), 1, device=features.device, generator=generator)
        faded = features * keep.sqrt() + (pulled - features)
        return faded.clamp(0.0, 6.0)  # as after the last ReLU6


class SentenceEncoder(nn.Module):
    """A MiniLM sentence encoder with mean pooling, frozen.

    Args:
        folder: `config.json`, `model.safetensors`, `tokenizer.json`.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file
        from transformers import BertConfig, BertModel

        super().__init__()
        self.net: Any = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
        weights = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
        self.net.load_state_dict(weights, strict=False)
        absent = set(dict(self.net.named_parameters())) - set(weights)
        if absent:
            raise ValueError(f"{folder} lacks {sorted(absent)[0]}")
        self.net.eval().requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        """Unit sentence vectors (n, 384) of token ids (n, length); 0 is padding."""
        mask = (ids != 0).long()
        states = self.net(ids, attention_mask=mask).last_hidden_state.float()
        weight = mask[..., None].float()
        return functional.normalize((states * weight).sum(1) / weight.sum(1).clamp_min(1), dim=-1)

    @torch.inference_mode()
    def encode(self, texts: list[str], tokenizer: Any, *, batch: int = 128) -> Tensor:
        """Sentence vectors (n, 384) of texts; the result is on the CPU."""
        device = next(self.net.parameters()).device
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        found = torch.empty(len(texts), self.net.config.hidden_size)
        for start in range(0, len(order), batch):
            block = order[start : start + batch]
            ids = torch.tensor([e.ids for e in tokenizer.encode_batch([texts[i] for i in block])])
            found[block] = self(ids.to(device)).cpu()
        return found


def read_sentence_tokenizer(folder: Path) -> Any:
    """The sentence encoder's `tokenizers.Tokenizer`, padding to the longest of a batch."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    tokenizer.enable_truncation(TEXT_TOKENS)
    return tokenizer
