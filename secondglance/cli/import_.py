"""`secondglance import`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from secondglance.cli.console import Stages, overrides, progress_bar, stderr, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, PresetOption, SetOption

if TYPE_CHECKING:
    from secondglance.pipelines.import_rows import Imported

SHOWN_ERRORS = 20


def import_(
    folder: Annotated[
        Path,
        typer.Argument(help="clip-retrieval's folder, an export, or Parquet files."),
    ],
    library: LibraryOption,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model that the vectors come from, for a new library: ViT-B-32/openai, a hub "
            "id, a folder.",
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that holds the files.")] = None,
    strip: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Folder of another machine that paths begin with."),
    ] = None,
    path_column: Annotated[str | None, typer.Option(help="Column with the paths.")] = None,
    vector_column: Annotated[str | None, typer.Option(help="Column with the vectors.")] = None,
    caption_column: Annotated[str | None, typer.Option(help="Column with captions.")] = None,
    use: Annotated[
        Literal["image", "text"] | None,
        typer.Option(help="Of clip-retrieval: img_emb or text_emb; left out: img_emb."),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, help="Files to embed again, to check the model; 0: none.")
    ] = 16,
    min_cosine: Annotated[
        float, typer.Option(min=-1, max=1, help="What the median of their cosines must reach.")
    ] = 0.95,
    preset: PresetOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Take in embeddings that you have already, without embedding anything again.

    A row that cannot be used is listed with its reason. Run `index` on the folder afterwards: it
    reads the files' metadata and embeds only what is missing.
    """
    from secondglance.library import Library
    from secondglance.pipelines.importing import model_settings

    settings: dict[str, Any] = overrides(set_ or ())
    recall = model_settings(library, folder, embedder, named=settings.get("recall", {}))
    if recall:
        settings["recall"] = {**recall, **settings.get("recall", {})}
    opened = Library.open(library, preset=preset, config=config, settings=settings)
    with opened, progress_bar() as bar:
        warn(opened.warnings)
        stages = Stages(bar, "check", "checking the model")
        done = opened.import_embeddings(
            folder,
            root=root,
            strip=strip,
            path_column=path_column,
            vector_column=vector_column,
            caption_column=caption_column,
            use=use,
            sample=sample,
            min_cosine=min_cosine,
            on_progress=lambda done, total: stages.show(
                "import", "importing", done=done, total=total
            ),
        )
    _show(done, as_json=as_json)


def _show(done: Imported, *, as_json: bool) -> None:
    warn(done.warnings)
    for failure in done.errors[:SHOWN_ERRORS]:
        stderr().print(
            f"[yellow]not imported:[/] {escape(failure.path)}: {escape(failure.reason)}",
            highlight=False,
            soft_wrap=True,
        )
    if len(done.errors) > SHOWN_ERRORS:
        stderr().print(f"... and {len(done.errors) - SHOWN_ERRORS} more; see --json")
    if as_json:
        write(json.dumps(done.to_dict(), ensure_ascii=False), None)
        return
    checked = (
        f"; median cosine of {done.checked} checked: {done.median_cosine:.3f}"
        if done.median_cosine is not None
        else ""
    )
    stdout().print(
        f"{done.rows} rows: {done.files} files imported, {done.unchanged} rows there already, "
        f"{done.absent} files absent, {done.failed} rows unusable{checked}",
        highlight=False,
        soft_wrap=True,
    )
