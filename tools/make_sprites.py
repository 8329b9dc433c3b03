"""Draws the sprite atlas: one cell per row of kinds.csv, in its order.

The glyphs are those of Noto Color Emoji (Debian: fonts-noto-color-emoji), whose colour bitmaps
exist in one size only.

    python tools/make_sprites.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from secondglance.scenes.sprites import ATLAS, CELL_PX, COLUMNS
from secondglance.scenes.vocabulary import kinds

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE_PX = 109  # the only bitmap size in the font
LONGER_SIDE_PX = 120  # leaves a clear margin for sampling at the cell's border


def glyph(emoji: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The emoji trimmed to its visible part and scaled to `LONGER_SIDE_PX`.

    Raises:
        ValueError: The font has no single colour glyph for it.
    """
    canvas = Image.new("RGBA", (400, 200))
    ImageDraw.Draw(canvas).text((20, 20), emoji, font=font, embedded_color=True)
    box = canvas.getchannel("A").getbbox()
    if box is None or box[2] - box[0] > 140:
        raise ValueError(f"no single glyph for {emoji!r} in {FONT.name}")
    trimmed = canvas.crop(box)
    scale = LONGER_SIDE_PX / max(trimmed.size)
    width, height = (max(1, round(side * scale)) for side in trimmed.size)
    return trimmed.resize((width, height), Image.Resampling.LANCZOS)


def coarser(picture: Image.Image) -> Image.Image:
    """Six bits a channel: no visible loss, and a file smaller by a quarter."""
    return picture.point([(value >> 2) << 2 | value >> 6 for value in range(256)] * 4)


def atlas(font: ImageFont.FreeTypeFont) -> Image.Image:
    """All kinds, `COLUMNS` cells a row."""
    rows = -(-len(kinds()) // COLUMNS)
    picture = Image.new("RGBA", (COLUMNS * CELL_PX, rows * CELL_PX))
    for index, kind in enumerate(kinds()):
        sprite = glyph(kind.emoji, font)
        row, column = divmod(index, COLUMNS)
        left = column * CELL_PX + (CELL_PX - sprite.width) // 2
        top = row * CELL_PX + (CELL_PX - sprite.height) // 2
        picture.paste(sprite, (left, top))
    return picture


def main() -> None:
    """Write the atlas next to kinds.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--font", type=Path, default=FONT)
    parser.add_argument("--out", type=Path, default=ATLAS)
    options = parser.parse_args()
    font = ImageFont.truetype(str(options.font), STRIKE_PX)
    coarser(atlas(font)).save(options.out, lossless=True, quality=75, method=4)


if __name__ == "__main__":
    main()
