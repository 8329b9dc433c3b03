"""How long until `secondglance --help` has answered?

The bare interpreter is the baseline. The target is under a second.

    python benchmarks/startup.py [--repeat 9]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from common import report

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "secondglance --help": ["-m", "secondglance", "--help"],
    "secondglance search --help": ["-m", "secondglance", "search", "--help"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    rows = []
    for name, arguments in COMMANDS.items():
        seconds(arguments)
        spent = [seconds(arguments) * 1e3 for _ in range(repeat)]
        rows.append({"command": name, "median ms": statistics.median(spent), "max ms": max(spent)})
    report("startup", rows, repeat=repeat)


if __name__ == "__main__":
    main()
