"""Files of weights: are they the ones that were meant?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from secondglance.errors import ModelError


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def pinned_hash(weights: Path, expected: str | None, *, setting: str) -> str:
    """SHA-256 of weights, which must be the expected one if there is one.

    Args:
        weights: A file.
        expected: As hexadecimal, in either case.
        setting: What names the expected hash, for the message.

    Raises:
        ModelError: They are other weights.
    """
    found = file_hash(weights)
    if expected is not None and expected.lower() != found:
        raise ModelError(
            f"{weights} has SHA-256 {found}, not {expected.lower()}",
            remedy=f"fetch the file again, or correct {setting}",
        )
    return found
