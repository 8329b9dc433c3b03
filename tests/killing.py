"""One process that has imported everything, and forks a run of `index` for each kill.

Speaks lines of JSON: {"library", "media", "settings", "write_records", "kill_after_s" or
"kill_after_files"} -> {"killed"} or the report, what `verify` says, and how often each file's
records are stored. With "change" (settings of another model) instead of "media" the model is
changed; "kill_at" ([module, function, call, "before" or "after"]) ends that where it hurts, and
"limit_bytes" lets no file grow beyond.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip  # noqa: F401 - what takes long is imported before the fork
import pymilvus  # noqa: F401
import torch

from secondglance.errors import SecondGlanceError
from secondglance.library import Library
from secondglance.pipelines import storing
from secondglance.pipelines.index import Progress
from secondglance.retrieve import exact, faiss_store, milvus_store  # noqa: F401


def main() -> None:
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.close(reader)
            _change(order, writer) if "change" in order else _run(order, writer)
            os._exit(0)
        os.close(writer)
        print(json.dumps(_wait(child, reader, order.get("kill_after_s"))), flush=True)


def _kill_after(files: int) -> Callable[[Progress], None]:
    """A kill between two writes, with so many files embedded and some of them stored."""

    def told(progress: Progress) -> None:
        if progress.stage == "embed" and progress.done >= files and progress.segments:
            os.kill(os.getpid(), signal.SIGKILL)

    return told


def _wait(child: int, reader: int, kill_after_s: float | None) -> dict[str, Any]:
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        answer = "" if kill_after_s is not None else pipe.read()
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # its decode workers, as when a machine goes down
    return json.loads(answer) if answer else {"killed": os.WIFSIGNALED(status)}


def _run(order: dict[str, Any], writer: int) -> None:
    folder = Path(order["library"])
    storing.WRITE_RECORDS = order.get("write_records", storing.WRITE_RECORDS)
    with Library.open(folder, preset="starter", settings=order["settings"]) as library:
        before = library.verify().to_dict() if (folder / "catalog.sqlite").exists() else {}
        told = _kill_after(order.get("kill_after_files", sys.maxsize))
        report = library.index([order["media"]], on_progress=told)
        after = library.verify().to_dict()
        stored: dict[str, int] = {}
        store = library._parts.store()
        for record in store.get(sorted(store.ids())):
            for file in library._parts.catalog.files_with(str(record.payload["item"])):
                stored[file.path] = stored.get(file.path, 0) + 1
    found = {"before": before, "report": report.to_dict(), "after": after, "stored": stored}
    os.write(writer, json.dumps(found).encode())
    os.close(writer)


def _change(order: dict[str, Any], writer: int) -> None:
    if "limit_bytes" in order:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit_bytes"],) * 2)
    if "kill_at" in order:
        _kill_at(*order["kill_at"])
    found: dict[str, Any]
    try:
        with Library.open(order["library"]) as library:
            found = library.change_model(settings=order["change"]).to_dict()
    except SecondGlanceError as error:
        found = {"error": type(error).__name__, "said": str(error)}
    os.write(writer, json.dumps(found).encode())
    os.close(writer)


def _kill_at(module: str, function: str, call: int, when: str) -> None:
    """Ends this process before or after a call of a function."""
    place = importlib.import_module(module)
    real, calls = getattr(place, function), itertools.count(1)

    def deadly(*arguments: Any, **options: Any) -> Any:
        last = next(calls) == call
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*arguments, **options)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(place, function, deadly)


if __name__ == "__main__":
    main()
