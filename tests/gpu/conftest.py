"""What all tests of this folder need: a CUDA device, or a reason."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def cuda() -> None:
    """Skips where there is no device, and fails where one is required."""
    if torch.cuda.is_available():
        return
    if os.environ.get("SECONDGLANCE_REQUIRE_GPU") == "1":
        pytest.fail("SECONDGLANCE_REQUIRE_GPU=1 and there is no CUDA device")
    pytest.skip("there is no CUDA device")
