"""Takes embeddings that people already have into a library, joined with the files they are of.

What is written is what `index` would write: records by content hash, files with size and time. So a
later `index` finds the files unchanged, reads their metadata, and embeds nothing. The catalog knows
what is done, so a run that was killed is gone on with by the same call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from secondglance.errors import InputError
from secondglance.ingest.embeddings import Use, read_layout
from secondglance.pipelines.build import Parts
from secondglance.pipelines.import_check import MIN_COSINE, SAMPLE, check_model
from secondglance.pipelines.import_rows import Imported, ImportJob, Places
from secondglance.pipelines.stamp import read_stamp


class ImportOptions(TypedDict, total=False):
    """What `Library.import_embeddings` takes; see `import_embeddings`."""

    root: str | Path | None
    path_column: str | None
    vector_column: str | None
    caption_column: str | None
    use: Use | None
    strip: str | None
    sample: int
    min_cosine: float
    on_progress: Callable[[int, int], None]


def import_embeddings(
    parts: Parts,
    folder: str | Path,
    *,
    root: str | Path | None = None,
    path_column: str | None = None,
    vector_column: str | None = None,
    caption_column: str | None = None,
    use: Use | None = None,
    strip: str | None = None,
    sample: int = SAMPLE,
    min_cosine: float = MIN_COSINE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Imports a folder of embeddings. The caller holds the library's lock.

    Args:
        parts: Of the library.
        folder: Of clip-retrieval, an export of this program, or Parquet files.
        root: The folder that holds the files; may be left out for an export.
        path_column: See `ingest.embeddings.read_layout`, as the next three.
        vector_column: Of plain Parquet.
        caption_column: Words about the file.
        use: Of clip-retrieval's two kinds of vectors.
        strip: What paths begin with that is not below `root`: a folder of another machine.
        sample: Files to embed again, to check the model; 0 for none.
        min_cosine: What the median of their cosines must reach.
        on_progress: Called with (rows done, rows in all).

    Raises:
        InputError: The folder or an option cannot be used.
        EmbedderMismatchError: The vectors come from another model.
    """
    if sample < 0 or not -1 <= min_cosine <= 1:
        raise InputError(
            f"sample is {sample} and min_cosine {min_cosine:g}; "
            "at least 0, and -1 to 1, are allowed"
        )
    found = read_layout(
        Path(folder).expanduser(),
        path_column=path_column,
        vector_column=vector_column,
        caption_column=caption_column,
        use=use,
    )
    places = Places(root, strip=strip, own=found.about is not None)
    report = Imported(warnings=list(found.warnings))
    report.checked, report.median_cosine = check_model(
        parts, found, places.file, sample=sample, min_cosine=min_cosine
    )
    fingerprint = parts.embedder().fingerprint
    if found.about is not None and found.about.get("fingerprint") != fingerprint and sample:
        report.warnings.append(
            f"the export names the embedder {found.about.get('fingerprint')}, the library has "
            f"{fingerprint}; the sampled vectors agree"
        )
    if sample == 0:
        report.warnings.append("whether the vectors come from the library's model was not checked")
    ImportJob(parts, found, places, report, on_progress=on_progress).run()
    return report


def embedder_settings(name: str) -> dict[str, str]:
    """The model that a user names, as settings of the section `recall`.

    Args:
        name: An open-clip name with its tag (`ViT-B-32/laion2b_s34b_b79k`), as clip-retrieval
            writes it (`open_clip:ViT-B-32/...`, or OpenAI's `ViT-B/32`), a hub id, a local folder,
            or a builtin one.
    """
    openai = {
        "ViT-B/32": "ViT-B-32",
        "ViT-B/16": "ViT-B-16",
        "ViT-L/14": "ViT-L-14",
        "ViT-L/14@336px": "ViT-L-14-336",
    }
    if name in openai:
        return {"model": openai[name], "pretrained": "openai"}
    plain = name.removeprefix("open_clip:")
    model, slash, tag = plain.partition("/")
    if slash and not Path(plain).expanduser().exists():
        import open_clip

        if model in open_clip.list_models():
            return {"model": model, "pretrained": tag}
    return {"model": plain, "pretrained": ""}


def model_settings(
    library: Path, folder: Path, embedder: str | None, *, named: Mapping[str, Any]
) -> dict[str, Any]:
    """The section `recall` for the library that embeddings go to.

    Args:
        library: A library, whose model stays, or the folder of a new one.
        folder: The embeddings; an export says what it was made with.
        embedder: What the user named, if anything.
        named: What the user said of that section otherwise.

    Raises:
        InputError: The library is new, and nobody says which model the vectors come from.
    """
    if embedder is not None:
        return embedder_settings(embedder)
    if "model" in named or read_stamp(library.expanduser()) is not None:
        return {}
    about = read_layout(folder.expanduser()).about if folder.exists() else None
    if about is None:
        raise InputError(
            f"{library} is a new library, and it is not known which model the vectors come from",
            remedy="name it with --embedder, such as --embedder ViT-B-32/laion2b_s34b_b79k",
        )
    return {key: value for key, value in about["recall"].items() if value is not None}


def discard_if_empty(parts: Parts) -> None:
    """Removes a library that was made for an import which then failed before it wrote anything."""
    if parts.catalog.file_count() or parts.catalog.counts()["records"]:
        return
    parts.close()
    shutil.rmtree(parts.folder, ignore_errors=True)
