"""Libraries that tests open, and what must hold of each at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from secondglance.library import Library
from secondglance.models import untrained
from secondglance.types import IndexReport


class Open:
    """Opens libraries with untrained checkpoints in a temporary folder; closes them all."""

    def __init__(self, base: Path, clip: Path, reranker: Path) -> None:
        self._base = base
        self.folder = base / "library"
        self.settings: dict[str, Any] = {
            "recall": {"model": str(clip)},
            "rerank": {"model": str(reranker)},
        }
        self._opened: list[Library] = []

    def __call__(self, name: str = "library", *, store: str = "exact", **sections: Any) -> Library:
        self.folder = self._base / name
        # What the preset says for the trained models does not hold for others.
        search = {"rerank_floor": 0.0, **sections.pop("search", {})}
        # To an untrained model all pictures look alike.
        ingest = {"alike": 1.0, **sections.pop("ingest", {})}
        settings = {
            **self.settings,
            "store": {"backend": store},
            "search": search,
            "ingest": ingest,
            **sections,
        }
        library = Library.open(self.folder, preset="starter", settings=settings)
        self._opened.append(library)
        return library

    def close(self) -> None:
        for library in self._opened:
            library.close()
        self._opened.clear()


def other_clip(folder: Path) -> Path:
    """Makes an untrained checkpoint of another model: its vectors have 64 numbers, not 128."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(untrained.CLIP_CONFIG["model_cfg"], "embed_dim", 64)
        return untrained.build_untrained_clip(folder, seed=1)


def stored_ids(library: Library) -> set[str]:
    """The ids that the store really holds, out of all that the catalog knows."""
    catalog = library._parts.catalog
    rows = catalog._db.execute("SELECT id FROM records").fetchall()
    records = library._parts.store().get([row[0] for row in rows])
    return {record.id for record in records}


def verify(library: Library) -> None:
    """Catalog and store agree: every record of every file is there, once, and nothing else."""
    catalog, store = library._parts.catalog, library._parts.store()
    ids = [row[0] for row in catalog._db.execute("SELECT id FROM records").fetchall()]
    assert len(ids) == len(set(ids))
    assert stored_ids(library) == set(ids)
    assert store.count() == len(ids)
    assert catalog.orphans() == []
    for record in store.get(ids):
        path = Path(str(record.payload["root"])) / str(record.payload["path"])
        holders = [file.path for file in catalog.files_with(str(record.payload["item"]))]
        assert str(path) in holders


def counts(report: IndexReport) -> dict[str, int]:
    names = ("files", "indexed", "unchanged", "moved", "removed", "failed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}
