"""The first pass: pictures and words to unit vectors, with any open-clip model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from secondglance.errors import ModelError
from secondglance.ingest.checkpoint import find_clip
from secondglance.ingest.folding import folded
from secondglance.ingest.images import Preprocessing, load_rgb, resize
from secondglance.media.files import pinned_hash
from secondglance.media.pictures import open_picture

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL import Image

    from secondglance.types import Vector

    Vectors = npt.NDArray[np.float32]


BATCH_SIZE = {"cuda": 256}
BATCH_SIZE_ELSEWHERE = 32


class ClipEmbedder:
    """An open-clip model as text and image encoder.

    Args:
        model: Local open-clip folder, hub id, or open-clip model name.
        pretrained: open-clip tag or `.safetensors` file, for a model given by name.
        revision: Hub revision to pin.
        sha256: Expected hash of the weights file.
        device: `auto` takes CUDA, then MPS, then the CPU.
        precision: `auto` is float32 on the CPU and bfloat16 on CUDA.
        batch_size: Pictures or texts at once; 0 takes 256 on CUDA, else 32.
        compiled: Fuse the image tower's operations (torch.compile): faster on GPUs, after a minute
            at the first batch.

    Raises:
        ModelError: The checkpoint cannot be found, fetched, verified or loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        pretrained: str = "",
        revision: str | None = None,
        sha256: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 0,
        compiled: bool = False,
    ) -> None:
        # What cannot be used is told before seconds go into imports.
        checkpoint = find_clip(model, pretrained=pretrained, revision=revision)
        weights_hash = pinned_hash(checkpoint.weights, sha256, setting="recall.sha256")
        import open_clip
        import torch

        self.name = model if not pretrained else f"{model}/{pretrained}"
        self.device = torch.device(pick_device(device))
        self.batch_size = batch_size or BATCH_SIZE.get(self.device.type, BATCH_SIZE_ELSEWHERE)
        self.precision = _pick_precision(precision, self.device.type)
        try:
            self._model = open_clip.create_model(
                checkpoint.model_name,
                pretrained=checkpoint.pretrained,
                precision=self.precision,
                device=self.device,
                pretrained_image=False,
                pretrained_text=False,
                require_pretrained=True,
            ).eval()
            self._tokenizer = open_clip.get_tokenizer(checkpoint.model_name)
        except ModelError:
            raise
        except Exception as error:
            raise _unusable(model, error) from error
        config: dict[str, Any] = open_clip.get_model_preprocess_cfg(self._model)
        self.preprocessing = _preprocessing(config)
        if self.precision == "fp32":
            self._model.visual = folded(
                self._model.visual,
                height=self.preprocessing.height,
                width=self.preprocessing.width,
            )
        self._compiled = compiled
        self._encode = self._model.encode_image
        if compiled:
            self._encode = torch.compile(self._encode, dynamic=False)
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(
            self.precision, torch.float32
        )
        channels = (1, 3, 1, 1)
        self._mean = torch.tensor(self.preprocessing.mean, device=self.device).view(channels)
        self._std = torch.tensor(self.preprocessing.std, device=self.device).view(channels)
        try:
            self.dim = int(self.embed_texts([""]).shape[1])
        except Exception as error:  # an incomplete tokenizer fails on its first text
            raise _unusable(model, error) from error
        # Precision is left out: it changes vectors by rounding only, and a library may be
        # indexed on a GPU and searched on a laptop.
        identity = [weights_hash, json.dumps(config, sort_keys=True, default=str), self.dim]
        self.fingerprint = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    @property
    def memory_bytes(self) -> int:
        """What the model takes, without the batches it works on."""
        held = [*self._model.parameters(), *self._model.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def embed_pixels(self, pixels: npt.NDArray[np.uint8]) -> Vectors:
        """Embeds resized pictures.

        Args:
            pixels: uint8 of shape (n, height, width, 3), as `images.resize` makes them.

        Returns:
            Unit float32 vectors of shape (n, dim).
        """
        return self.begin_pixels(pixels)()

    def begin_pixels(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], Vectors]:
        """Starts what `embed_pixels` does; on CUDA the GPU works on it while the caller goes on.

        Returns:
            What waits for the vectors and gives them.
        """
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(pixels), self.batch_size):
                block = pixels[start : start + self.batch_size]
                parts.append(self._encode(self._normalised(block)).float()[: len(block)])
        return lambda: _unit([part.cpu() for part in parts], self.dim)

    def _normalised(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (n, height, width, 3) to what the image tower takes, on its device."""
        import torch

        # A compiled tower knows one size of batch; another would be compiled anew.
        count = self.batch_size if self._compiled else len(pixels)
        cuda = self.device.type == "cuda"
        block = torch.empty((count, *pixels.shape[1:]), dtype=torch.uint8, pin_memory=cuda)
        # numpy copies on this thread alone. torch wakes a thread on every core for it, and these
        # wait for the next copy spinning, on the cores that the decoders need.
        block.numpy()[: len(pixels)] = pixels
        block.numpy()[len(pixels) :] = pixels[-1:]
        block = block.to(self.device, non_blocking=True)
        # Planes first: with three channels side by side the arithmetic takes twice as long.
        batch = block.permute(0, 3, 1, 2).contiguous().float().div_(255)
        return batch.sub_(self._mean).div_(self._std).to(self._dtype)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embeds texts; what is longer than the model's context is cut by its tokenizer.

        Returns:
            Unit float32 vectors of shape (n, dim).
        """
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), self.batch_size):
                tokens = self._tokenizer(list(texts[start : start + self.batch_size]))
                parts.append(self._model.encode_text(tokens.to(self.device)).float().cpu())
        return _unit(parts, getattr(self, "dim", 0))

    def embed_image(self, path: Path, *, max_pixels: int) -> Vector:
        """Embeds one picture file; shape (dim,).

        Raises:
            MediaError: It cannot be read.
        """
        with open_picture(path, max_pixels=max_pixels) as image:
            vector: Vector = self.embed_pictures([load_rgb(image)])[0]
            return vector

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Embeds upright RGB pictures; shape (n, dim)."""
        pixels = [resize(picture, self.preprocessing) for picture in pictures]
        return self.embed_pixels(np.stack(pixels))


def pick_device(device: str) -> str:
    """Resolves `auto`: CUDA, then MPS, then the CPU."""
    import torch

    if device != "auto":
        return device
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _unusable(model: str, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:300]
    return ModelError(
        f"open-clip cannot load {model}: {reason}",
        remedy="check that the folder holds a complete open-clip checkpoint",
    )


def _pick_precision(precision: str, device: str) -> str:
    if precision != "auto":
        return precision
    return "bf16" if device == "cuda" else "fp32"


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    height, width = (size, size) if isinstance(size, int) else size
    return Preprocessing(
        height=height,
        width=width,
        resize_mode=config["resize_mode"],
        interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
        fill=int(config["fill_color"]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _unit(parts: Sequence[torch.Tensor], dim: int) -> Vectors:
    import torch

    if not parts:
        return np.zeros((0, dim), dtype=np.float32)
    vectors = torch.nn.functional.normalize(torch.cat(list(parts)), dim=-1).numpy()
    return vectors.astype(np.float32, copy=False)
