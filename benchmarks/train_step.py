"""What a training step of the starter reranker costs on a GPU, recorded and not, and where.

Three questions for each layout of batch: milliseconds of a step as PyTorch runs it, milliseconds of
its replay, and which kernels the time goes to.

    python benchmarks/train_step.py --batch 512 --out train-step.json

It needs nothing but torch and transformers, for machines that have no more.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))
from secondglance.scenes.examples import Task
from secondglance.scenes.render import Renderer
from tools.train_starter import reranker_model
from tools.train_starter.reranker_data import Batches
from tools.train_starter.reranker_feed import Feed, layout, wanted
from tools.train_starter.reranker_forward import Forward
from tools.train_starter.reranker_graphs import Gradients
from tools.train_starter.reranker_objective import Objective
from tools.train_starter.reranker_optimizer import Optimizer
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_prompts import Prompts
from tools.train_starter.reranker_training import LOSS_WEIGHTS

TASKS: tuple[Task, ...] = ("text-image", "text-clip", "text-text")
GROUP = 8


def milliseconds(work: Callable[[], object], times: int = 5) -> float:
    """Mean time of some work after one run of it."""
    work()
    torch.cuda.synchronize()
    began_s = time.perf_counter()
    for _ in range(times):
        work()
    torch.cuda.synchronize()
    return round((time.perf_counter() - began_s) / times * 1000, 2)


def kernels(work: Callable[[], object], title: str) -> None:
    """Prints where the GPU's time goes."""
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        for _ in range(3):
            work()
        torch.cuda.synchronize()
    print(title)
    table = found.key_averages().table(
        sort_by="cuda_time_total", row_limit=16, max_name_column_width=70
    )
    print("\n".join(line[:72] + line[-60:] for line in table.splitlines()))


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--queries", type=int, default=8, help="pairs that share a candidate")
    parser.add_argument("--compiled", action="store_true", help="fuse each layer's operations")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    prompts, device = Prompts(), torch.device("cuda")
    model = reranker_model.build_model(prompts.tokenizer, seed=1).to(device)
    objective = Objective(Forward(model, compiled=options.compiled), prompts.tokenizer).to(device)
    matrices, others = reranker_model.matrices(model)
    optimizer = Optimizer(
        matrices, [*others, *objective.parameters()], weight_decay=0.05, fused=True
    )
    recorded, plain = (Gradients(objective, optimizer.weights, device) for _ in range(2))
    feed = Feed(device, Pictures(Renderer("cuda"), "cuda", augment=True))
    rows: list[dict[str, object]] = []
    for task in TASKS:
        few, many = (
            Batches(
                prompts,
                size=options.batch * group,
                split="train",
                vary=True,
                queries=options.queries,
            ).make(task, seed=1, hard=0.5)
            for group in (1, GROUP)
        )
        rows.append(
            {
                "task": task,
                "what": f"rendering for {GROUP} steps",
                "ms": milliseconds(lambda many=many: feed.prepare(many), 2),  # type: ignore[misc]
            }
        )
        for judging, telling in ((True, True), (True, False), (False, False)):
            made = layout(few, judging=judging, telling=telling)
            given = wanted(feed.prepare(few), made)
            given["weights"] = torch.tensor(LOSS_WEIGHTS["yesno"], device=device)
            recorded.record(made, given)
            name = "judging" * judging + " telling" * telling or "seeing"
            for how, gradients in (("recorded", recorded), ("plain", plain)):
                step = lambda g=gradients, m=made, i=given: g(m, i)  # noqa: E731
                rows.append({"task": task, "what": f"{name}, {how}", "ms": milliseconds(step)})
            if judging and not telling:
                kernels(lambda m=made, i=given: recorded(m, i), f"{task}, {name}")  # type: ignore[misc]
    gradient = plain(made, given)[2]

    def update() -> None:
        optimizer.step(gradient, lr=1e-6, matrix_lr=1e-6)

    rows.append({"task": "", "what": "optimizer", "ms": milliseconds(update)})
    kernels(update, "optimizer")
    for row in rows:
        print(row)
    if options.out:
        found = {"device": torch.cuda.get_device_name(), "batch": options.batch, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
