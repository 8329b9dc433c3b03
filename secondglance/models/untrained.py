"""Tiny checkpoints with random weights, in the formats of the real ones.

They let everything run without a download: decoding, embedding, stores, prompts, batching. Their
rankings are meaningless, and every folder says so in its README.md.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

README = """# Untrained {kind}

Untrained: random weights (seed {seed}), for trying the machinery; rankings are meaningless.

Written by secondglance. The format is that of real checkpoints of {format}.
"""

CLIP_CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 96, "layers": 2, "width": 128, "patch_size": 16},
        # open-clip's built-in tokenizer: byte-level, so no language is unknown to it.
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}

CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string -%}{{ message.content }}{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def build_untrained_clip(folder: Path, *, seed: int = 0) -> Path:
    """Writes an open-clip folder: a ViT of 96 x 96 pixels with vectors of length 128.

    `open_clip.create_model_from_pretrained(f"local-dir:{folder}")` and
    `open_clip.get_tokenizer(f"local-dir:{folder}")` load it.

    Args:
        folder: Where it belongs. A complete folder is returned as it is.
        seed: Of the weights; the same seed gives the same weights.
    """

    def write(target: Path) -> None:
        import open_clip
        import safetensors.torch
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = open_clip.model.CLIP(**CLIP_CONFIG["model_cfg"])
            # With the usual small start all texts would have nearly the same vector.
            torch.nn.init.normal_(model.token_embedding.weight, std=1.0)
            torch.nn.init.normal_(model.positional_embedding, std=0.1)
            _enlarge(model.transformer.resblocks, torch)
            _enlarge(model.visual.transformer.resblocks, torch)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(weights, target / "open_clip_model.safetensors")
        write_json(target / "open_clip_config.json", CLIP_CONFIG)
        card = README.format(kind="CLIP", seed=seed, format="open-clip")
        (target / "README.md").write_text(card, encoding="utf-8")

    return _build(folder, write)


def build_untrained_reranker(folder: Path, *, seed: int = 0) -> Path:
    """Writes a Qwen3-VL-Reranker folder of about 2 MB, which `Qwen3VLReranker` loads.

    Args:
        folder: Where it belongs. A complete folder is returned as it is.
        seed: Of the weights; the same seed gives the same weights.
    """

    def write(target: Path) -> None:
        import safetensors.torch
        import torch
        from transformers import Qwen3VLForConditionalGeneration

        vocabulary = _write_tokenizer(target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen3VLForConditionalGeneration(_reranker_config(vocabulary))
            # Pictures must weigh in as words do, or all of them would score the same.
            for merger in (model.model.visual.merger, *model.model.visual.deepstack_merger_list):
                torch.nn.init.normal_(merger.linear_fc2.weight, std=0.5)
            torch.nn.init.normal_(model.lm_head.weight, std=0.1)
        model.config.save_pretrained(target)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(
            weights, target / "model.safetensors", metadata={"format": "pt"}
        )
        write_processor(target)
        card = README.format(kind="reranker", seed=seed, format="Qwen3-VL-Reranker")
        (target / "README.md").write_text(card, encoding="utf-8")

    return _build(folder, write)


def _build(folder: Path, write: Callable[[Path], None]) -> Path:
    """Writes a folder whole or not at all. README.md, written last, marks a complete one."""
    if (folder / "README.md").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as parent:
        made = Path(parent) / folder.name
        made.mkdir()
        write(made)
        try:
            os.replace(made, folder)  # noqa: PTH105
        except OSError:
            if not (folder / "README.md").is_file():  # leftovers, not another process's work
                shutil.rmtree(folder)
                made.rename(folder)
    return folder


def _enlarge(blocks: Any, torch: Any) -> None:
    for block in blocks:
        for weight in (block.attn.in_proj_weight, block.attn.out_proj.weight):
            torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        for layer in (block.mlp.c_fc, block.mlp.c_proj):
            torch.nn.init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)


def _write_tokenizer(target: Path) -> dict[str, int]:
    """Byte-level BPE whose only words are "yes" and "no"; returns its vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    merges = [("y", "e"), ("ye", "s"), ("n", "o")]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in merges)]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL_TOKENS])
    tokenizer.save(str(target / "tokenizer.json"))
    write_tokenizer_config(target)
    return dict(tokenizer.get_vocab())


def _reranker_config(vocabulary: dict[str, int]) -> Any:
    from transformers import Qwen3VLConfig

    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "hidden_act": "silu",
            "initializer_range": 0.2,
            "max_position_embeddings": 262144,
            "rope_theta": 5_000_000.0,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
                "rope_type": "default",
            },
            "pad_token_id": vocabulary["<|endoftext|>"],
            "eos_token_id": vocabulary["<|im_end|>"],
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "out_hidden_size": 64,
            "num_position_embeddings": 256,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.1,
        },
        image_token_id=vocabulary["<|image_pad|>"],
        video_token_id=vocabulary["<|video_pad|>"],
        vision_start_token_id=vocabulary["<|vision_start|>"],
        vision_end_token_id=vocabulary["<|vision_end|>"],
        tie_word_embeddings=False,
        architectures=["Qwen3VLForConditionalGeneration"],
        dtype="float32",
    )


def write_tokenizer_config(target: Path) -> None:
    """Writes how transformers is to read a reranker's `tokenizer.json`."""
    write_json(
        target / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "additional_special_tokens": list(CONTROL_TOKENS[1:]),
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 262144,
            "pad_token": "<|endoftext|>",
            "processor_class": "Qwen3VLProcessor",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def write_processor(target: Path) -> None:
    """Writes a reranker's image and video processors, and its chat template."""
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": 2,
        "patch_size": 16,
        "processor_class": "Qwen3VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "temporal_patch_size": 2,
    }
    write_json(
        target / "preprocessor_config.json",
        common
        | {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        },
    )
    write_json(
        target / "video_preprocessor_config.json",
        common
        | {
            "do_sample_frames": True,
            "fps": 2,
            "max_frames": 768,
            "min_frames": 4,
            "size": {"longest_edge": 25165824, "shortest_edge": 4096},
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    )
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a file of a checkpoint."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
