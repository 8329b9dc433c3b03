"""8-bit matrices: close to what they replace, and on a trained model no other answers."""

from __future__ import annotations

import pytest
import torch

from secondglance.errors import ModelError
from secondglance.pipelines.builtin import starter_folder
from secondglance.rerank import Qwen3VLReranker
from secondglance.rerank.fp8 import Fp8Linear, check, probe, quantise
from secondglance.scenes.examples import pairs
from secondglance.scenes.media import content
from secondglance.scenes.render import Renderer


@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_nearly_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(128, 48, bias=bias).bfloat16()
    with torch.no_grad():
        linear.weight[3] *= 1000  # a row of its own scale
        value = torch.randn(3, 5, 128).bfloat16()
        value[1] *= 500
        expected, found = linear(value).float(), Fp8Linear(linear)(value).float()
    assert found.shape == (3, 5, 48)
    for number in (0, 1, 2):
        for column in (3, 7):
            wanted = expected[number, :, column]
            assert (found[number, :, column] - wanted).norm() < 0.15 * wanted.norm()


def test_a_row_of_zeros_stays_one() -> None:
    linear = torch.nn.Linear(32, 16).bfloat16()
    with torch.no_grad():
        found = Fp8Linear(linear)(torch.zeros(2, 32).bfloat16())
    assert torch.equal(found, linear.bias.expand(2, -1))


def test_a_trained_model_keeps_its_answers() -> None:
    reranker = Qwen3VLReranker(starter_folder("reranker"), device="cpu", dtype=torch.bfloat16)
    renderer = Renderer("cpu")
    asked = [
        (content(pair.query, renderer, picture_px=192, clip_px=128),
         content(pair.document, renderer, picture_px=192, clip_px=128))
        for pair in pairs("text-image", 8, seed=2, split="test", hard=0.9)
    ]  # fmt: skip

    def scores() -> list[float]:
        return [reranker.log_odds(query, [document])[0] for query, document in asked]

    before = scores()
    drift = quantise([reranker.model], lambda: reranker.log_odds(*probe()))
    layers = [part for part in reranker.model.modules() if isinstance(part, Fp8Linear)]
    assert len(layers) > 50
    assert drift.pairs == 8
    assert 0 < drift.mean <= drift.largest
    after = scores()
    assert after != before
    assert [value > 0 for value in after] == [value > 0 for value in before]


def test_only_where_the_device_can() -> None:
    with pytest.raises(ModelError, match="cannot compute in fp8"):
        check(torch.device("cpu"), torch.bfloat16)
