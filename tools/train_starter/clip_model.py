"""The starter CLIP: its configuration, its tokenizer's files, its weights and its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.train_starter.weights import half, read_weights

if TYPE_CHECKING:
    pass

DIM = 256
"""Length of the vectors."""
SIDE_PX = 192
CONTEXT = 48
"""Tokens that the text tower reads."""
MEAN = STD = 0.5
"""Per channel, for pixels in 0..1, as the ImageNet classifier was trained."""
TRUNK = "tf_efficientnet_lite2"
SPECIAL = ("[PAD]", "[UNK]")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def config(vocabulary: int) -> dict[str, Any]:
    """The `open_clip_config.json` of a model with that many tokens."""
    return {
        "model_cfg": {
            "embed_dim": DIM,
            "custom_text": True,
            "vision_cfg": {
                "timm_model_name": TRUNK,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "mlp",
                "image_size": SIDE_PX,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "tokenizer",  # open-clip looks in the folder itself
                "width": 256,
                "heads": 4,
                "layers": 3,
                "no_causal_mask": True,
                # The appended class token is what makes open-clip mask padding.
                "embed_cls": True,
                "pad_id": 0,
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def create(vocabulary: int) -> Any:
    """The two towers with random weights: an `open_clip.model.CustomTextCLIP`."""
    from open_clip.model import CustomTextCLIP

    options = config(vocabulary)["model_cfg"]
    del options["custom_text"]
    return CustomTextCLIP(**options)


def write_tokenizer(pieces: Sequence[str], folder: Path) -> None:
    """Writes a WordPiece tokenizer that lower-cases and takes Han characters one by one.

    Args:
        pieces: The vocabulary in order of its ids, without `SPECIAL`, which come first.
        folder: Gets `TOKENIZER_FILES`.

    Source: BERT's tokenizer (Devlin et al., 2018).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = {piece: number for number, piece in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, handle_chinese_chars=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER_FILES[0]), pretty=False)
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "pad_token": SPECIAL[0],
        "unk_token": SPECIAL[1],
        "clean_up_tokenization_spaces": False,
    }
    (folder / TOKENIZER_FILES[1]).write_text(json.dumps(options, indent=2) + "\n")


def read_tokenizer(folder: Path) -> Any:
    """A `tokenizers.Tokenizer` that pads and cuts to `CONTEXT`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILES[0]))
    tokenizer.enable_padding(length=CONTEXT, pad_id=0, pad_token=SPECIAL[0])
    tokenizer.enable_truncation(CONTEXT)
    return tokenizer


def assemble(weights: Path, tokenizer: Path, folder: Path) -> Path:
    """Writes the open-clip folder that `ClipEmbedder` and open-clip's `local-dir:` load.

    Args:
        weights: File or folder, as `read_weights` takes it.
        tokenizer: Folder with `TOKENIZER_FILES`.
        folder: Where the checkpoint belongs.
    """
    from safetensors.torch import save_file

    found = half(read_weights(weights))
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    vocabulary = found["text.token_embedding.weight"].shape[0]
    text = json.dumps(config(vocabulary), indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")
    save_file(found, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return folder
