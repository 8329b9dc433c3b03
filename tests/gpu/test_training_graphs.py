"""Recorded training steps give the gradients of the steps themselves."""

from __future__ import annotations

import pytest
import torch

from secondglance.scenes.examples import Task
from secondglance.scenes.render import Renderer
from tools.train_starter import reranker_model
from tools.train_starter.reranker_data import Batches
from tools.train_starter.reranker_feed import Feed, layout, wanted
from tools.train_starter.reranker_forward import Forward
from tools.train_starter.reranker_graphs import TOLERANCE, Gradients
from tools.train_starter.reranker_objective import Objective
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_prompts import Prompts
from tools.train_starter.reranker_training import LOSS_WEIGHTS

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("task", ["text-image", "text-clip", "text-text", "image-image"])
def test_a_recorded_step_is_replayed_on_other_batches(task: Task) -> None:
    prompts = Prompts()
    device = torch.device("cuda")
    model = reranker_model.build_model(prompts.tokenizer, seed=1).to(device)
    objective = Objective(Forward(model), prompts.tokenizer).to(device)
    weights = [*model.parameters(), *objective.parameters()]
    recorded, plain = (Gradients(objective, weights, device) for _ in range(2))
    feed = Feed(device, Pictures(Renderer("cuda"), "cuda", augment=False))
    maker = Batches(prompts, size=32, split="train", vary=False, queries=4)
    for seed in range(3):
        batch = maker.make(task, seed=seed, hard=0.5)
        made = layout(batch, judging=True, telling=True)
        given = wanted(feed.prepare(batch), made)
        given["weights"] = torch.tensor(LOSS_WEIGHTS["yesno"], device=device)
        if seed == 0:
            recorded.record(made, given)
        *_, mine = recorded(made, given)
        *_, wished = plain(made, given)
        assert float((mine - wished).norm() / wished.norm()) < TOLERANCE
    assert recorded.unrecorded == 0
