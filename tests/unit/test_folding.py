"""Batch norms folded into convolutions: the same vectors, or the tower as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from secondglance.ingest.folding import TOLERANCE, folded

SIDE = 24


class Tower(nn.Module):
    """Convolutions, norms and activations, and a vector at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.BatchNorm2d(8, affine=False),
            nn.ReLU(),
            nn.Conv2d(8, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        self.head = nn.Linear(16, 12)

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.block(self.act(self.norm(self.stem(pixels))))
        vectors: Tensor = self.head(found.mean((2, 3)))
        return vectors


class Reordered(Tower):
    """Declares its first norm after the convolution but uses it after the activation."""

    def forward(self, pixels: Tensor) -> Tensor:
        found = self.block(self.norm(self.act(self.stem(pixels))))
        vectors: Tensor = self.head(found.mean((2, 3)))
        return vectors


def seasoned(tower: nn.Module) -> nn.Module:
    """With statistics and weights of norms as training leaves them: far from 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.05, 4, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-2, 2, generator=generator)
                module.bias.data.normal_(generator=generator)
    return tower.eval()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def norms(tower: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in tower.modules())


def fold(tower: nn.Module) -> nn.Module:
    return folded(tower, height=SIDE, width=SIDE)


def vectors(tower: nn.Module, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        return functional.normalize(tower(pixels), dim=-1)


def test_vectors_stay_and_norms_go() -> None:
    tower = seasoned(Tower())
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    fast = fold(tower)
    assert fast is not tower
    assert (norms(tower), norms(fast)) == (3, 0)
    # Pixels of another kind than those of the built-in check.
    for pixels in (torch.randn(5, 3, SIDE, SIDE) * 3, torch.zeros(1, 3, SIDE, 2 * SIDE)):
        torch.testing.assert_close(
            vectors(fast, pixels), vectors(tower, pixels), atol=TOLERANCE, rtol=0
        )
    after = tower.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_activations_inside_timm_norms_stay() -> None:
    import timm

    tower = seasoned(timm.create_model("tf_efficientnet_lite0", num_classes=0))
    fast = folded(tower, height=64, width=64)
    assert norms(tower) > 40
    assert norms(fast) == 0
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        vectors(fast, pixels), vectors(tower, pixels), atol=TOLERANCE, rtol=0
    )


def test_a_tower_without_batch_norm_is_returned_as_it_is() -> None:
    tower = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.LayerNorm(4 * 22 * 22))
    assert fold(tower.eval()) is tower


def test_a_tower_that_runs_in_another_order_is_returned_as_it_is() -> None:
    tower = seasoned(Reordered())
    assert fold(tower) is tower
    assert norms(tower) == 3


def test_a_norm_without_a_convolution_of_its_width_before_it_stays() -> None:
    lone = seasoned(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten()))
    assert norms(fold(lone)) == 1
    shuffled = seasoned(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.PixelShuffle(2), nn.BatchNorm2d(1), nn.Flatten())
    )
    pixels = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(vectors(fold(shuffled), pixels), vectors(shuffled, pixels))
    assert norms(fold(shuffled)) == 1


def test_a_norm_that_uses_the_pictures_own_statistics_stays() -> None:
    tower = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()
    ).eval()
    fast = fold(tower)
    assert norms(fast) == 1
    pixels = torch.randn(2, 3, SIDE, SIDE)
    torch.testing.assert_close(
        vectors(fast, pixels), vectors(tower, pixels), atol=TOLERANCE, rtol=0
    )
