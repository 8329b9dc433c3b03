"""The training loop of the starter reranker: first captions, then yes or no.

Yes or no alone hardly teaches the model to see. Describing pictures does, in about a minute, and
stays as a second objective, or objects and relations would be forgotten.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812

from secondglance.errors import ModelError
from tools.train_starter import reranker_model
from tools.train_starter.clip_photos import Photographs, varied
from tools.train_starter.ranks import Ranks
from tools.train_starter.reranker_data import KINDS, SHARES, Batch, View, Workers
from tools.train_starter.reranker_evaluation import Table, as_text, measure
from tools.train_starter.reranker_forward import Forward, Seen, join, patches
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_prompts import Words

LOG_EVERY_S = 10.0
EVALUATE_EVERY_S = 120.0
EMA_DECAY = 0.999
JUDGED_BATCHES = {"text-image": 8, "text-clip": 6}
JUDGED_BATCHES_ELSE = 3
CAPTION_WEIGHT = 0.5
PHOTOS_A_STEP = 48
REASON_WEIGHT = 0.3
RAMP_SHARE = 0.25
"""Share of the yes/no stage over which near-misses are mixed in."""

Frames: TypeAlias = "tuple[torch.Tensor | None, torch.Tensor | None]"
"""Pixels of the query and of the document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A run: see the command's help."""

    out: Path
    minutes: float
    caption_minutes: float
    resume: tuple[Path, ...]
    batch: int
    workers: int
    lr: float
    caption_lr: float
    final_lr: float
    hard: float
    weight_decay: float
    judged_size: int
    queries: int
    photos: float
    seed: int
    device: str
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
        torch.set_float32_matmul_precision("high")
        judged = [
            (task, 1_000_003 * (number + 1))
            for task in SHARES
            for number in range(JUDGED_BATCHES.get(task, JUDGED_BATCHES_ELSE))
        ]
        self._workers = Workers(
            options.workers,
            size=options.batch,
            seed=own * 1_000_000,
            judged=judged if self._ranks.leads else (),
            judged_size=options.judged_size,
            queries=options.queries,
            tokenizer=options.tokenizer,
        )
        tokenizer = reranker_model.load_tokenizer(options.tokenizer)
        self._yes, self._no = (tokenizer.token_to_id(word) for word in reranker_model.ANSWERS)
        model = reranker_model.build_model(tokenizer, seed=options.seed)
        if options.resume:
            reranker_model.load_weights(model, reranker_model.read_weights(options.resume))
        self._model = model.to(self._device).train()
        self._forward = Forward(self._model, compiled=options.compiled)
        self._varied = Pictures(renderer, options.device, augment=True, seed=own)
        self._plain = Pictures(renderer, options.device, augment=False)
        self._photos = Photographs(options.device, seed=own) if options.photos > 0 else None
        self._weights = [w for w in self._model.parameters() if w.requires_grad]
        # What a near-miss differs in, told from the same state as yes or no. It shows each
        # comparison its own error, and is thrown away after training.
        width = self._model.config.text_config.hidden_size
        self._reasons = torch.nn.Linear(width, len(KINDS), device=self._device)
        torch.nn.init.zeros_(self._reasons.weight)
        torch.nn.init.zeros_(self._reasons.bias)
        self._trained = [*self._weights, *self._reasons.parameters()]
        self._ema = [w.detach().clone() for w in self._weights]
        self._optimizer = self._make_optimizer()
        self._steps = 0
        self._sums = _Sums(self._device)
        self._log = options.log.open("a", encoding="utf-8") if self._ranks.leads else None

    def run(self) -> Table | None:
        """Trains until the time box ends, saves the averaged weights, and evaluates them.

        Returns:
            The evaluation, from the process that leads.
        """
        options = self._options
        box_s = options.minutes * 60
        end_s = box_s - max(min(25.0, 0.1 * box_s), 2.0)  # for the evaluation at the end
        caption_s = options.caption_minutes * 60
        self._workers.steer(hard=0.0, captioning=caption_s > 0)
        batches = self._prefetched()
        logged_s = evaluated_s = self._elapsed_s()
        first_s: float | None = None  # when the yes/no stage began
        for batch, frames in batches:
            now_s = self._ranks.agree(self._elapsed_s())
            if now_s >= end_s:
                break
            captioning = now_s < caption_s
            if captioning:
                lr = options.caption_lr * min(1.0, (self._steps + 1) / 200)
            else:
                first_s = now_s if first_s is None else first_s
                share = (now_s - first_s) / max(end_s - first_s, 1e-9)
                # Weights that come straight to this stage have met near-misses before.
                ramp = min(1.0, share / RAMP_SHARE) if caption_s else 1.0
                self._workers.steer(hard=options.hard * ramp, captioning=False)
                floor = options.final_lr
                lr = floor + (options.lr - floor) * (1 + math.cos(math.pi * share)) / 2
                lr *= min(1.0, share / 0.01 + 0.01)
            self._step(batch, frames, lr=lr, captioning=captioning)
            if not self._ranks.leads:
                continue
            now_s = self._elapsed_s()
            if now_s - logged_s >= LOG_EVERY_S:
                self._report(now_s, now_s - logged_s, lr, "caption" if captioning else "yesno")
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
            return reranker_model.save_weights(self._model.state_dict(), self._options.out)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        decayed = [w for w in self._trained if w.ndim >= 2]
        free = [w for w in self._trained if w.ndim < 2]
        return torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self._options.weight_decay},
                {"params": free, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98),
            fused=self._device.type == "cuda",
        )

    def _prefetched(self) -> Iterator[tuple[Batch, Frames]]:
        """Batches and their pixels, both on the device, made on a stream beside the training."""
        import queue
        import threading

        ready: queue.Queue[tuple[Batch, Frames, Any] | BaseException] = queue.Queue(maxsize=2)
        cuda = self._device.type == "cuda"
        stream: Any = torch.cuda.Stream(self._device) if cuda else None  # type: ignore[no-untyped-call]
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(self._device))

        def fetch() -> None:
            try:
                with torch.cuda.stream(stream) if cuda else contextlib.nullcontext():
                    for batch in self._workers:
                        moved = self._to_device(batch)
                        frames = self._frames(moved, self._varied)
                        event = stream.record_event() if stream is not None else None
                        ready.put((moved, frames, event))
            except BaseException as error:  # shown to the loop, which would wait for ever
                ready.put(error)

        threading.Thread(target=fetch, daemon=True).start()
        while True:
            asked_s = self._elapsed_s()
            found = ready.get(timeout=300)
            self._sums.idle_s += self._elapsed_s() - asked_s
            if isinstance(found, BaseException):
                raise found
            batch, frames, event = found
            if cuda:
                current = torch.cuda.current_stream(self._device)
                current.wait_event(event)
                for tensor in (*_tensors(batch), *(f for f in frames if f is not None)):
                    # Or its memory would be given to the next batch while it is still read.
                    tensor.record_stream(current)
            yield batch, frames

    def _step(self, batch: Batch, frames: Frames, *, lr: float, captioning: bool) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        query, document = frames
        telling = batch.caption is not None and (captioning or self._steps % 2 == 0)
        labels, kinds = batch.labels, batch.kinds
        if self._photos is not None and not captioning and not telling and document is not None:
            # The caption of a photograph is not known; so this is for the other steps.
            query, document, labels, kinds = self._with_photos(batch, query, document)
        with self._autocast():
            seen = self._see(batch, None if captioning else query, document)
            loss = torch.zeros((), device=self._device)
            if not captioning:
                log_odds, state = self._judge(batch, seen)
                loss = F.binary_cross_entropy_with_logits(log_odds, labels)
                self._sums.add("yesno", loss)
                reason = F.cross_entropy(self._reasons(state).float(), kinds)
                self._sums.add("reason", reason)
                loss = loss + REASON_WEIGHT * reason
                self._sums.count(log_odds, labels, kinds)
            if telling:
                told = self._caption(batch, seen[1])
                self._sums.add("caption", told)
                loss = loss + (1.0 if captioning else CAPTION_WEIGHT) * told
        self._optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:  # not for texts only, while only captions matter
            loss.backward()  # type: ignore[no-untyped-call]
        self._ranks.average(self._trained)
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0, foreach=True)
        self._optimizer.step()
        self._steps += 1
        self._sums.pairs += len(batch.labels) * self._ranks.count
        decay = min(EMA_DECAY, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            torch._foreach_lerp_(self._ema, [w.detach() for w in self._weights], 1 - decay)

    def _with_photos(
        self, batch: Batch, query: torch.Tensor | None, document: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Puts crops of photographs in the place of some candidates, and of their queries.

        Nothing matches them: so the model learns to say no to what it has not learned to see,
        and photographs stay in the order of the first pass.
        """
        assert self._photos is not None
        with torch.no_grad():
            chosen = torch.rand(len(document), device=self._device) < self._options.photos
            document = self._replaced(document, chosen)
            hit = chosen[batch.rows]
            if query is not None:
                query = self._replaced(query, hit & (torch.rand(len(hit), device=hit.device) < 0.5))
            labels = torch.where(hit, 0.0, batch.labels)
            kinds = torch.where(hit, KINDS.index("photo"), batch.kinds)
        return query, document, labels, kinds

    def _replaced(self, frames: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        assert self._photos is not None
        crops = self._photos.crops(PHOTOS_A_STEP)
        crops = varied(crops, crops[:0])
        crops = F.interpolate(crops, frames.shape[3:], mode="bilinear", antialias=True)
        number = torch.randint(len(crops), (len(frames),), device=frames.device)
        still = crops[number][:, None].expand_as(frames)
        return torch.where(chosen[:, None, None, None, None], still, frames)

    def _frames(self, batch: Batch, pictures: Pictures) -> Frames:
        def frames(view: View | None) -> torch.Tensor | None:
            if view is None:
                return None
            return pictures.frames(
                view.sprites, view.backdrop, view.times_s, height=view.height, width=view.width
            )

        with torch.no_grad():
            return frames(batch.query), frames(batch.document)

    def _see(self, batch: Batch, query: Any, document: Any) -> tuple[Seen | None, Seen | None]:
        def look(view: View | None, frames: Any) -> Seen | None:
            if view is None or frames is None:
                return None
            return self._forward.see(patches(frames), view.height, view.width)

        return look(batch.query, query), look(batch.document, document)

    def _judge(
        self, batch: Batch, seen: tuple[Seen | None, Seen | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-odds of each pair, and the state they are read from."""
        query, document = seen
        if document is not None:
            document = document.rows(batch.rows)
        parts = [part for part in (query, document) if part is not None]
        hidden = self._read(batch.words, join(parts) if parts else None)
        with torch.autocast(self._device.type, enabled=False):
            log_odds = self._forward.log_odds(hidden, batch.last, self._yes, self._no)
            rows = torch.arange(len(batch.last), device=hidden.device)
            return log_odds, hidden[rows, batch.last].float()

    def _caption(self, batch: Batch, document: Seen | None) -> torch.Tensor:
        assert batch.caption is not None
        hidden = self._read(batch.caption, document)
        logits = self._forward.logits(hidden, batch.caption_from)
        return F.cross_entropy(logits.float(), batch.caption_to)

    def _read(self, words: Words, seen: Seen | None) -> torch.Tensor:
        return self._forward.read(words.ids, words.positions, seen, words.spots)

    def _autocast(self) -> Any:
        on = self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=on)

    def _to_device(self, batch: Batch) -> Batch:
        """The same batch with tensors for arrays; views stay arrays, as the renderer has them."""

        def words(value: Words) -> Words:
            return Words(move(value.ids), move(value.positions), move(value.spots))

        def move(value: Any) -> Any:
            if value is None:
                return None
            tensor = torch.from_numpy(value)
            if self._device.type != "cuda":
                return tensor
            return tensor.pin_memory().to(self._device, non_blocking=True)

        names = ("last", "labels", "kinds", "chinese", "rows", "caption_from", "caption_to")
        moved = {name: move(getattr(batch, name)) for name in names}
        caption = None if batch.caption is None else words(batch.caption)
        return replace(batch, words=words(batch.words), caption=caption, **moved)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights."""
        with torch.no_grad():
            kept = [w.detach().clone() for w in self._weights]
            torch._foreach_copy_(self._weights, self._ema)
            try:
                yield
            finally:
                torch._foreach_copy_(self._weights, kept)

    def _evaluate(self, *, brief: bool) -> Table:
        judged = self._workers.judged()
        if brief:
            judged = list({batch.task: batch for batch in judged}.values())

        def log_odds(batch: Batch) -> Any:
            tensors = self._to_device(batch)
            frames = self._frames(tensors, self._plain)
            with torch.no_grad(), self._autocast():
                values, _ = self._judge(tensors, self._see(tensors, *frames))
            return values.float().cpu().numpy()

        with self._averaged():
            table = measure(judged, log_odds)
        print(as_text(table), flush=True)  # noqa: T201
        self._write({"elapsed_s": self._elapsed_s(), "step": self._steps, "evaluation": table})
        return table

    def _report(self, now_s: float, window_s: float, lr: float, stage: str) -> None:
        found = self._sums.read(window_s)
        if not all(math.isfinite(value) for value in found.values()):
            raise ModelError(f"the loss is no longer finite: {found}", remedy="lower --lr")
        line = {"elapsed_s": round(now_s, 1), "stage": stage, "step": self._steps, "lr": lr}
        line |= {"waiting": self._workers.waiting, **found}
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
        self.pairs = 0
        self.idle_s = 0.0
        self._losses: dict[str, list[torch.Tensor]] = {}
        self._right = torch.zeros(2, len(KINDS), device=self._device)

    def add(self, name: str, loss: torch.Tensor) -> None:
        self._losses.setdefault(name, []).append(loss.detach())

    def count(self, log_odds: torch.Tensor, labels: torch.Tensor, kinds: torch.Tensor) -> None:
        right = ((log_odds.detach() > 0) == (labels > 0.5)).float()
        self._right[0].index_add_(0, kinds, right)
        self._right[1].index_add_(0, kinds, torch.ones_like(right))

    def read(self, window_s: float) -> dict[str, float]:
        found = {"pairs_per_s": round(self.pairs / window_s, 1)}
        found["idle"] = round(self.idle_s / window_s, 3)  # share of time without a batch
        for name, losses in self._losses.items():
            found[name] = float(torch.stack(losses).mean())
        right, seen = self._right.tolist()
        for number, kind in enumerate(KINDS):
            if seen[number]:
                found[kind] = round(100 * right[number] / seen[number], 1)
        self._clear()
        return found


def _tensors(batch: Batch) -> Iterator[torch.Tensor]:
    for part in (batch, batch.words, batch.caption):
        for name in getattr(part, "__slots__", ()):
            value = getattr(part, name)
            if isinstance(value, torch.Tensor):
                yield value
