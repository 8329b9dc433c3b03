"""Roots that are away: drives that were unplugged, network folders that are not mounted."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

from secondglance.ingest.scan import JUNK

_PULLED_OUT = {errno.EIO, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ESTALE}

Absence = Literal["missing", "empty"]
"""`missing`: there is no such folder. `empty`: a mount point with nothing mounted on it, as far as
anyone can tell from a folder that held files and now holds none."""


def absence(root: Path | str) -> Absence | None:
    """Why the files below a root that had some cannot be there now; None if they can.

    A folder that cannot be read is there: its files are unknown, not gone.
    """
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in JUNK:
                    return None
        return "empty"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        # A drive that was pulled out while mounted answers like this.
        return "missing" if error.errno in _PULLED_OUT else None


class Roots:
    """Answers of `absence`, asked once a root and run."""

    def __init__(self) -> None:
        self._known: dict[str, Absence | None] = {}

    def absence(self, root: Path | str) -> Absence | None:
        """As the function of this name; the first answer stays."""
        key = str(root)
        if key not in self._known:
            self._known[key] = absence(root)
        return self._known[key]
