"""Trains the starter CLIP on scenes, while it keeps what its teachers know of photographs.

    python -m tools.train_starter.clip --out DIR --minutes 6 --classifier FILE
        --sentence-encoder DIR [--resume FILE] [--batch 2048] [--workers 6] [--device cuda]

Of every run's time the first part teaches the text tower the sentence encoder's space and the
image head the classifier's pictures in it; the rest adds pairs of scenes and descriptions.
`clip_prepare` writes the classifier and the sentence encoder; `clip_model.assemble` makes the
folder of a checkpoint from the weights.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.train_starter.clip_data import Scenes, Texts, loader
from tools.train_starter.clip_evaluation import evaluate
from tools.train_starter.clip_model import create, read_tokenizer
from tools.train_starter.clip_photos import Photographs, varied
from tools.train_starter.clip_teachers import (
    Classifier,
    JointSpace,
    SentenceEncoder,
    read_sentence_tokenizer,
)
from tools.train_starter.clip_towers import (
    Average,
    Studio,
    freeze_norms,
    groups,
    in_chunks,
    start_text,
)
from tools.train_starter.weights import read_weights, write_weights

SHARES = {"scenes": 1.0, "photos": 4.0, "features": 1.0, "near": 4.0, "text": 4.0, "relations": 0.5}
"""Weights of the losses."""
WARM_UP = 0.03
"""Share of the time over which the learning rate rises."""
RELATION_TEMPERATURE = 0.05
SCALE_LIMIT = math.log(100)


class Training:
    """One run.

    Args:
        options: As `parse` gives them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = options.device
        self.cuda = self.device.startswith("cuda")
        folder = options.sentence_encoder
        tokenizer = folder / "student"
        half = max(1, options.workers // 3) if options.workers else 0
        # Workers are forked before the device is first used.
        self.texts: Iterator[Any] = loader(
            Texts(folder, batch=options.texts, seed=options.seed), workers=half
        )
        self.scenes: Iterator[Any] = loader(
            Scenes(tokenizer, batch=options.batch, seed=options.seed),
            workers=options.workers - half,
        )
        self.text_batch, self.scene_batch = next(self.texts), next(self.scenes)
        torch.manual_seed(options.seed)
        self.tokenizer = read_tokenizer(tokenizer)
        self.teacher = Classifier(options.classifier).to(self.device)
        self.teacher = self.teacher.to(memory_format=torch.channels_last)
        self.encoder = SentenceEncoder(folder).to(self.device)
        self.space = JointSpace.load(folder / "joint.safetensors", device=self.device)
        self.model = create(self.tokenizer.get_vocab_size())
        if options.resume:
            self.model.load_state_dict(read_weights(options.resume))
        else:
            self.model.visual.trunk.load_state_dict(self.teacher.trunk_weights(), strict=False)
            sentence = read_sentence_tokenizer(folder)
            start_text(self.model.text, self.tokenizer, self.encoder, sentence)
            self.model.logit_scale.data.fill_(math.log(20))
        # What is saved has timm's batch norms, of which training uses the fixed statistics.
        self.norms = freeze_norms(self.model.visual.trunk)
        self.model = self.model.to(self.device, memory_format=torch.channels_last).train()
        self.average = Average(self.model)
        self.optimizer = torch.optim.AdamW(
            groups(self.model, lr=options.lr, trunk=options.trunk_lr), betas=(0.9, 0.98), eps=1e-7
        )
        self.photos = Photographs(self.device, seed=options.seed)
        self.studio = Studio(self.device, seed=options.seed)
        self.bank = torch.empty(0, device=self.device)
        self.steps = 0
        self.log_file = options.log or options.out / "log.jsonl"
        options.out.mkdir(parents=True, exist_ok=True)
        self.log_file.write_text("")

    def run(self) -> dict[str, Any]:
        """Trains until the time is up, saves, and measures."""
        options, started = self.options, time.monotonic()
        box_s, said_s = options.minutes * 60, started
        sums: dict[str, Tensor] = {}
        count = 0
        while (share := (time.monotonic() - started) / box_s) < 1:
            self._set_rate(share)
            losses = self._step(scenes=share >= options.warm_share)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            self.steps, count = self.steps + 1, count + 1
            if time.monotonic() - said_s > options.every_s:
                means = {name: round(float(v) / count, 4) for name, v in sums.items()}
                rate = round(count / (time.monotonic() - said_s), 2)
                self._say(share=round(share, 3), steps=self.steps, steps_per_s=rate, **means)
                sums, count, said_s = {}, 0, time.monotonic()
        write_weights(self._weights(), options.out)
        if self.cuda:
            self._say(peak_gb=round(torch.cuda.max_memory_allocated() / 2**30, 1))
        return self._measure()

    def _step(self, *, scenes: bool) -> dict[str, Tensor]:
        losses = self._text_losses()
        pictures = torch.empty(0, device=self.device)
        with self._mixed():
            if scenes:
                batch, self.scene_batch = self.scene_batch, next(self.scenes)
                pictures = self.studio.pictures(batch.sprites, batch.backdrop, varied=True)
                losses["scenes"], losses["top1"] = self._scene_loss(pictures, batch)
            losses |= self._photo_losses(pictures, trunk=scenes)
        total = torch.stack([SHARES[n] * v for n, v in losses.items() if n in SHARES]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.model.logit_scale.data.clamp_(0, SCALE_LIMIT)
        self.average.update(self.model)
        return {name: value.detach() for name, value in losses.items()}

    def _text_losses(self) -> dict[str, Tensor]:
        batch, self.text_batch = self.text_batch, next(self.texts)
        with self._mixed():
            with torch.no_grad():
                ids = batch.teacher.to(self.device, non_blocking=True)
                wanted = self.space.texts(self.encoder(ids))
            found = self.model.encode_text(batch.student.to(self.device, non_blocking=True))
        found = functional.normalize(found.float(), dim=-1)
        size = min(1024, len(found))
        hidden = torch.eye(size, dtype=torch.bool, device=self.device)
        like = [
            (v[:size] @ v[:size].T / RELATION_TEMPERATURE).masked_fill(hidden, -1e4)
            for v in (found, wanted)
        ]
        relations = functional.kl_div(
            like[0].log_softmax(-1), like[1].log_softmax(-1), log_target=True,
            reduction="batchmean",
        )  # fmt: skip
        return {"text": (1 - (found * wanted).sum(-1)).mean(), "relations": relations}

    def _scene_loss(self, pictures: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        """Symmetric InfoNCE over the batch, and the share of texts that find their picture."""
        images = in_chunks(self.model.encode_image, pictures, size=self.options.chunk)
        texts = self.model.encode_text(batch.ids.to(self.device, non_blocking=True))
        images = functional.normalize(images.float(), dim=-1)
        texts = functional.normalize(texts.float(), dim=-1)
        with torch.autocast(self.device.split(":")[0], enabled=False):
            logits = self.model.logit_scale.exp() * texts @ images.T
        logits = logits.masked_fill(batch.duplicates(self.device), -1e4)
        right = torch.arange(len(logits), device=self.device)
        loss = functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)
        return loss / 2, (logits.argmax(1) == right).float().mean()

    def _photo_losses(self, scenes: Tensor, *, trunk: bool) -> dict[str, Tensor]:
        """What the teachers say of photographs, and of features like those of all classes."""
        losses = {}
        crops = self.photos.crops(self.options.photos).to(memory_format=torch.channels_last)
        pixels = varied(crops, scenes.detach())
        with torch.no_grad():
            known, logits = self.teacher(pixels)
            self.bank = torch.cat([known, self.bank])[:8192]
            pick = torch.randint(len(self.bank), (self.options.near,), device=self.device)
            near = self.teacher.near_classes(self.bank[pick])
            near_target = self.space.images(self.teacher.logits(near))
            target = self.space.images(logits)
        visual = self.model.visual
        features = visual.trunk(pixels).float() if trunk else known
        found = visual.head(torch.cat([features, near])).float()
        miss = 1 - functional.cosine_similarity(found, torch.cat([target, near_target]))
        losses["photos"], losses["near"] = miss[: len(known)].mean(), miss[len(known) :].mean()
        if trunk:
            spread = known.var(0).mean() + 1e-4
            losses["features"] = functional.mse_loss(features, known) / spread
        return losses

    def _measure(self) -> dict[str, Any]:
        model = self.model
        trained = copy.deepcopy(model.state_dict())
        self.average.copy_to(model)
        with self._mixed():
            found = evaluate(
                model.eval(), self.studio, self.tokenizer, count=self.options.evaluate,
                device=self.device,
            )  # fmt: skip
        model.load_state_dict(trained)
        found |= {"steps": self.steps, "logit_scale": round(model.logit_scale.exp().item(), 2)}
        (self.options.out / "evaluation.json").write_text(json.dumps(found, indent=2) + "\n")
        self._say(evaluation=found)
        return found

    def _weights(self) -> dict[str, Tensor]:
        """The averaged weights under open-clip's names, with the batch norms as they were."""
        return {**self.average.weights, **self.norms}

    def _set_rate(self, share: float) -> None:
        rise = min(1.0, share / WARM_UP)
        fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1)))
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * rise * fall

    def _mixed(self) -> contextlib.AbstractContextManager[Any]:
        if self.cuda:
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _say(self, **facts: Any) -> None:
        line = json.dumps(facts, ensure_ascii=False)
        print(line, flush=True)  # noqa: T201
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of weights and reports")
    parser.add_argument("--minutes", type=float, default=6.0, help="of training")
    parser.add_argument("--classifier", type=Path, required=True)
    parser.add_argument("--sentence-encoder", type=Path, required=True)
    parser.add_argument("--resume", type=Path, help="weights to go on from")
    parser.add_argument("--batch", type=int, default=2048, help="scenes a step")
    parser.add_argument("--photos", type=int, default=384, help="crops of photographs a step")
    parser.add_argument("--near", type=int, default=4096, help="invented features a step")
    parser.add_argument("--texts", type=int, default=2048, help="texts to distil a step")
    parser.add_argument("--chunk", type=int, default=0, help="pictures at once, to save memory")
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--trunk-lr", type=float, default=2e-4)
    parser.add_argument("--warm-share", type=float, default=0.12, help="of the time, no scenes")
    parser.add_argument("--evaluate", type=int, default=1000, help="scenes to measure with")
    parser.add_argument("--every-s", type=float, default=10.0, help="between lines of the log")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--log", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Runs one training."""
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    Training(parse()).run()


if __name__ == "__main__":
    main()
