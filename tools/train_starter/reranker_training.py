"""The training loop of the starter reranker: first seeing, then captions, then yes or no."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from secondglance.errors import ModelError
from tools.train_starter import reranker_model
from tools.train_starter.ranks import Ranks
from tools.train_starter.reranker_data import (
    CAPTIONING_SHARES,
    KINDS,
    PICTURE_SIZES,
    SHARES,
    Batch,
    Batches,
    Workers,
)
from tools.train_starter.reranker_evaluation import Table, as_text, measure
from tools.train_starter.reranker_feed import Feed, layout, wanted
from tools.train_starter.reranker_forward import Forward
from tools.train_starter.reranker_graphs import Gradients
from tools.train_starter.reranker_objective import LOSSES, Inputs, Layout, Objective
from tools.train_starter.reranker_optimizer import Optimizer
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_prompts import Prompts
from tools.train_starter.weights import read_weights, write_weights

Stage: TypeAlias = Literal["see", "caption", "yesno"]

HEADS = "heads"
"""Folder of the heads that only training needs, beside the weights."""
LOG_EVERY_S = 10.0
EVALUATE_EVERY_S = 150.0
EMA_DECAY = 0.999
TELL_EVERY = 3
"""Steps of the last stage of which one tells captions."""
JUDGED_BATCHES = {"text-image": 8, "text-clip": 6}
JUDGED_BATCHES_ELSE = 3
LARGEST_GRADIENT = 1.0
WARM_STEPS = 150
EASIEST = 0.4
"""Share of the near-misses that the yes/no stage begins with: without any, what is asked and what
is true would be learned as one."""
RAMP_SHARE = 0.15
"""Share of the yes/no stage after which all are there."""
LOSS_WEIGHTS: dict[Stage, tuple[float, ...]] = {
    "see": (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    "caption": (0.0, 0.0, 0.0, 0.0, 1.0, 0.5),
    "yesno": (1.0, 0.3, 0.5, 0.3, 0.5, 0.25),
}
"""Of yes/no, reason, roles, facts, caption (told in some steps of the last stage) and seeing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run: see the command's help."""

    out: Path
    minutes: float
    seeing_minutes: float
    caption_minutes: float
    resume: tuple[Path, ...]
    batch: int
    group: int
    workers: int
    lr: float
    matrix_lr: float
    final_lr: float
    hard: float
    weight_decay: float
    judged_size: int
    queries: int
    photos: float
    seed: int
    device: str
    eager: bool
    compiled: bool
    log: Path
    tokenizer: Path


class Trainer:
    """One run of training.

    Args:
        options: How.
        renderer: Draws the scenes.
        ranks: This process among those that train together.
    """

    def __init__(self, options: Options, renderer: Any, ranks: Ranks | None = None) -> None:
        self._started = time.monotonic()
        self._options = options
        self._ranks = ranks or Ranks()
        self._device = torch.device(options.device)
        own = options.seed + 1000 * self._ranks.rank
        torch.manual_seed(options.seed)
        torch.set_float32_matmul_precision("highest")  # positions are turned to angles by one
        judged = [
            (task, 1_000_003 * (number + 1))
            for task in SHARES
            for number in range(JUDGED_BATCHES.get(task, JUDGED_BATCHES_ELSE))
        ]
        self._workers = Workers(
            options.workers,
            size=options.batch * options.group,
            seed=own * 1_000_000,
            judged=judged if self._ranks.leads else (),
            judged_size=options.judged_size,
            queries=options.queries,
            tokenizer=options.tokenizer,
        )
        tokenizer = reranker_model.load_tokenizer(options.tokenizer)
        model = reranker_model.build_model(tokenizer, seed=options.seed)
        if options.resume:
            reranker_model.load_weights(model, read_weights(*options.resume))
        self._model = model.to(self._device).train()
        forward = Forward(self._model, compiled=options.compiled)
        self._objective = Objective(forward, tokenizer)
        for source in options.resume:
            if (source / HEADS).is_dir():
                self._objective.load_state_dict(read_weights(source / HEADS))
        self._objective.to(self._device)
        matrices, others = reranker_model.matrices(self._model)
        others += self._objective.parameters()
        self._optimizer = Optimizer(
            matrices,
            others,
            weight_decay=options.weight_decay,
            fused=self._device.type == "cuda",
        )
        self._gradients = Gradients(self._objective, self._optimizer.weights, self._device)
        self._averages = [w.detach().clone() for w in self._optimizer.weights]
        varied = Pictures(renderer, options.device, augment=True, seed=own)
        plain = Pictures(renderer, options.device, augment=False)
        self._feed = Feed(self._device, varied, photos=options.photos, seed=own)
        self._plain = Feed(self._device, plain)
        self._steps = 0
        self._sums = _Sums(self._device)
        self._log = options.log.open("a", encoding="utf-8") if self._ranks.leads else None

    def run(self) -> Table | None:
        """Trains until the time box ends, saves the averaged weights, and evaluates them.

        Returns:
            The evaluation, from the process that leads.
        """
        options = self._options
        self._workers.steer(hard=0.0, captioning=True)
        if self._device.type == "cuda" and not options.eager:
            self._record()
        begun_s = self._ranks.agree(self._elapsed_s())
        box_s = options.minutes * 60
        end_s = box_s - max(min(25.0, 0.1 * box_s), 2.0)  # for the evaluation at the end
        caption_s = begun_s + options.seeing_minutes * 60
        yesno_s = caption_s + options.caption_minutes * 60
        logged_s = evaluated_s = self._elapsed_s()
        ahead_s = min(6.0, 0.1 * box_s)  # batches are made so much earlier
        lr = 0.0
        for batch, given in self._feed.stream(self._workers, options.batch):
            now_s = self._ranks.agree(self._elapsed_s())
            if now_s >= end_s:
                break
            stage: Stage = "see" if now_s < caption_s else "caption"
            if now_s >= yesno_s - ahead_s:
                share = max((now_s - yesno_s) / (end_s - yesno_s), 0.0)
                # Weights that come straight to this stage have met near-misses before.
                begin = 1.0 if options.resume else EASIEST
                ramp = begin + (1 - begin) * min(1.0, share / RAMP_SHARE)
                self._workers.steer(hard=options.hard * ramp, captioning=False)
            if now_s >= yesno_s:
                stage = "yesno"
            share = (now_s - begun_s) / (end_s - begun_s)
            lr = min(1.0, (self._steps + 1) / WARM_STEPS) * (
                options.final_lr + (1 - options.final_lr) * (1 + math.cos(math.pi * share)) / 2
            )
            self._step(batch, given, lr=lr, stage=stage)
            if not self._ranks.leads:
                continue
            now_s = self._elapsed_s()
            if now_s - logged_s >= LOG_EVERY_S:
                self._report(now_s, now_s - logged_s, lr, stage)
                logged_s = now_s
            if now_s - evaluated_s >= EVALUATE_EVERY_S and now_s < end_s - EVALUATE_EVERY_S / 3:
                self._evaluate(brief=True)
                self.save()
                evaluated_s = self._elapsed_s()
        self._ranks.close()
        if not self._ranks.leads:
            self._workers.close()
            return None
        self._report(now_s, max(now_s - logged_s, 1e-9), lr, "end")
        self.save()
        table = self._evaluate(brief=False)
        (options.out / "evaluation.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
        self._workers.close()
        if self._log is not None:
            self._log.close()
        return table

    def save(self) -> list[Path]:
        """Writes the averaged weights."""
        with self._averaged():
            weights = reranker_model.without_head(self._model.state_dict())
            write_weights(self._objective.state_dict(), self._options.out / HEADS)
            return write_weights(weights, self._options.out)

    def _record(self) -> None:
        """Records the steps of all layouts that will come."""
        options = self._options
        maker = Batches(
            Prompts(options.tokenizer), size=options.batch, split="train", vary=False,
            queries=options.queries,
        )  # fmt: skip
        began_s = self._elapsed_s()
        for task in SHARES:
            sizes = dict.fromkeys(PICTURE_SIZES) if task in ("text-image", "text-mixed") else [None]
            for picture in sizes:
                batch = maker.make(task, seed=1, hard=0.5, picture=picture)
                given = self._feed.prepare(batch)
                stages: list[tuple[Stage, bool]] = [("yesno", True), ("yesno", False)]
                if task in CAPTIONING_SHARES:
                    stages += [("see", False), ("caption", True)]
                for stage, telling in stages:
                    self._gradients.record(*self._posed(batch, given, stage, telling=telling))
        torch.cuda.synchronize()
        if self._ranks.leads:
            for name, milliseconds in self._gradients.timed():
                print(f"{milliseconds:7.1f} ms {name}")  # noqa: T201
            taken_s = self._elapsed_s() - began_s
            print(f"recorded {self._gradients.count} layouts in {taken_s:.1f} s", flush=True)  # noqa: T201

    def _posed(
        self, batch: Batch, given: Inputs, stage: Stage, *, telling: bool
    ) -> tuple[Layout, Inputs]:
        """The task that a stage makes of a batch."""
        made = layout(batch, judging=stage == "yesno", telling=telling)
        weights = torch.tensor(LOSS_WEIGHTS[stage])
        if self._device.type == "cuda":
            weights = weights.pin_memory().to(self._device, non_blocking=True)
        return made, wanted(given, made) | {"weights": weights}

    def _step(self, batch: Batch, given: Inputs, *, lr: float, stage: Stage) -> None:
        telling = stage == "caption" or (stage == "yesno" and self._steps % TELL_EVERY == 0)
        told, answers, gradient = self._gradients(
            *self._posed(batch, given, stage, telling=telling)
        )
        with torch.no_grad():
            self._ranks.average(gradient)
            gradient *= (LARGEST_GRADIENT / (gradient.norm() + 1e-6)).clamp_max(1.0)
        self._optimizer.step(
            gradient, lr=lr * self._options.lr, matrix_lr=lr * self._options.matrix_lr
        )
        self._sums.add(told, answers, self._options.batch * self._ranks.count)
        self._steps += 1
        decay = min(EMA_DECAY, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            torch._foreach_lerp_(
                self._averages, [w.detach() for w in self._optimizer.weights], 1 - decay
            )

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights."""
        weights = self._optimizer.weights
        with torch.no_grad():
            kept = [w.detach().clone() for w in weights]
            torch._foreach_copy_(weights, self._averages)
            try:
                yield
            finally:
                torch._foreach_copy_(weights, kept)

    def _evaluate(self, *, brief: bool) -> Table:
        judged = self._workers.judged()
        if brief:
            judged = list({batch.task: batch for batch in judged}.values())

        def log_odds(batch: Batch) -> Any:
            given = self._plain.prepare(batch)
            asked = layout(batch, judging=True, telling=False)
            on = self._device.type == "cuda"
            with (
                torch.no_grad(),
                torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=on),
            ):
                seen = self._objective.see(asked, given)
                values = self._objective.judge(asked, given, *seen)
            return values.float().cpu().numpy()

        with self._averaged():
            table = measure(judged, log_odds)
        print(as_text(table), flush=True)  # noqa: T201
        self._write({"elapsed_s": self._elapsed_s(), "step": self._steps, "evaluation": table})
        return table

    def _report(self, now_s: float, window_s: float, lr: float, stage: str) -> None:
        found = self._sums.read(window_s)
        if found["pairs_per_s"] and not found.keys() & set(LOSSES):
            raise ModelError("the loss is no longer finite", remedy="lower --lr and --matrix-lr")
        line = {"elapsed_s": round(now_s, 1), "stage": stage, "step": self._steps, "rate": lr}
        line |= {"waiting": self._workers.waiting, "unrecorded": self._gradients.unrecorded}
        line |= {"idle": round(self._feed.idle_s / window_s, 3)} | found
        self._feed.idle_s = 0.0
        self._write(line)
        shown = " ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in line.items()
        )
        print(shown, flush=True)  # noqa: T201

    def _write(self, line: dict[str, Any]) -> None:
        assert self._log is not None, "only the leading process reports"
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started


class _Sums:
    """Losses and answers since the last report, kept on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._clear()

    def _clear(self) -> None:
        self._pairs = 0
        self._losses = torch.zeros(2, len(LOSSES), device=self._device)
        self._answers = torch.zeros(2, len(KINDS), device=self._device)

    def add(self, told: Tensor, answers: Tensor, pairs: int) -> None:
        """What `Objective` tells of one step; losses that do not apply are not finite."""
        finite = told.isfinite()
        self._losses += torch.stack([torch.where(finite, told, 0.0), finite.float()])
        self._answers += answers
        self._pairs += pairs

    def read(self, window_s: float) -> dict[str, float]:
        """Means, and percent of right answers by kind of pair."""
        found = {"pairs_per_s": round(self._pairs / window_s, 1)}
        for name, total, count in zip(LOSSES, *self._losses.tolist(), strict=True):
            if count:
                found[name] = total / count
        right, seen = self._answers.tolist()
        for number, kind in enumerate(KINDS):
            if seen[number]:
                found[kind] = round(100 * right[number] / seen[number], 1)
        self._clear()
        return found
