"""secondglance: two-stage search for media libraries.

CLIP glances at everything; Qwen3-VL looks again at what matters.

>>> from secondglance import Library
>>> library = Library.open("~/media.library")          # doctest: +SKIP
>>> library.index(["~/Pictures"])                      # doctest: +SKIP
>>> library.search("a dog on a beach", k=5).hits       # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Library", "Query", "__version__", "cover"]

if TYPE_CHECKING:
    from secondglance.library import Library
    from secondglance.pipelines.cover import cover
    from secondglance.types import Query


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `secondglance --help` and the decode workers start fast.
    if name == "Library":
        from secondglance.library import Library

        return Library
    if name == "Query":
        from secondglance.types import Query

        return Query
    if name == "cover":
        from secondglance.pipelines.cover import cover

        return cover
    raise AttributeError(f"module 'secondglance' has no attribute {name!r}")
