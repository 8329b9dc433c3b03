"""The starter reranker's architecture, tokenizer and checkpoint files.

A checkpoint is an ordinary Qwen3-VL-Reranker folder, only smaller: `Qwen3VLReranker(folder)` loads
it as it loads the hub's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secondglance.errors import ModelError
from secondglance.models.untrained import (
    CONTROL_TOKENS,
    write_json,
    write_processor,
    write_tokenizer_config,
)
from secondglance.rerank import prompt
from tools.train_starter.weights import half

if TYPE_CHECKING:
    import torch

TOKENIZER = Path(__file__).parent / "reranker_tokenizer"
VOCABULARY = 4096
HEAD = "lm_head.weight"
INITIAL_STD = 0.04
FIXED_WEIGHT = 20_000
"""Times that the tokenizer reads the prompt's own words: they come with every description."""
ANSWERS = ("yes", "no")
DESCRIBE = {"en": "describe", "zh": "描述"}
"""Queries that ask for a caption in training; they tell its language."""
STATE = {"en": "relations", "zh": "关系"}
"""How queries begin that ask for a statement; its topic follows."""


def build_tokenizer(lines: Iterable[str], folder: Path = TOKENIZER) -> int:
    """Trains a byte-level BPE in the format of Qwen's tokenizer; returns its size.

    Chinese characters stay single: lines are split between them, so that no merge reaches over
    two. Only tokenizer.json, tokenizer_config.json, vocab.json and merges.txt are written.

    Args:
        lines: Descriptions as the model will read them.
        folder: Where the files go.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_lines(lines), trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    write_tokenizer_config(folder)
    return int(tokenizer.get_vocab_size())


def _training_lines(lines: Iterable[str]) -> Iterator[str]:
    between = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])|(?=[\u3000-\u9fff\uff00-\uffef])")
    fixed = (
        f"system\n{prompt.SYSTEM}",
        f"user\n<Instruct>: {prompt.DEFAULT_INSTRUCTION}<Query>:{prompt.EMPTY}\n<Document>:",
        "<0.3 seconds>\nassistant\nyes\nno",
        *DESCRIBE.values(),
    )
    for line in itertools.chain(lines, fixed * FIXED_WEIGHT):
        yield from filter(None, between.split(line))


def load_tokenizer(folder: Path = TOKENIZER) -> Any:
    """The fast tokenizer (of the `tokenizers` package); control tokens in text stay text."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{path} is missing", remedy="build the tokenizer first")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    return tokenizer


def config(tokenizer: Any) -> Any:
    """Architecture: 12 M parameters; one token stands for 32 x 32 pixels, as in every size."""
    from transformers import Qwen3VLConfig

    ids = tokenizer.get_vocab()
    return Qwen3VLConfig(
        text_config={
            "vocab_size": math.ceil(len(ids) / 64) * 64,
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "hidden_act": "silu",
            "initializer_range": INITIAL_STD,
            "max_position_embeddings": 262144,
            "rope_theta": 5_000_000.0,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [12, 10, 10],
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
            "pad_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
        },
        vision_config={
            "depth": 6,
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_heads": 4,
            "out_hidden_size": 256,
            "num_position_embeddings": 144,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "deepstack_visual_indexes": [2],
            "initializer_range": INITIAL_STD,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="float16",
    )


def build_model(tokenizer: Any, *, seed: int = 0) -> Any:
    """An untrained `Qwen3VLForConditionalGeneration`, float32, on the CPU."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    settings = config(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(settings).float()
        # What is added to the residual stream starts small, as in GPT-2.
        with torch.no_grad():
            depths = {"visual": settings.vision_config.depth}
            for name, weight in model.named_parameters():
                if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")) or (
                    "blocks" in name and name.endswith("linear_fc2.weight")
                ):
                    depth = depths.get(name.split(".")[1], settings.text_config.num_hidden_layers)
                    weight.mul_((2 * depth) ** -0.5)
    return model


def matrices(model: Any) -> tuple[list[Any], list[Any]]:
    """Weights that map hidden states to hidden states, and all others."""
    inside: list[Any] = []
    others: list[Any] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            mapping = weight.ndim == 2 and "embed" not in name
            (inside if mapping else others).append(weight)
    return inside, others


def without_head(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What is saved: the head is the embedding."""
    return {name: value for name, value in weights.items() if name != HEAD}


def load_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Puts weights into a model.

    Raises:
        ModelError: Some are missing, or belong to another architecture.
    """
    report = model.load_state_dict(weights, strict=False)
    missing = [name for name in report.missing_keys if name != HEAD]
    if missing or report.unexpected_keys:
        raise ModelError(
            f"{len(missing)} weights are missing and {len(report.unexpected_keys)} unknown, such "
            f"as {[*missing, *report.unexpected_keys][0]}",
            remedy="give all parts of one run",
        )
    model.tie_weights()


def assemble(
    weights: dict[str, torch.Tensor], folder: Path, *, tokenizer: Path = TOKENIZER
) -> Path:
    """Writes the folder that `Qwen3VLReranker` loads, with the files of the hub's checkpoints."""
    import safetensors.torch

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        (folder / name).write_bytes((tokenizer / name).read_bytes())
    settings = config(load_tokenizer(tokenizer))
    settings.save_pretrained(folder)
    ids = settings.text_config
    write_json(
        folder / "generation_config.json",
        {"do_sample": False, "eos_token_id": ids.eos_token_id, "pad_token_id": ids.pad_token_id},
    )
    write_processor(folder)
    saved = half(without_head(weights))
    safetensors.torch.save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
