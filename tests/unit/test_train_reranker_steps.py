"""What the starter reranker is trained for, and how its weights are updated."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secondglance.scenes.examples import Task
from secondglance.scenes.render import Renderer
from tools.train_starter import reranker_model
from tools.train_starter.reranker_data import KINDS, SHARES, Batches
from tools.train_starter.reranker_feed import Feed, layout, wanted
from tools.train_starter.reranker_forward import Forward
from tools.train_starter.reranker_graphs import Gradients
from tools.train_starter.reranker_objective import LOSSES, Inputs, Objective
from tools.train_starter.reranker_optimizer import Optimizer, orthogonal
from tools.train_starter.reranker_pixels import Pictures
from tools.train_starter.reranker_prompts import Prompts
from tools.train_starter.reranker_seeing import IGNORED, POSE, shown
from tools.train_starter.reranker_training import LOSS_WEIGHTS

PAIRS, QUERIES = 4, 2
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(Prompts(), size=2 * PAIRS, split="train", vary=False, queries=QUERIES)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures(Renderer("cpu"), "cpu", augment=False)


@pytest.fixture(scope="module")
def gradients() -> Gradients:
    prompts = Prompts()
    model = reranker_model.build_model(prompts.tokenizer, seed=1)
    torch.manual_seed(0)
    objective = Objective(Forward(model), prompts.tokenizer)
    return Gradients(objective, [*model.parameters(), *objective.parameters()], CPU)


def sprite(kind: int, colour: int, x: float, y: float, size: float) -> list[float]:
    return [kind, colour, x, y, size, 0.0, 0.0, 1.0]


def test_tokens_show_what_is_drawn_there() -> None:
    nothing = sprite(-1, -1, 0.5, 0.5, 0.3)
    # 192 x 192: six by six tokens. The second lies over the first.
    rows = [sprite(7, -1, 0.2, 0.25, 0.3), sprite(9, 2, 0.3, 0.25, 0.2), nothing]
    found = shown(
        np.array([[rows]], dtype=np.float32), np.array([[3, 1, 2, 99]]), height=192, width=192
    )
    kind, colour = found.kind.reshape(6, 6), found.colour.reshape(6, 6)
    assert set(np.unique(kind)) == {0, 8, 10}
    assert kind[1, 1] == 10
    assert colour[1, 1] == 3
    assert kind[1, 0] == 8
    assert colour[1, 0] == 0
    assert (kind[3:] == 0).all()
    assert (colour[kind == 0] == IGNORED).all()
    assert found.scenery.tolist() == [[3, 1, 2]]
    pose = found.pose.reshape(6, 6, POSE)[1, 1]
    assert pose[:2] == pytest.approx([0.3 * 4 - 2, 0.25 * 4 - 2], abs=1e-4)
    assert pose[2] == pytest.approx((0.3 * 192 - 48) / 32, abs=1e-4)
    assert (found.pose[found.kind == 0] == 0).all()


def test_tokens_of_clips_show_movement() -> None:
    frames = [[sprite(7, 1, 0.3 + 0.06 * number, 0.5, 0.4)] for number in range(4)]
    found = shown(np.array([frames], dtype=np.float32), np.zeros((1, 4)), height=128, width=128)
    assert found.kind.shape == (1, 2 * 16)
    there = found.kind == 8
    assert there[:, :16].any()
    assert there[:, 16:].any()
    assert found.pose[there][:, 5] == pytest.approx(1.0, abs=1e-3)  # to the right
    assert found.pose[there][:, 6] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("task", ["text-image", "text-clip", "text-text", "image-image"])
def test_gradients_are_those_of_the_losses(
    task: Task, batches: Batches, pictures: Pictures, gradients: Gradients
) -> None:
    batch = batches.make(task, seed=2, hard=0.5)
    made = layout(batch, judging=True, telling=True)
    given = wanted(Feed(CPU, pictures).prepare(batch), made)
    given["weights"] = torch.tensor(LOSS_WEIGHTS["yesno"])
    told, answers, gradient = gradients(made, given)
    losses = dict(zip(LOSSES, told.tolist(), strict=True))
    pictured = batch.document is not None
    assert np.isfinite([losses["yesno"], losses["reason"]]).all()
    assert np.isfinite(losses["caption"])
    assert np.isfinite(losses["seeing"]) == pictured
    assert float(answers[1].sum()) == 2 * PAIRS
    assert gradient.shape == (sum(w.numel() for w in gradients._weights),)
    # A small step against it lowers the loss by about its squared length.
    weights = [w for w in gradients._weights if w.requires_grad]
    step = 1e-3 / float(gradient.norm())
    parts = torch.split(gradient, [weight.numel() for weight in weights])
    with torch.no_grad():
        loss, _, _ = gradients._objective(made, given, given["weights"])
        for weight, part in zip(weights, parts, strict=True):
            weight.sub_(part.view_as(weight), alpha=step)
        lower, _, _ = gradients._objective(made, given, given["weights"])
        for weight, part in zip(weights, parts, strict=True):
            weight.add_(part.view_as(weight), alpha=step)
    assert float(loss - lower) == pytest.approx(step * float(gradient.norm()) ** 2, rel=0.2)


def test_nothing_is_learned_from_texts_while_only_pictures_matter(
    batches: Batches, pictures: Pictures, gradients: Gradients
) -> None:
    batch = batches.make("text-text", seed=2, hard=0.5)
    made = layout(batch, judging=False, telling=False)
    given = wanted(Feed(CPU, pictures).prepare(batch), made)
    told, _, gradient = gradients(made, given | {"weights": torch.ones(4)})
    assert not told.isfinite().any()
    assert not gradient.any()


@pytest.mark.parametrize("task", list(SHARES))
def test_large_batches_are_cut_at_candidates(
    task: Task, batches: Batches, pictures: Pictures
) -> None:
    batch = batches.make(task, seed=3, hard=0.5)
    whole = Feed(CPU, pictures).prepare(batch)
    stream = Feed(CPU, pictures, seed=1).stream(iter([batch] * 4), PAIRS)
    parts = [given for _, (_, given) in zip(range(4), stream, strict=False)]

    def row(given: Inputs, pair: int) -> dict[str, torch.Tensor]:
        return {
            name: value[:, pair] if name.endswith("positions") else value[pair]
            for name, value in given.items()
            if name in ("ids", "positions", "spots", "last", "labels", "kinds", "query")
        }

    for given in parts:
        first = next(  # which half it is
            start
            for start in (0, PAIRS)
            if torch.equal(given["ids"], whole["ids"][start : start + PAIRS])
            and ("query" not in given or torch.equal(given["query"][0], whole["query"][start]))
        )
        for pair in range(PAIRS):
            mine, wished = row(given, pair), row(whole, first + pair)
            assert all(torch.equal(mine[name], wished[name]) for name in wished)
        if "document" in whole:
            start = first // QUERIES
            mine_document = whole["document"][start : start + PAIRS // QUERIES]
            assert torch.equal(given["document"], mine_document)


def test_photographs_match_nothing(batches: Batches, pictures: Pictures) -> None:
    batch = batches.make("text-image", seed=4, hard=0.5)
    given = Feed(CPU, pictures, photos=1.0).prepare(batch)
    plain = Feed(CPU, pictures).prepare(batch)
    assert not given["labels"].any()
    assert (given["kinds"] == KINDS.index("photo")).all()
    assert (given["shown_kind"] == IGNORED).all()
    assert (given["caption_to"] == IGNORED).all()
    assert not torch.equal(given["document"], plain["document"])


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 24, 8), (2, 8, 24)])
def test_muon_makes_matrices_orthogonal(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrices))
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.4


def test_optimizer_updates_everything_it_is_given() -> None:
    torch.manual_seed(0)
    matrix, bias = torch.nn.Parameter(torch.randn(4, 6)), torch.nn.Parameter(torch.randn(4))
    goal, shift = torch.randn(4, 6), torch.randn(4)
    optimizer = Optimizer([matrix], [bias], weight_decay=0.0, fused=False)

    def loss() -> torch.Tensor:
        return ((matrix - goal) ** 2).sum() + ((bias - shift) ** 2).sum()

    before = (matrix - goal).norm().item(), (bias - shift).norm().item()
    for _ in range(100):
        parts = torch.autograd.grad(loss(), [matrix, bias])
        optimizer.step(torch.cat([part.flatten() for part in parts]), lr=0.02, matrix_lr=0.05)
    assert (matrix - goal).norm().item() < 0.5 * before[0]
    assert (bias - shift).norm().item() < 0.5 * before[1]
