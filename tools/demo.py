"""The main job, shown: index photographs, a clip and texts, then search them.

The media are the public-domain and CC0 photographs that scikit-image ships, a clip made of some
of them, and a few lines of text. Models are those of the preset `starter`.

    python tools/demo.py --out demo-output
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
from PIL import Image
from rich.console import Console

CAPTIONS = {
    "astronaut.png": "an astronaut in an orange space suit, smiling, with a shuttle model",
    "brick.png": "a brick wall in grey light",
    "camera.png": "a photographer in a dark coat with a camera on a tripod",
    "cell.png": "a single cell under the microscope",
    "chelsea.png": "a ginger tabby cat looking into the camera",
    "clock_motion.png": "a clock face, blurred by motion",
    "coffee.png": "a cup of espresso on a saucer with a spoon",
    "coins.png": "rows of old coins on a dark table",
    "grass.png": "short grass from above",
    "gravel.png": "a ground of small pebbles",
    "horse.png": "the black silhouette of a horse",
    "hubble_deep_field.jpg": "distant galaxies in the deep field of a space telescope",
    "ihc.png": "stained tissue under the microscope",
    "moon.png": "the cratered surface of the moon",
    "motorcycle_left.png": "a motorcycle in a garage",
    "page.png": "a page of printed text, unevenly lit",
    "retina.jpg": "the back of an eye with its blood vessels",
    "rocket.jpg": "a rocket on its launch pad between floodlights at night",
}
CLIP = ("rocket.jpg", "moon.png", "astronaut.png", "chelsea.png")
NOTES = """# Notes

The Falcon rocket stood on the pad all night; floodlights made the steam glow.

Chelsea is a tabby. She looks straight into any lens.

An espresso wants a warm cup, a small spoon and no sugar.

月球表面布满了环形山。

一只橘色的猫看着镜头。
"""
SCENE_S, FPS, SIZE = 4, 12, (480, 360)

console = Console(highlight=False)


def make_media(folder: Path) -> None:
    """Photographs with a manifest of captions, a clip of four scenes, and notes."""
    import skimage

    source = Path(skimage.__file__).parent / "data"
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "caption"))
        for name, caption in CAPTIONS.items():
            shutil.copy(source / name, photos / name)
            rows.writerow((f"photos/{name}", caption))
    (folder / "notes.md").write_text(NOTES, "utf-8")
    write_clip(folder / "clip.mp4", [photos / name for name in CLIP])


def write_clip(path: Path, photos: list[Path]) -> None:
    """A slow zoom into each photograph, H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for photo in photos:
            with Image.open(photo) as opened:
                picture = opened.convert("RGB")
            for step in range(SCENE_S * FPS):
                frame = np.asarray(zoomed(picture, 1 + 0.3 * step / (SCENE_S * FPS)))
                image = av.VideoFrame.from_ndarray(frame, format="rgb24")
                container.mux(stream.encode(image))
        container.mux(stream.encode())


def zoomed(picture: Image.Image, factor: float) -> Image.Image:
    """The middle of a picture at the clip's size."""
    width, height = picture.size
    scale = min(width / SIZE[0], height / SIZE[1]) / factor
    box_width, box_height = SIZE[0] * scale, SIZE[1] * scale
    left, top = (width - box_width) / 2, (height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return picture.resize(SIZE, Image.Resampling.BICUBIC, box=box)


def run(*arguments: str | Path) -> None:
    """Shows a command and runs it."""
    words = [str(argument) for argument in arguments]
    shown = " ".join(f'"{word}"' if " " in word or not word else word for word in words)
    console.print(f"\n[bold]$ secondglance {shown}[/]", soft_wrap=True)
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "secondglance", *words], check=True)


def main() -> None:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    out: Path = parser.parse_args().out
    media, library = out / "media", out / "library"
    shutil.rmtree(out, ignore_errors=True)
    console.print(f"[bold]making media in {media}[/]")
    make_media(media)

    run("index", media, "--library", library, "--preset", "starter")
    run("search", "a rocket at night", "--library", library, "-k", "5")
    query = out / "query.jpg"
    with Image.open(media / "photos" / "chelsea.png") as cat:
        # Not the same file: cropped, smaller, and compressed again.
        cat.convert("RGB").crop((60, 30, 400, 290)).resize((255, 195)).save(query, quality=80)
    run("search", "--image", query, "--library", library, "-k", "5")
    run("search", "--image", query, "--library", library, "-k", "5", "--no-rerank")
    run("search", "the surface of the moon", "--not", "a photographer", "--library", library,
        "--kind", "video", "-k", "3")  # fmt: skip
    sheet = out / "results.html"
    run("search", "--image", query, "--library", library, "-k", "12", "--out", sheet)
    first = out / "first-pass.html"
    run("search", "--image", query, "--library", library, "-k", "12", "--no-rerank", "--out", first)
    run("status", "--library", library)
    console.print(
        f"\nOpen [bold]{sheet}[/] and [bold]{first}[/] in a browser to see results with pictures.\n"
        "[yellow]The starter models are untrained[/]: words find nothing in particular, and the "
        "second pass orders at random. Look at the parts at work, not at the ranking; for real "
        "search make a library with --preset laptop (or gpu).",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
