"""Which library decodes more videos, gets the right frames, and how fast?

Every file of a folder (and of a folder of unusual files) is read with decord2, PyAV (through
`secondglance.media`), torchcodec and OpenCV, each in a process of its own. torchcodec
needs FFmpeg's shared libraries where the loader finds them (LD_LIBRARY_PATH). The reference is PyAV
decoding in order: frame i of a file is the i-th that comes out. Then the time of 16 frames spread
over the file, by seeking, and of a whole pass over all frames reduced to 256 pixels.

    python benchmarks/decoders.py FOLDER [FOLDER ...] [--torchcodec FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import console, report

SPREAD = 16
WIDTH = 256
LIMIT_S = 60
SAME = 6.0
"""Mean difference of 8-bit values below which two frames are one: libraries convert colours
differently."""
VIDEOS = {
    ".mp4", ".mkv", ".webm", ".avi", ".mpg", ".ogv", ".3gp", ".gif", ".mov", ".ts", ".m4v", ".wmv",
}  # fmt: skip

Frames = Callable[[list[int]], list[np.ndarray]]


def open_decord(path: Path) -> tuple[Frames, Callable[[], int]]:
    import decord

    decord.logging.set_level(decord.logging.FATAL)

    def frames(indices: list[int]) -> list[np.ndarray]:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        return [reader[index].asnumpy() for index in indices]

    def whole() -> int:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
        height, width = reader[0].shape[:2]
        small = decord.VideoReader(
            str(path), ctx=decord.cpu(0), num_threads=1, width=WIDTH,
            height=max(1, round(height * WIDTH / width)),
        )  # fmt: skip
        return sum(1 for _ in small)

    return frames, whole


def open_pyav(path: Path) -> tuple[Frames, Callable[[], int]]:
    from secondglance.media.glance import Glance
    from secondglance.media.video import Video

    def frames(indices: list[int]) -> list[np.ndarray]:
        video = Video(path)
        return [video.frame(index) for index in indices]

    def whole() -> int:
        return sum(1 for _ in Glance(path).decoded(from_s=0.0, until_s=1e9, near=None))

    return frames, whole


def open_torchcodec(path: Path) -> tuple[Frames, Callable[[], int]]:
    from torchcodec.decoders import VideoDecoder

    def frames(indices: list[int]) -> list[np.ndarray]:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
        return [decoder[index].numpy() for index in indices]

    def whole() -> int:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
        return sum(1 for _ in decoder)  # it cannot reduce frames while decoding

    return frames, whole


def open_opencv(path: Path) -> tuple[Frames, Callable[[], int]]:
    import cv2

    cv2.setNumThreads(1)

    def capture() -> Any:
        found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not found.isOpened():
            raise OSError("not opened")
        return found

    def frames(indices: list[int]) -> list[np.ndarray]:
        opened, found = capture(), []
        for index in indices:
            opened.set(cv2.CAP_PROP_POS_FRAMES, index)
            good, frame = opened.read()
            if not good:
                raise OSError("no frame")
            found.append(frame[..., ::-1])
        return found

    def whole() -> int:
        opened, count = capture(), 0
        while True:
            good, frame = opened.read()
            if not good:
                return count
            height = max(1, round(frame.shape[0] * WIDTH / frame.shape[1]))
            cv2.resize(frame, (WIDTH, height), interpolation=cv2.INTER_AREA)
            count += 1

    return frames, whole


LIBRARIES = {
    "decord2": open_decord,
    "PyAV": open_pyav,
    "torchcodec": open_torchcodec,
    "OpenCV": open_opencv,
}


def thin(frame: np.ndarray) -> np.ndarray:
    """Every n-th pixel, some 160 in a row: enough to tell frames apart."""
    step = max(1, frame.shape[1] // 160)
    return frame[::step, ::step]


def reference(path: Path, kept: Path) -> dict[int, np.ndarray]:
    """Frames at evenly spread places, as they come when all are decoded in order."""
    import av
    from av.stream import Disposition

    if not kept.is_file():
        frames = []
        try:
            with av.open(str(path)) as container:
                stream = next(
                    s
                    for s in container.streams.video
                    if not s.disposition & Disposition.attached_pic
                )
                stream.codec_context.thread_count = 1
                for packet in container.demux(stream):
                    try:
                        decoded = packet.decode()
                    except av.FFmpegError:
                        continue
                    for frame in decoded:
                        turns = round(frame.rotation / 90) % 4
                        frames.append(thin(np.rot90(frame.to_ndarray(format="rgb24"), turns)))
        except (av.FFmpegError, StopIteration):
            pass
        places = np.unique(np.linspace(0, len(frames) - 1, SPREAD).astype(int)) if frames else []
        np.savez(kept, **{str(place): frames[place] for place in places})
    with np.load(kept) as stored:
        return {int(name): stored[name] for name in stored.files}


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.ndim == 3 and one.shape[2] > 3:
        width = one.shape[1]  # decord2 takes padding for channels; see secondglance/media
        one = one.reshape(one.shape[0], -1)[:, : 3 * width].reshape(one.shape[0], width, 3)
    one = thin(one)
    if one.shape != other.shape:
        return False
    return float(np.abs(one.astype(np.int16) - other).mean()) < SAME


def one_file(library: str, path: Path, kept: Path) -> dict[str, Any]:
    """Reads a file with one library."""
    expected = reference(path, kept)
    indices = sorted(expected) or [0]
    open_frames, whole = LIBRARIES[library](path)
    started = time.process_time()
    found = open_frames(indices)
    spread_s = time.process_time() - started
    right = sum(
        same(frame, expected[i]) for i, frame in zip(indices, found, strict=True) if i in expected
    )
    started = time.process_time()
    passed = whole()
    return {
        "frames": len(expected),
        "asked": len(indices),
        "right": right,
        "spread_s": spread_s,
        "whole_s": time.process_time() - started,
        "whole_frames": passed,
    }


def run(
    library: str, paths: list[Path], extra: list[Path], scratch: str
) -> dict[str, dict[str, Any]]:
    """All files in one process; another one goes on behind a file that crashes it or hangs."""
    folders = os.pathsep.join(map(str, (Path(__file__).parents[1], *extra)))
    environment = {**os.environ, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1"}
    found: dict[str, dict[str, Any]] = {}
    left = paths
    while left:
        command = [
            sys.executable,
            __file__,
            "--one",
            library,
            "--scratch",
            scratch,
            *map(str, left),
        ]
        with tempfile.TemporaryFile("w+") as output:
            try:
                code: int | str = subprocess.run(
                    command,
                    stdout=output,
                    stderr=subprocess.DEVNULL,
                    timeout=LIMIT_S + 10 * len(left),
                    env=environment,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = "time limit"
            output.seek(0)
            for line in output:
                found.update(json.loads(line))
        left = [path for path in left if path.name not in found]
        if left:
            found[left.pop(0).name] = {"error": f"crashed or hung ({code})"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--torchcodec", type=Path, help="where torchcodec is installed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        for path in options.folders:
            try:
                found = one_file(options.one, path, Path(options.scratch) / f"{path.name}.npz")
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            print(json.dumps({path.name: found}), flush=True)
        return
    paths = [
        path
        for folder in options.folders
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in VIDEOS
    ]
    extra = [options.torchcodec] if options.torchcodec else []
    files: dict[str, dict[str, Any]] = {path.name: {} for path in paths}
    with tempfile.TemporaryDirectory() as scratch:
        for library in LIBRARIES:
            for name, found in run(library, paths, extra, scratch).items():
                files[name][library] = found
            console.print(library, sum("error" not in by[library] for by in files.values()))
    good = [name for name, by in files.items() if all(is_right(by[n]) for n in ("PyAV", "decord2"))]
    rows = []
    for library in LIBRARIES:
        results = [by[library] for by in files.values()]
        read = [found for found in results if "error" not in found and found["right"]]
        speed = [files[name][library] for name in good if "error" not in files[name][library]]
        rows.append(
            {
                "library": library,
                "files": len(results),
                "read": len(read),
                "all frames right": sum(is_right(found) for found in results),
                "wrong frames": sum(found["asked"] - found["right"] for found in read),
                "16 frames ms": 1e3 * statistics.median(f["spread_s"] for f in speed)
                if speed else float("nan"),
                "whole frames/s": sum(f["whole_frames"] for f in speed)
                / sum(f["whole_s"] for f in speed) if speed else float("nan"),
            }
        )  # fmt: skip
    report("decoders", rows, compared_for_speed=len(good), by_file=files)


def is_right(found: dict[str, Any]) -> bool:
    return "error" not in found and found["right"] == found["asked"] and found["frames"] > 0


if __name__ == "__main__":
    main()
