"""Another first pass for a library: its vectors grow beside those in use, then it switches over.

A *generation* is a folder in the library with a catalog, a word index and a store of its own (on a
server: a collection of its own), filled by the ordinary ingestion job with what the library holds.
`library.json` names the generation in use and is replaced last, in one rename; open libraries
follow (`following`). `generations.json` says what is being built, so a killed run is gone on with.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from secondglance.config import PRESET_NAMES, Settings, load_settings, read_preset, read_toml
from secondglance.errors import InputError, LibraryError
from secondglance.evaluation.trec import named
from secondglance.ingest import imported
from secondglance.ingest.catalog import Catalog
from secondglance.ingest.scan import check_paths
from secondglance.pipelines import build, generations
from secondglance.pipelines import index as index_pipeline
from secondglance.pipelines.build import Parts
from secondglance.pipelines.carried import Carried
from secondglance.pipelines.generations import Generation, model_name
from secondglance.pipelines.opening import Said, absolute
from secondglance.pipelines.stamp import (
    differs_in,
    new_collection,
    new_data_name,
    read_stamp,
    stamp_of,
    stamped_store,
    with_stamped_store,
    write_stamp,
)
from secondglance.pipelines.verify import verify
from secondglance.pipelines.watch import add
from secondglance.types import IndexReport

if TYPE_CHECKING:
    from secondglance.ingest.embedder import ClipEmbedder

COLLECTION_VARIABLE = "SECONDGLANCE_STORE__COLLECTION"

ROUNDS = 3
"""Scans at most: what changed while the first one embedded is taken in before the switch."""


class ChangeOptions(TypedDict, total=False):
    """What `Library.change_model` takes besides settings; see `change_model`."""

    without_absent: bool
    keep_old: bool
    discard: bool
    on_progress: Callable[[index_pipeline.Progress], None]
    on_warning: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChange:
    """What a change of the model did.

    Attributes:
        report: Of the ingestion, as of an `index` run; of this run, if it went on from another.
        model: Of the first pass now.
        before: The one it had.
        left_out: Files that the library held and holds no longer.
        kept: Where the old vectors are, if they were kept.
        warnings: For the user, besides those of the report.
    """

    report: IndexReport
    model: str
    before: str
    left_out: int = 0
    kept: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form of the command line: the report's, and what changed."""
        found = self.report.to_dict()
        found["warnings"] = [*found["warnings"], *self.warnings]
        names = ("model", "before", "left_out", "kept")
        return {**found, "change": {name: getattr(self, name) for name in names}}


def names_other_model(folder: str | Path, said: Said) -> bool:
    """Whether settings of a run name another first pass than a library has.

    What the environment says does not count: it would start hours of work unasked, so opening
    the library refuses it instead.
    """
    root = absolute(folder)
    stamp = read_stamp(root)
    if stamp is None or not (said.named is not None or _says(said, "recall")):
        return False
    return differs_in(stamp, new_settings(stamp, said).recall) is not None


def new_settings(stamp: dict[str, Any], said: Said) -> Settings:
    """What a library with this stamp will have: models as they are said, its store as it is.

    Raises:
        ConfigError: A setting is unknown or not allowed.
    """
    name = said.named or stamp.get("preset")
    base = read_preset(name) if name in PRESET_NAMES else {}
    kept: dict[str, Any] = {"store": stamp.get("store", {})}
    if said.named is None:
        kept["rerank"] = stamp.get("rerank", {})
        kept["preset"] = stamp.get("preset")
        kept["recall"] = dict(stamp.get("recall", {}))
        if _says(said, "recall", "model"):
            # A tag and a revision are those of the model that was.
            kept["recall"] |= {"pretrained": "", "revision": None}
    else:
        # Above the user's own file, which is a default for new libraries.
        kept |= {key: base[key] for key in ("recall", "rerank", "preset") if key in base}
    return load_settings(base=base, stamp=kept, file=said.config, flags=said.settings)


def _says(said: Said, section: str, key: str | None = None) -> bool:
    """Whether file or flags say anything of a section, or of one key of it."""
    sources = [said.settings or {}]
    if said.config is not None:
        sources.append(read_toml(said.config))
    found = [source.get(section) or {} for source in sources]
    return any(key in each if key is not None else each for each in found)


def change_model(
    parts: Parts,
    said: Said,
    paths: Sequence[str | Path] = (),
    *,
    without_absent: bool = False,
    keep_old: bool = False,
    discard: bool = False,
    on_progress: Callable[[index_pipeline.Progress], None] = lambda _: None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> ModelChange:
    """Builds the vectors of another model, and switches the library over to them.

    The caller holds the library's lock. A run that was ended is gone on with by the same call.

    Args:
        parts: Of the library as it is.
        said: The new model.
        paths: Folders and files to index as well.
        without_absent: Switch though files cannot be embedded again.
        keep_old: Keep the vectors in use now: changing back then embeds what changed since.
        discard: Give up an unfinished change to yet another model, or vectors that were kept.
        on_progress: Called often.
        on_warning: Called with what the user should know before hours of work.

    Raises:
        InputError: Another change is unfinished; a path does not exist; the collection is in use.
        ModelError: The model cannot be loaded; nothing was changed.
        LibraryError: Files cannot be embedded again, or the folder cannot be written; nothing was
            switched.
        IndexInterruptedError: Ctrl-C; the same call goes on.
        IndexStoppedError: It was told to stop; the same call goes on.
    """
    library = parts.folder
    stamp = read_stamp(library)
    if stamp is None:
        raise LibraryError(f"the library {library} is away", remedy="connect its drive")
    wanted = new_settings(stamp, said)
    roots = check_paths(paths, is_known=parts.catalog.knows)
    if discard:
        generations.discard(library, known=(parts.settings.store,))
    if differs_in(stamp, wanted.recall) is None:
        return _as_it_is(parts, stamp, roots, on_progress)
    found = _unfinished(library, wanted, says_store=_says(said, "store"))
    # Before anything is written: it may be missing, damaged, or not fit into memory.
    embedder = build.open_embedder(wanted.recall)
    if embedder.fingerprint == parts.catalog.get_meta("fingerprint"):
        # The same weights by another name.
        renamed = {**stamp, **_models(wanted)}
        write_stamp(library, renamed)
        return _as_it_is(parts, renamed, roots, on_progress, before=stamp)
    entry = _begun(found, stamp, wanted, roots)
    generations.mark(library, entry)
    store = with_stamped_store(wanted.store, entry.stamp)
    settings = wanted.model_copy(update={"store": store})
    fresh = _open(library, entry, settings, embedder)
    try:
        named_now = [Path(path) for path in entry.paths]
        carried = Carried(parts.catalog, fresh.catalog, named=named_now)
        if absent := carried.absent():
            on_warning(
                f"{len(absent)} files of the library are not there now: {named(absent)}; it is not "
                "switched over before they were embedded, unless you say --without-absent"
            )
        report = _fill(parts, fresh, carried, named_now, on_progress)
        lost = carried.lost()
        if lost and not without_absent:
            raise LibraryError(
                f"{len(lost)} files of {library} cannot be embedded with "
                f"{model_name(entry.stamp)}: {named(f'{p} ({why})' for p, why in lost.items())}; "
                f"the library goes on with {model_name(stamp)}",
                remedy="connect their drive, or put the files right, and run the same command "
                "again: what is embedded stays; or leave them out with --without-absent",
            )
        _check_complete(fresh)
    finally:
        # Milvus Lite serves one process: who follows the switch must find the store closed.
        fresh.close()
    _switch(parts, stamp, entry, keep_old=keep_old)
    warnings = list(carried.warnings)
    if lost:
        warnings.append(f"{len(lost)} files were left out: {named(lost)}")
    return ModelChange(
        report=report,
        model=model_name(entry.stamp),
        before=model_name(stamp),
        left_out=len(lost) + carried.deleted,
        kept=generations.where(parts.data, parts.settings.store) if keep_old else None,
        warnings=tuple(warnings),
    )


def _models(wanted: Settings) -> dict[str, Any]:
    return {key: value for key, value in stamp_of(wanted).items() if key != "store"}


def _as_it_is(
    parts: Parts,
    stamp: dict[str, Any],
    roots: Sequence[Path],
    on_progress: Callable[[index_pipeline.Progress], None],
    *,
    before: dict[str, Any] | None = None,
) -> ModelChange:
    """The library has these vectors already: nothing is built."""
    report = IndexReport()
    if roots:
        report = index_pipeline.index(parts, roots, on_progress=on_progress)
    return ModelChange(report=report, model=model_name(stamp), before=model_name(before or stamp))


def _unfinished(library: Path, wanted: Settings, *, says_store: bool) -> Generation | None:
    """What an earlier run began, or kept, for the same model.

    Raises:
        InputError: An earlier run began something else.
    """
    recall = _models(wanted)["recall"]
    for each in generations.read_generations(library):
        store = each.store
        same_place = (store.backend, store.uri) == (wanted.store.backend, wanted.store.uri)
        if each.state == "leaving" or (each.state == "kept" and says_store and not same_place):
            continue
        if each.stamp["recall"] == recall and (same_place or not says_store):
            return each
        if each.state == "building":
            place = generations.where(each.folder(library), store)
            raise InputError(
                f"vectors for {model_name(each.stamp)} in {place} are unfinished "
                f"({generations.files_in(each.folder(library))} files); they are not for "
                f"{model_name({'recall': recall})} in {wanted.store.backend}",
                remedy="finish them, or give them up with --discard: "
                f"{generations.how_to_finish(library, each)}",
            )
    return None


def _begun(
    found: Generation | None, stamp: dict[str, Any], wanted: Settings, roots: Sequence[Path]
) -> Generation:
    """The entry to work on: the one that was begun or kept, or a new one."""
    paths = tuple(map(str, roots))
    if found is not None:
        paths = tuple(dict.fromkeys((*found.paths, *paths)))
        made = {**found.stamp, **_models(wanted)}
        return Generation(state="building", stamp=made, paths=paths)
    made = {**stamp_of(wanted), "data": new_data_name()}
    store = wanted.store
    if store.uri is not None:
        if COLLECTION_VARIABLE in os.environ:
            raise InputError(
                f"{COLLECTION_VARIABLE} of the environment names one collection, and another model "
                "needs another one",
                remedy="unset it; the library knows the name of its collection",
            )
        if store.collection == stamp["store"].get("collection"):
            made["store"]["collection"] = new_collection()
    return Generation(state="building", stamp=made, paths=paths)


def _open(library: Path, entry: Generation, settings: Settings, embedder: ClipEmbedder) -> Parts:
    """The parts that write to a generation."""
    data = entry.folder(library)
    try:
        data.mkdir(exist_ok=True)
    except OSError as error:
        raise LibraryError(
            f"cannot make {data}: {error.strerror}",
            remedy="check that the disk has room; the library is as it was",
        ) from error
    catalog = Catalog(data)
    made_with = catalog.get_meta("fingerprint")
    if made_with not in (None, embedder.fingerprint):
        catalog.close()
        raise InputError(
            f"the unfinished vectors in {data} were begun with other weights of "
            f"{model_name(entry.stamp)}",
            remedy="give them up with --discard, and begin again",
        )
    return Parts(library, settings, catalog, embedder=embedder)


def _fill(
    parts: Parts,
    fresh: Parts,
    carried: Carried,
    paths: Sequence[Path],
    on_progress: Callable[[index_pipeline.Progress], None],
) -> IndexReport:
    """Embeds what the library holds, and what was named; again, until nothing changed meanwhile."""
    imported.copy_captions(parts.catalog, fresh.catalog)
    carried.drop_removed()
    rounds: list[IndexReport] = []
    last: list[IndexReport] = []
    for number in range(ROUNDS):
        last = [
            index_pipeline.index(
                fresh,
                (),
                items=carried.items,
                retry_failed=number == 0,
                on_progress=on_progress,
            )
        ]
        # One that is away now was embedded by an earlier run, or is among what is lost.
        there = [path for path in paths if path.exists() or fresh.catalog.knows(path)]
        if there:
            last.append(index_pipeline.index(fresh, there, on_progress=on_progress))
        rounds += last
        if not any(each.indexed or each.moved or each.removed for each in last):
            break
    errors = {(e.path, e.reason): e for each in last for e in each.errors}
    return replace(
        reduce(add, rounds, IndexReport()),
        files=fresh.catalog.file_count(),
        unchanged=rounds[0].unchanged,
        failed=fresh.catalog.counts()["failed"],
        errors=tuple(errors[key] for key in sorted(errors)),
        warnings=tuple(dict.fromkeys(w for each in rounds for w in each.warnings)),
    )


def _check_complete(fresh: Parts) -> None:
    checked = verify(fresh)
    if not checked.agrees:
        raise LibraryError(
            f"the new vectors in {fresh.data} are incomplete: {checked.missing} missing, "
            f"{checked.foreign} foreign; nothing was switched",
            remedy="run the same command again with --discard",
        )


def _switch(parts: Parts, stamp: dict[str, Any], entry: Generation, *, keep_old: bool) -> None:
    """Turns old into new, in one rename; see `generations` for why the list is written first."""
    library = parts.folder
    store = stamped_store(parts.settings.store)
    old = Generation(state="kept" if keep_old else "leaving", stamp={**stamp, "store": store})
    others = [e for e in generations.read_generations(library) if not e.is_at(entry.stamp)]
    generations.write_generations(library, [*others, entry, old])
    write_stamp(library, entry.stamp)
    generations.write_generations(library, [*others, old])
