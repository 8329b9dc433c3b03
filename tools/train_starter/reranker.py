"""Trains the starter reranker, or assembles its folder from trained weights.

    python -m tools.train_starter.reranker tokenizer
    python -m tools.train_starter.reranker train --out run1 --minutes 9
    python -m tools.train_starter.reranker train --out run2 --minutes 9 --resume run1 \
        --seeing-minutes 0 --caption-minutes 0
    python -m tools.train_starter.reranker assemble --weights run2 --out starter-reranker

This module imports no torch: the processes that make batches import it too, and need none.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.train_starter.ranks import Ranks

from tools.train_starter.reranker_model import (
    TOKENIZER,
    assemble,
    build_tokenizer,
)
from tools.train_starter.weights import read_weights


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parser().parse_args(arguments)
    if options.command == "tokenizer":
        size = build_tokenizer(descriptions(options.lines), options.out)
        print(f"{size} tokens in {options.out}")  # noqa: T201
    elif options.command == "assemble":
        folder = assemble(read_weights(*options.weights), options.out, tokenizer=options.tokenizer)
        print(f"written to {folder}")  # noqa: T201
    else:
        _train(options)


def descriptions(count: int) -> Iterator[str]:
    """Descriptions for the tokenizer: of pictures and clips, as written and as users may type."""
    from secondglance.scenes.examples import captioned, pairs
    from secondglance.scenes.vocabulary import kinds

    rng = random.Random(0)
    lines = [one.text for one in captioned(count // 2, seed=11)]
    for pair in pairs("text-clip", count // 4, seed=11):
        lines += [pair.query.text, pair.caption]
    for kind in kinds():
        # Names alone, too: a query may begin with one.
        lines += [*kind.en, *kind.en_plural, *kind.zh] * 3
    for line in lines:
        yield line
        if line.isascii() and rng.random() < 0.3:
            yield line[0].upper() + line[1:]


def _train(options: argparse.Namespace) -> None:
    from tools.train_starter.ranks import launch

    options.out.mkdir(parents=True, exist_ok=True)
    launch(_train_rank, options.gpus, options)


def _train_rank(ranks: Ranks, options: argparse.Namespace) -> None:
    from secondglance.scenes.render import Renderer
    from tools.train_starter.reranker_training import Options, Trainer

    device = f"cuda:{ranks.rank}" if ranks.count > 1 else options.device

    resume = tuple(options.resume or ())
    trainer = Trainer(
        Options(
            out=options.out,
            minutes=options.minutes,
            seeing_minutes=options.seeing_minutes,
            caption_minutes=options.caption_minutes,
            resume=resume,
            batch=options.batch,
            group=options.group,
            workers=max(1, options.workers // ranks.count),
            lr=options.lr,
            matrix_lr=options.matrix_lr,
            final_lr=options.final_lr,
            hard=options.hard,
            weight_decay=options.weight_decay,
            judged_size=options.judged_size,
            queries=options.queries,
            photos=options.photos,
            seed=len(resume) if options.seed is None else options.seed,
            device=device,
            eager=options.eager,
            compiled=options.compiled,
            log=options.log or options.out / "log.jsonl",
            tokenizer=options.tokenizer,
        ),
        Renderer(device=device),
        ranks,
    )
    trainer.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Trains the starter reranker.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    words = commands.add_parser("tokenizer", help="train the tokenizer")
    words.add_argument("--out", type=Path, default=TOKENIZER)
    words.add_argument("--lines", type=int, default=60_000)
    whole = commands.add_parser("assemble", help="write the folder that Qwen3VLReranker loads")
    whole.add_argument("--weights", type=Path, nargs="+", required=True)
    whole.add_argument("--out", type=Path, required=True)
    whole.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    train = commands.add_parser(
        "train", help="train", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--minutes", type=float, default=9.0, help="the whole run takes so long")
    train.add_argument("--seeing-minutes", type=float, default=0.5)
    train.add_argument("--caption-minutes", type=float, default=1.0)
    train.add_argument("--resume", type=Path, nargs="+", help="weights, or the folder of a run")
    train.add_argument("--batch", type=int, default=512, help="pairs a step on each GPU")
    train.add_argument(
        "--group", type=int, default=16, help="steps whose pictures are drawn at once"
    )
    train.add_argument("--workers", type=int, default=12)
    train.add_argument("--lr", type=float, default=8e-4, help="of embeddings, norms and heads")
    train.add_argument("--matrix-lr", type=float, default=1e-3, help="of matrices")
    train.add_argument("--final-lr", type=float, default=0.0, help="share of them at the end")
    train.add_argument("--hard", type=float, default=0.6, help="near-misses among negatives")
    train.add_argument("--weight-decay", type=float, default=0.05)
    train.add_argument("--judged-size", type=int, default=512, help="pairs of evaluation batches")
    train.add_argument("--queries", type=int, default=8, help="pairs that share a candidate")
    train.add_argument("--photos", type=float, default=0.06, help="candidates that are photos")
    train.add_argument("--gpus", type=int, default=1)
    train.add_argument("--seed", type=int, help="another one for each run of a series")
    train.add_argument("--device", default="cuda")
    train.add_argument("--eager", action="store_true", help="do not record CUDA graphs")
    train.add_argument("--compiled", action="store_true", help="fuse each layer's operations")
    train.add_argument("--log", type=Path)
    train.add_argument("--tokenizer", type=Path, default=TOKENIZER)
    return parser


if __name__ == "__main__":
    main()
