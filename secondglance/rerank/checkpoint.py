"""Finding and loading a Qwen3-VL-Reranker checkpoint: a local folder or a hub id."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import ModelError
from secondglance.media.files import pinned_hash

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

MODEL_TYPE = "qwen3_vl"
EXAMPLE = "Qwen/Qwen3-VL-Reranker-2B"
HUB_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt")
SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        model: The transformer without its vocabulary head.
        processor: Tokenizer, image and video processor.
        head: float32 of shape (hidden,): the head's row for "yes" minus the row for "no".
        special_ids: Id of each of `SPECIAL_TOKENS`.
        pad_id: What short prompts are filled up with; never attended to.
    """

    model: Any
    processor: Any
    head: torch.Tensor
    special_ids: Mapping[str, int]
    pad_id: int


def find(
    name: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    cache_dir: str | None = None,
    token: str | bool | None = None,
) -> Path:
    """Resolves a local folder or a hub id to a folder with every file that is needed.

    Raises:
        ModelError: It does not exist, cannot be fetched, is incomplete, or is no Qwen3-VL model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(name) or folder.parent.is_dir():
            raise ModelError(
                f"no reranker folder at {name!r}",
                remedy=f"give the folder of a checkpoint, or a hub id such as {EXAMPLE}",
            )
        folder = _fetch(name, revision, local_files_only, cache_dir, token)
    _check(folder)
    return folder


def verify(folder: Path, sha256: str) -> None:
    """Compares the weights with a known hash.

    Raises:
        ModelError: They are other weights, or lie in several files.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"the weights in {folder} lie in several files, which one SHA-256 cannot pin",
            remedy="pin a hub model by rerank.revision",
        )
    pinned_hash(weights, sha256, setting="rerank.sha256")


def load(folder: Path, *, device: torch.device, options: Mapping[str, Any]) -> Checkpoint:
    """Loads a complete folder.

    Args:
        folder: As `find` returns it.
        device: Where the weights go, unless `options` has a `device_map`.
        options: Further arguments of `from_pretrained`: `dtype`, `attn_implementation`, ...

    Raises:
        ModelError: The files are damaged, do not fit together, or lack "yes" and "no".
    """
    import torch
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    try:
        with _quiet():
            processor = AutoProcessor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            model, report = Qwen3VLForConditionalGeneration.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise ModelError(
            f"cannot load the reranker in {folder}: {_reason(error)}",
            remedy="fetch the checkpoint again, or correct the arguments",
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"the weights in {folder} lack {len(missing)} tensors, such as {missing[0]}",
            remedy="fetch the checkpoint again",
        )
    vocabulary = processor.tokenizer.get_vocab()
    special_ids = {token: vocabulary.get(token, -1) for token in SPECIAL_TOKENS}
    config = model.config
    if special_ids["<|image_pad|>"] != config.image_token_id or min(special_ids.values()) < 0:
        raise ModelError(
            f"the tokenizer in {folder} lacks control tokens of Qwen3-VL",
            remedy="use the tokenizer files that came with the weights",
        )
    head = _head(model.lm_head.weight, vocabulary, folder)
    pad_id = processor.tokenizer.pad_token_id
    # The two rows are all that is ever asked of the head; the rest of an untied one is freed.
    model = model.model.eval()
    if "device_map" not in options:
        model = model.to(device)
    return Checkpoint(
        model=model,
        processor=processor,
        head=head.to(next(model.language_model.norm.parameters()).device, torch.float32),
        special_ids=special_ids,
        pad_id=0 if pad_id is None else int(pad_id),
    )


def _head(weight: torch.Tensor, vocabulary: Mapping[str, int], folder: Path) -> torch.Tensor:
    for word in ("yes", "no"):
        if word not in vocabulary:
            raise ModelError(
                f'"{word}" is not a single token in {folder}',
                remedy=f"use a Qwen3-VL-Reranker checkpoint such as {EXAMPLE}",
            )
    rows = weight.detach()
    return rows[vocabulary["yes"]].float() - rows[vocabulary["no"]].float()


def _fetch(
    name: str,
    revision: str | None,
    local_only: bool,
    cache_dir: str | None,
    token: str | bool | None,
) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    def fetch(*, local_only: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                allow_patterns=list(HUB_FILES),
                local_files_only=local_only,
            )
        )

    try:
        folder = fetch(local_only=True)
        _check(folder)
        return folder
    except Exception:
        logger.debug("%s is not, or not wholly, in the hub cache", name)
    if local_only:
        raise ModelError(
            f"the reranker {name} is not in the local hub cache",
            remedy="allow downloads, or give a local folder",
        )
    try:
        # A short question first: a download would retry for minutes without a network.
        HfApi(token=token).model_info(name, revision=revision, timeout=10)
        return fetch(local_only=False)
    except Exception as error:
        raise ModelError(
            f"cannot fetch the reranker {name}: {_reason(error)}",
            remedy="give a local folder, or point HF_ENDPOINT at a mirror you can reach",
        ) from None


def _check(folder: Path) -> None:
    """Every file is there, and the architecture is the right one."""
    config = _json(folder, "config.json")
    found = config.get("model_type")
    if found != MODEL_TYPE:
        raise ModelError(
            f"{folder} holds a {found!r} model, not {MODEL_TYPE!r}",
            remedy=f"use a Qwen3-VL-Reranker checkpoint such as {EXAMPLE}",
        )
    if not (folder / "model.safetensors").is_file():
        index = "model.safetensors.index.json"
        if not (folder / index).is_file():
            raise _incomplete(folder, "model.safetensors", "pickled weights are never loaded")
        for shard in sorted(set(_json(folder, index).get("weight_map", {}).values())):
            if not (folder / shard).is_file():
                raise _incomplete(folder, shard)
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            if not (folder / name).is_file():
                raise _incomplete(folder, "tokenizer.json")
    _json(folder, "preprocessor_config.json")


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _incomplete(folder, name) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / name} cannot be read: {_reason(error)}",
            remedy="fetch the checkpoint again",
        ) from None
    return value if isinstance(value, dict) else {}


def _incomplete(folder: Path, name: str, note: str = "") -> ModelError:
    remedy = "fetch the checkpoint again, with every file of the hub repository"
    return ModelError(f"{folder} has no {name}", remedy=f"{remedy}; {note}" if note else remedy)


def _reason(error: BaseException) -> str:
    """The root of a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and notes off the user's terminal."""
    from transformers.utils import logging as noise

    verbosity, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()
