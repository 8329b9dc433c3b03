"""`secondglance migrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from secondglance.cli.console import Stages, overrides, progress_bar, stdout, warn, write
from secondglance.cli.options import ConfigOption, LibraryOption, SetOption

STAGES = {"copy": "copying", "compare": "comparing"}


def migrate(
    library: LibraryOption,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="STORE",
            help="faiss, exact, milvus (Milvus Lite in the library), or a server's address.",
        ),
    ],
    token: Annotated[
        str | None,
        typer.Option(help="Of the server: user:password or a key.", envvar="SECONDGLANCE_TOKEN"),
    ] = None,
    collection: Annotated[
        str | None, typer.Option(help="On the server; left out: a name of its own.")
    ] = None,
    new_library: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Make a second library there; this one stays as it is."),
    ] = None,
    remove_old: Annotated[
        bool, typer.Option("--remove-old", help="Delete the old store after the switch.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what the target holds.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=1, help="Vectors to compare by searching for them.")
    ] = 64,
    min_recall: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of the nearest that an approximate store has to find."
        ),
    ] = 0.95,
    config: ConfigOption = None,
    set_: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON on stdout.")] = False,
) -> None:
    """Move the vectors to another store, without embedding anything again.

    The old store is in use until all was copied and compared. A run that was ended half way is gone
    on with by the same command.
    """
    from secondglance.library import Library

    settings = overrides(set_ or ())
    with (
        Library.open(library, config=config, create=False, settings=settings) as opened,
        progress_bar() as bar,
    ):
        stages = Stages(bar, "copy", STAGES["copy"])
        done = opened.migrate(
            to,
            token=token,
            collection=collection,
            new_library=new_library,
            remove_old=remove_old,
            overwrite=overwrite,
            sample=sample,
            min_recall=min_recall,
            on_progress=lambda stage, done, total: stages.show(
                stage, STAGES[stage], done=done, total=total
            ),
        )
    warn(done.warnings)
    if as_json:
        write(json.dumps(done.to_dict(), ensure_ascii=False), None)
        return
    stdout().print(
        f"{done.library} uses {done.store} now ({done.index}): {done.records} records, of which "
        f"{done.written} were copied by this run; {done.searches} searches compared, recall "
        f"{done.recall:.3f}",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    if done.old is not None:
        stdout().print(f"kept: {done.old}", highlight=False, soft_wrap=True, markup=False)
