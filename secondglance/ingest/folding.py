"""Batch norms folded into the convolutions before them: the same vectors, sooner.

A convolutional tower on a CPU spends much of its time on moving feature maps through its batch
norms. At inference each is a fixed scale and shift, which the convolution can do itself.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference of unit vectors that passes for equal."""


def folded(tower: torch.nn.Module, *, height: int, width: int) -> torch.nn.Module:
    """An image tower with its batch norms folded, in the layout that convolutions like.

    The result is checked against the tower on random pixels; a tower whose modules do not run in
    the order they are declared in is returned as it is.

    Args:
        tower: In evaluation mode, float32.
        height: Of the pictures it takes, in pixels.
        width: Of the pictures it takes, in pixels.
    """
    import torch

    if not any(isinstance(module, torch.nn.BatchNorm2d) for module in tower.modules()):
        return tower
    fast = copy.deepcopy(tower)
    for module in list(fast.modules()):
        _fold_children(module)
    fast = fast.to(memory_format=torch.channels_last)
    device = next(tower.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn((2, 3, height, width), generator=generator).to(device)
    with torch.inference_mode():
        wanted, found = (torch.nn.functional.normalize(m(pixels), dim=-1) for m in (tower, fast))
    if not torch.allclose(wanted, found, atol=TOLERANCE):
        logger.debug("the image tower cannot be folded; it stays as it is")
        return tower
    return fast


def _fold_children(module: torch.nn.Module) -> None:
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    previous: tuple[str, torch.nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Conv2d):
            previous = (name, child)
        elif isinstance(child, torch.nn.BatchNorm2d) and previous is not None:
            where, conv = previous
            if child.num_features == conv.out_channels and child.running_var is not None:
                setattr(module, where, fuse_conv_bn_eval(conv, child))
                setattr(module, name, _rest(child))
            previous = None
        elif list(child.children()):
            previous = None


def _rest(norm: Any) -> torch.nn.Module:
    """What timm's `BatchNormAct2d` does besides: an activation."""
    import torch

    act = getattr(norm, "act", None)
    return act if isinstance(act, torch.nn.Module) else torch.nn.Identity()
