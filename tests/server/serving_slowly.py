"""Runs the command line with a reranker that takes its time: `serving_slowly.py SECONDS GRACE ...`.

It says `begun` on stderr when it is asked, and stops as a reranker does.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from secondglance import cli
from secondglance.library import Library
from secondglance.rerank import stopping
from secondglance.server import options
from secondglance.types import PairScore

SECONDS, GRACE_S = float(sys.argv[1]), float(sys.argv[2])
RealOptions = options.ServerOptions


def score(*_: Any, **__: Any) -> list[PairScore]:
    print("begun", file=sys.stderr, flush=True)
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        time.sleep(0.02)
        stopping.check()
    return [PairScore(score=0.5, log_odds=0.0)]


def with_grace(**given: Any) -> options.ServerOptions:
    return RealOptions(**{**given, "shutdown_s": GRACE_S})


Library.rerank = score  # type: ignore[method-assign]
options.ServerOptions = with_grace  # type: ignore[assignment,misc]
sys.argv = ["secondglance", *sys.argv[3:]]
cli.main()
