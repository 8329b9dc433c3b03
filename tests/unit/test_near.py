"""Looks of pictures, and which of them are nearly the same."""

from __future__ import annotations

import io
import time

import numpy as np
from PIL import Image, ImageEnhance

from secondglance.ingest.looks import Look, look
from secondglance.pipelines.near import alike_to_earlier, differing_bits, near_groups
from tests.media import picture

BASE = 0x0F0F_3C3C_5A5A_9696


def made(bits: int, colour: int = 100) -> Look:
    return Look(bits.to_bytes(8, "big"), bytes([colour]) * 192)


def test_a_look_is_the_gradient_of_nine_by_eight_cells_and_their_colours() -> None:
    rising = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (8, 1))
    image = Image.fromarray(rising).convert("RGB")
    assert look(image).bits == b"\xff" * 8
    assert look(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).bits == b"\0" * 8
    rising[0] = rising[0][::-1]
    assert look(Image.fromarray(rising).convert("RGB")).bits == b"\0" + b"\xff" * 7
    halves = Image.new("RGB", (80, 40), (10, 20, 30))
    halves.paste((200, 100, 50), (40, 0, 80, 40))
    colours = np.frombuffer(look(halves).colours, np.uint8).reshape(8, 8, 3)
    assert (colours[:, :4] == (10, 20, 30)).all()
    assert (colours[:, 4:] == (200, 100, 50)).all()


def test_resized_and_brightened_pictures_are_near_and_others_are_not() -> None:
    looks: dict[str, Look] = {}
    for seed in range(60):
        original = picture(seed, width=640, height=480)
        buffer = io.BytesIO()
        original.resize((300, 225)).save(buffer, "JPEG", quality=50)
        looks[f"{seed}a"] = look(original)
        looks[f"{seed}b"] = look(Image.open(buffer).convert("RGB"))
        looks[f"{seed}c"] = look(ImageEnhance.Brightness(original).enhance(0.95))
    found = {tuple(sorted(group)) for group in near_groups(looks)}
    assert found == {(f"{seed}a", f"{seed}b", f"{seed}c") for seed in range(60)}


def test_chains_are_one_group_and_other_colours_another() -> None:
    looks = {
        "a": made(BASE),
        "b": made(BASE ^ 0xFF),  # 8 bits from a
        "c": made(BASE ^ 0xFFFF),  # 8 bits from b, 16 from a
        "d": made(BASE, 110),
        "other": made(BASE ^ 0xFFFF_FFFF_0000_0000),
        "white": made(0, 255),
        "black": made(0, 0),
        "red": Look(bytes(8), bytes([255, 0, 0]) * 64),
    }
    assert [sorted(group) for group in near_groups(looks)] == [["a", "b", "c", "d"]]
    assert near_groups(looks, threshold=1.0) == [["a", "d"]]
    assert near_groups({}) == []
    assert (differing_bits(0.875), differing_bits(1.0), differing_bits(0.9)) == (8, 0, 6)


def test_search_groups_by_the_best_only() -> None:
    bits = [BASE, None, BASE ^ 0xFF, 0, BASE ^ 0xFFFF, BASE ^ 0xFFFF, 1]
    given = [None if value is None else made(value) for value in bits]
    # The third is like the first; the fifth is like the third, which does not stand for itself.
    assert alike_to_earlier(given) == [None, None, 0, None, None, 4, 3]
    assert alike_to_earlier([made(0, 255), made(0, 0)]) == [None, None]
    assert alike_to_earlier([]) == []
    assert alike_to_earlier([None]) == [None]


def test_ten_thousand_alike_and_ten_thousand_pairs_take_seconds() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 2**64, 20_000, dtype=np.uint64)
    values[1::2] = values[::2] ^ np.uint64(0b111)
    looks = {str(number): made(int(value)) for number, value in enumerate(values)}
    looks |= {f"same {number}": made(BASE, 100 + number % 3) for number in range(10_000)}
    started = time.monotonic()
    groups = near_groups(looks)
    assert time.monotonic() - started < 30
    assert [len(group) for group in groups if len(group) > 2] == [10_000]
    pairs = {tuple(sorted(map(int, group))) for group in groups if len(group) == 2}
    assert len(pairs) == 10_000
    assert all(second == first + 1 for first, second in pairs)
