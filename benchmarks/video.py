"""How fast are the shots of a 720p video found, and its keyframes read, on one core?

A film is made up: textured pictures under a moving camera, sensor noise, a cut every three to
eight seconds. It is encoded the way x264 does by default (key frames where it sees cuts, at most
250 frames apart), the way phones do (a key frame every 30 frames, wherever the cuts are, no
frames in both directions), and with long groups that ignore cuts. Times are processor time of one
process, so that other work on the machine counts little.

    python benchmarks/video.py [--seconds 120] [FILE ...]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import report

FPS, WIDTH, HEIGHT = 25, 1280, 720
LIMIT = 178_956_970
TOLERANCE_S = 0.13
ENCODINGS = {
    "x264 default": {"preset": "medium"},
    "phone (30)": {
        "preset": "veryfast",
        "x264-params": "bframes=0:keyint=30:min-keyint=30:scenecut=0",
    },
    "fixed (125)": {"preset": "veryfast", "x264-params": "keyint=125:min-keyint=125:scenecut=0"},
}


def texture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A picture with as much at every scale as photographs have: amplitude falls as 1/f."""
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falling = 1 / np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * random.random(falling.shape))
        plane = np.fft.irfft2(falling * phase, s=(height, width))
        planes.append((plane - plane.mean()) / plane.std() * 45 + random.uniform(70, 185))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def film(seconds: float) -> tuple[Iterator[np.ndarray], list[float]]:
    """Frames, and the times of its cuts."""
    random = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < seconds * FPS:
        lengths.append(int(random.integers(3 * FPS, 8 * FPS)))
    cuts = [sum(lengths[: i + 1]) / FPS for i in range(len(lengths) - 1)]
    grain = random.integers(-4, 5, (8, HEIGHT, WIDTH, 1)).astype(np.int16)

    def frames() -> Iterator[np.ndarray]:
        for length in lengths:
            wide = texture(random, HEIGHT + 240, WIDTH + 400).astype(np.int16)
            pan = random.uniform(-1.2, 1.2, 2)
            thing, at, walk = (
                texture(random, 160, 160),
                random.integers(0, 500, 2),
                random.uniform(-3, 3, 2),
            )
            for count in range(length):
                y, x = np.array([120, 200]) + (pan * (count - length / 2) * 0.7).astype(int)
                frame = wide[y : y + HEIGHT, x : x + WIDTH] + grain[count % 8]
                top, left = np.clip((at + walk * count).astype(int), 0, (HEIGHT - 160, WIDTH - 160))
                frame[top : top + 160, left : left + 160] = thing
                yield np.clip(frame, 0, 255).astype(np.uint8)

    return frames(), cuts


def write(paths: dict[str, Path], seconds: float) -> list[float]:
    """The film in all encodings; the times of its cuts."""
    import av

    frames, cuts = film(seconds)
    outputs = []
    for name, path in paths.items():
        container = av.open(str(path), "w")
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "23", **ENCODINGS[name]})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        outputs.append((container, stream))
    for pixels in frames:
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
        for container, stream in outputs:
            container.mux(stream.encode(frame))
    for container, stream in outputs:
        container.mux(stream.encode())
        container.close()
    return cuts


def measure(name: str, path: Path, cuts: list[float] | None, repeat: int) -> dict[str, Any]:
    import scenedetect  # noqa: F401 - loading it belongs to no video

    from secondglance.ingest.video import VideoPlan, plan_shots, read_frames
    from secondglance.media.glance import Glance

    shots_s, read_s, plan = [], [], None
    for _ in range(repeat):
        started = time.process_time()
        plan = plan_shots(path, max_segment_s=5.0, max_segments=10_000, max_pixels=LIMIT)
        shots_s.append(time.process_time() - started)
        assert isinstance(plan, VideoPlan)
        started = time.process_time()
        for first in range(0, len(plan.frames), 16):  # as workers do
            read_frames(path, plan.frames[first : first + 16], max_pixels=LIMIT)
        read_s.append(time.process_time() - started)
    assert isinstance(plan, VideoPlan)
    started = time.process_time()
    for _ in Glance(path).decoded(from_s=0.0, until_s=1e9, near=None):
        pass
    whole_s = time.process_time() - started
    duration_s = float(plan.metadata["duration_s"])
    found = [shot.start_s for shot in plan.shots[1:]]
    row: dict[str, Any] = {
        "video": name,
        "seconds": duration_s,
        "shots x": duration_s / min(shots_s),
        "keyframes x": duration_s / min(read_s),
        "both x": duration_s / (min(shots_s) + min(read_s)),
        "all frames x": duration_s / whole_s,
        "segments": len(plan.segments),
        "cuts found": len(found),
    }
    if cuts is not None:
        right = [c for c in cuts if any(abs(c - f) <= TOLERANCE_S for f in found)]
        exact = [c for c in cuts if any(abs(c - f) < 1 / FPS / 2 for f in found)]
        row |= {"of": len(cuts), "right": len(right), "to the frame": len(exact)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", help="left out: a film that is made up")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if options.files:
        rows = [measure(path.name, path, None, options.repeat) for path in options.files]
    else:
        with tempfile.TemporaryDirectory() as scratch:
            paths = {name: Path(scratch) / f"{i}.mp4" for i, name in enumerate(ENCODINGS)}
            cuts = write(paths, options.seconds)
            rows = [measure(name, path, cuts, options.repeat) for name, path in paths.items()]
    report("video", rows, times_real_time="seconds of video by seconds of one core")


if __name__ == "__main__":
    main()
