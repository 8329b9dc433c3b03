"""How many pairs a second the rerank engine scores, beside two ways of scoring the same pairs.

One process, the same prompts and pixels: a loop over single pairs with a cache that nobody reads,
as the official script has it; batches through transformers; and the engine, also fused, and in fp8.
Weights are random in the architectures of Qwen3-VL-Reranker: this measures speed, never quality.
Before anything is printed, the scores of all of them are compared.

    python benchmarks/rerank.py --models 2B,8B
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from secondglance.rerank import Qwen3VLReranker, checkpoint
from secondglance.rerank.batching import Pair
from secondglance.rerank.engine import Engine
from secondglance.rerank.preprocess import prepare
from secondglance.rerank.replica import PlainForward, model_pixels
from secondglance.types import Content, VideoClip

TEXT = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 2,
             "num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 128},
    "2B": {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16,
           "num_hidden_layers": 28, "num_key_value_heads": 8, "head_dim": 128},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 32,
           "num_hidden_layers": 36, "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip
VISION = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "depth": 4, "num_heads": 4,
             "deepstack_visual_indexes": [0, 1, 2]},
    "2B": {"hidden_size": 1024, "intermediate_size": 4096, "depth": 24, "num_heads": 16,
           "deepstack_visual_indexes": [5, 11, 17]},
    "8B": {"hidden_size": 1152, "intermediate_size": 4304, "depth": 27, "num_heads": 16,
           "deepstack_visual_indexes": [8, 16, 24]},
}  # fmt: skip
"""As in the hub's config.json of Qwen3-VL-Reranker-2B and -8B; `tiny` is for trying this script."""
TOKENIZER = Path(__file__).parents[1] / "secondglance/models/starter/reranker"
"""Whose tokenizer and processor are used."""
SEEN = {"max_pixels": 1_843_200}
BF16 = 1 / 4
FP8 = 2.0
"""Log-odds of the same pairs may differ by so much, in other kernels or in 8 bits. With random
weights they have a standard deviation of about 1.3."""
WORDS = "two dogs run along the water on a sandy beach while the sun sets behind them "


def random_model(size: str, device: str) -> tuple[Any, torch.Tensor]:
    """An architecture with random weights, and a head."""
    from transformers import AutoConfig, Qwen3VLConfig, Qwen3VLModel

    ours = AutoConfig.from_pretrained(TOKENIZER)
    scaling = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    config = Qwen3VLConfig(
        text_config={
            **TEXT[size], "rope_scaling": scaling, "rope_theta": 5_000_000.0,
            "vocab_size": 151_936, "max_position_embeddings": 262_144,
        },
        vision_config={
            **VISION[size], "out_hidden_size": TEXT[size]["hidden_size"], "patch_size": 16,
            "num_position_embeddings": 2304, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        **{token: getattr(ours, token) for token in tokens},
    )  # fmt: skip
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Qwen3VLModel._from_config(config, attn_implementation="sdpa").eval()
    finally:
        torch.set_default_dtype(torch.float32)
    head = torch.randn(config.text_config.hidden_size, device=device) * 0.02
    return model, head


def reranker(
    make: Callable[[str], tuple[Any, torch.Tensor]], device: str, **options: Any
) -> Qwen3VLReranker:
    """The engine around models and heads that `make` gives, one for each device it is asked for."""
    real = checkpoint.load(TOKENIZER, device=torch.device("cpu"), options={"dtype": torch.float32})

    def load(folder: Path, *, device: torch.device, options: Any) -> checkpoint.Checkpoint:
        model, head = make(str(device))
        return replace(real, model=model, head=head)

    before, checkpoint.load = checkpoint.load, load
    try:
        return Qwen3VLReranker(TOKENIZER, device=device, **SEEN, **options)
    finally:
        checkpoint.load = before


def pictures(count: int, width: int, height: int, seed: int = 0) -> list[Image.Image]:
    """Noise that JPEG does not make empty."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, height // 16, width // 16, 3), dtype=np.uint8)
    return [
        Image.fromarray(value).resize((width, height), Image.Resampling.BICUBIC) for value in small
    ]


def cases(count: int) -> dict[str, tuple[Content, list[Content]]]:
    """Queries and candidates."""
    words = Content(texts=(WORDS * 2,))

    def of(width: int, height: int) -> list[Content]:
        return [Content(images=(picture,)) for picture in pictures(count, width, height)]

    clips = [
        Content(videos=(VideoClip(frames=pictures(16, 320, 256, seed), times_s=[*range(16)]),))
        for seed in range(count // 4)
    ]
    asking = Content(images=tuple(pictures(1, 1280, 960, 7)))
    return {
        "text, 256 tokens": (words, of(512, 512)),
        "text, 1200 tokens": (words, of(1280, 960)),
        "text, clip of 16 frames": (words, clips),
        "image of 1200, 256 tokens": (asking, of(512, 512)),
    }


def pairs_of(engine: Qwen3VLReranker, query: Content, documents: Sequence[Content]) -> list[Pair]:
    """Prompts and pixels, as `score` makes them."""
    limits = engine._limits()
    asked = prepare(query, limits)
    pieces = engine._query_pieces(asked, None)
    sides = (prepare(document, limits) for document in documents)
    return [engine._pair(place, pieces, asked, side) for place, side in enumerate(sides)]


def flop(pair: Pair, size: str, shared: int = 0) -> float:
    """Arithmetic of a pair's matrices and attention, without what others share."""
    text, vision = TEXT[size], VISION[size]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    width = text["head_dim"] * (text["num_attention_heads"] * 2 + text["num_key_value_heads"] * 2)
    tokens = len(pair) - shared
    layer = 2 * tokens * (hidden * width + 3 * hidden * inner)
    layer += 4 * tokens * (shared + tokens / 2) * text["num_attention_heads"] * text["head_dim"]
    total = text["num_hidden_layers"] * layer
    across, deep = int(vision["hidden_size"]), int(vision["depth"])
    items = [(1, i) for i in pair.images] + [(len(v) // 2, v) for v in pair.videos]
    if shared:
        items = items[pair.query_images + pair.query_videos :]
    for times, item in items:
        patches = item.shape[-1] * item.shape[-2] // 256
        block = 2 * patches * (4 * across**2 + 2 * across * int(vision["intermediate_size"]))
        block += 4 * patches**2 * across
        total += times * deep * block
    return float(total)


def ceiling(device: str) -> float:
    """TFLOP/s of a large bf16 matrix product on random data."""
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / timed(lambda: a @ b, 10, device) / 1e12


def timed(work: Callable[[], Any], times: int, device: str) -> float:
    """Median seconds after a run to warm up."""
    work()
    seconds = []
    for _ in range(times):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def loop(
    model: Any, head: torch.Tensor, engine: Qwen3VLReranker, pairs: Sequence[Pair]
) -> list[float]:
    """One pair at a time, with a cache that nobody reads."""
    found = []
    for pair in pairs:
        inputs = {
            "input_ids": torch.from_numpy(pair.encoded.ids)[None],
            "position_ids": torch.from_numpy(pair.encoded.positions)[:, None],
            **model_pixels(engine.processor, [pair]),
        }
        inputs = {name: value.to(head.device) for name, value in inputs.items()}
        with torch.no_grad():
            state = model(**inputs, use_cache=True).last_hidden_state[0, -1]
        found.append(float(state.float() @ head))
    return found


def in_order(engine: Engine, pairs: Sequence[Pair]) -> list[float]:
    """Log-odds by place."""
    found = dict(engine.answers([pairs]))
    return [float(found[place].log_odds or 0.0) for place in range(len(pairs))]


def measure(
    size: str, device: str, count: int, repeat: int, ways: Sequence[str]
) -> list[dict[str, Any]]:
    """All ways on all cases with one size of model."""
    model, head = random_model(size, device)
    peak = ceiling(device)
    engine = reranker(lambda _: (model, head), device)
    plain = PlainForward(model, head, processor=engine.processor, pad_id=0)
    batched = Engine([plain], name="plain", batch_tokens=engine.batch_tokens)
    rows: list[dict[str, Any]] = []
    prepared = {name: pairs_of(engine, *case) for name, case in cases(count).items()}
    expected = {name: in_order(engine._engine, pairs) for name, pairs in prepared.items()}

    def add(
        name: str, way: str, score: Callable[[Sequence[Pair]], list[float]], share: int = 1,
        tolerance: float = BF16,
    ) -> None:  # fmt: skip
        """Times a way on one of so many pairs of a case, after a look at its scores."""
        if way not in ways:
            return
        pairs = prepared[name][: max(4, len(prepared[name]) // share)]
        off = float(np.abs(np.subtract(score(pairs), expected[name][: len(pairs)])).max())
        if not off <= tolerance:
            print(f"{size}, {name}, {way}: scores are {off:.3g} off", file=sys.stderr)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = timed(lambda: score(pairs), repeat, device)
        tflops = sum(flop(pair, size) for pair in pairs) / 1e12 / seconds
        found = {
            "model": size, "case": name, "way": way, "pairs/s": round(len(pairs) / seconds, 1),
            "TFLOP/s": round(tflops, 1), "of ceiling": round(tflops / peak, 3),
            "off": round(off, 4), "agrees": off <= tolerance,
        }  # fmt: skip
        if device == "cuda":
            found["peak GB"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        print(json.dumps(found), flush=True)
        rows.append(found)

    for name in prepared:
        add(name, "loop", partial(loop, model, head, engine), share=8)
        add(name, "transformers", partial(in_order, batched), share=2)
        add(name, "engine", partial(in_order, engine._engine))
    for way, options in (
        ("engine, fused", {"compiled": True}),
        ("engine, fp8, fused", {"compiled": True, "fp8": True}),
    ):
        if way not in ways:
            continue
        fast = reranker(lambda _: (model, head), device, **options)
        if fast.fp8_drift:
            drift = asdict(fast.fp8_drift)
            rows.append({"model": size, "case": "probe", "way": way, "drift": drift})
        for name in prepared:
            tolerance = FP8 if fast.fp8_drift else BF16
            add(name, way, partial(in_order, fast._engine), tolerance=tolerance)
        if "files" in ways and not fast.fp8_drift:
            rows.append(from_files(size, fast, count, repeat, device))
    return rows


def from_files(
    size: str, engine: Qwen3VLReranker, count: int, repeat: int, device: str
) -> dict[str, Any]:
    """All of it, from JPEG files on disk."""
    with tempfile.TemporaryDirectory() as folder:
        documents = []
        for number, picture in enumerate(pictures(count, 1280, 960)):
            path = Path(folder) / f"{number}.jpg"
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=90)
            path.write_bytes(buffer.getvalue())
            documents.append(Content(images=(path,)))
        seconds = timed(
            lambda: engine.score(Content(texts=(WORDS * 2,)), documents), repeat, device
        )
    found = {
        "model": size,
        "case": "text, 1200 tokens, JPEG files",
        "way": "engine, fused",
        "pairs/s": round(count / seconds, 1),
    }
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", default="2B")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--ways", default="loop;transformers;engine;engine, fused;engine, fp8, fused;files"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for size in options.models.split(","):
        rows += measure(
            size, options.device, options.pairs, options.repeat, options.ways.split(";")
        )
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    whole = {"device": name, "torch": torch.__version__, "pairs": options.pairs, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    if any(not row.get("agrees", True) for row in rows):
        sys.exit("some scores do not agree")


if __name__ == "__main__":
    main()
