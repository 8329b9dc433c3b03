"""Media that the tests make: pictures that differ, clips with known scenes, texts."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Frame = npt.NDArray[np.uint8]


def picture(seed: int, *, width: int = 96, height: int = 72) -> Image.Image:
    """A few coloured shapes; another seed gives another picture."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), _colour(random))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        w, h = int(random.integers(8, width // 2)), int(random.integers(8, height // 2))
        shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=_colour(random))
    return image


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(random.random(), 0.9, 0.4 + 0.6 * random.random())
    return int(red * 255), int(green * 255), int(blue * 255)


def write_pictures(folder: Path, count: int, *, first: int = 0) -> list[Path]:
    """JPEG files `picture-0000.jpg` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"picture-{seed:04}.jpg" for seed in range(first, first + count)]
    for seed, path in enumerate(paths, start=first):
        picture(seed).save(path, quality=92)
    return paths


def write_clip(
    path: Path,
    scenes: Sequence[int],
    *,
    scene_s: float = 5.0,
    fps: int = 10,
    codec: str = "libx264",
) -> Path:
    """A video that shows the picture of each seed for `scene_s` seconds."""
    shown = (np.asarray(picture(seed)) for seed in scenes)
    frames = (pixels for pixels in shown for _ in range(round(scene_s * fps)))
    return write_frames(path, frames, fps=fps, codec=codec)


def write_frames(
    path: Path, frames: Iterable[Frame], *, fps: int = 10, codec: str = "libx264"
) -> Path:
    """A video of these frames, all of one size."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.pix_fmt = "yuv420p"
        for number, pixels in enumerate(frames):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path
