"""How long does a run over a library take in which nothing changed?

A tree of tiny files, which the catalog knows as done. The target is 100,000 files in under 10 s.
"processor s" is what the process itself worked: on a shared machine it tells more than the clock.

    python benchmarks/rescan.py [--files 100000]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from common import PeakMemory, report

from secondglance.ingest.catalog import Announcement, description
from secondglance.ingest.scan import Scan, walk
from secondglance.library import Library

FILES_PER_FOLDER = 500
REPEAT = 3


def write_files(folder: Path, count: int) -> None:
    """Files of a few bytes, each another content."""
    for number in range(count):
        path = folder / f"{number // FILES_PER_FOLDER:04}" / f"picture-{number:06}.jpg"
        if number % FILES_PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"%d" % number)


def make_known(library: Library, folder: Path) -> None:
    """Marks the files done, as a run that embedded them would."""
    catalog = library._parts.catalog
    items = list(walk(folder, exclude=library.folder, scan=Scan()))
    announcements = [
        Announcement(
            content=f"{number:032x}",
            kind="image",
            ids=(f"{number:032x}",),
            described_by=description(item.path, item.root, item.caption),
        )
        for number, item in enumerate(items)
    ]
    catalog.announce(announcements)
    catalog.finish(
        (item, new.content, "image") for item, new in zip(items, announcements, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000)
    count = parser.parse_args().files
    base = Path(tempfile.mkdtemp(prefix="rescan-"))
    rows = []
    try:
        write_files(base / "media", count)
        with Library.open(base / "library", preset="starter") as library:
            make_known(library, base / "media")
            for number in range(REPEAT):
                with PeakMemory() as memory:
                    started, worked = time.perf_counter(), time.process_time()
                    done = library.index([base / "media"])
                    spent = time.perf_counter() - started
                    worked = time.process_time() - worked
                assert (done.unchanged, done.indexed) == (count, 0), done
                rows.append(
                    {
                        "run": number + 1,
                        "files": count,
                        "seconds": round(spent, 2),
                        "processor s": round(worked, 2),
                        "files/s": round(count / spent),
                        "peak MB": round(memory.megabytes),
                    }
                )
    finally:
        shutil.rmtree(base)
    report("rescan", rows)


if __name__ == "__main__":
    main()
