"""The typer application."""

from __future__ import annotations

from typing import Annotated

import typer

from secondglance import __version__
from secondglance.cli import (
    cover,
    doctor,
    duplicates,
    evaluate,
    explain,
    export,
    import_,
    index,
    judge,
    migrate,
    models,
    plan,
    rerank,
    scenes,
    search,
    serve,
    status,
)
from secondglance.cli.console import show_log

app = typer.Typer(
    help="Two-stage search for media libraries: CLIP recall, Qwen3-VL reranking.",
    epilog="Example: secondglance index ~/Pictures --library ~/media.library && "
    'secondglance search "two dogs on a beach" --library ~/media.library',
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secondglance {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:
    show_log()


app.command(epilog="Example: secondglance index ~/Pictures ~/Videos --library ~/media.library")(
    index.index
)
app.command(
    epilog='Example: secondglance search "red car at night" --library ~/media.library --kind video'
)(search.search)
app.command(
    epilog='Example: secondglance explain "two dogs" --library ~/media.library --rank 1 --out why'
)(explain.explain)
app.command(
    epilog='Example: secondglance rerank --query "a cat" --documents candidates.jsonl --format json'
)(rerank.rerank)
app.command(
    epilog='Example: secondglance cover holiday.mp4 --title "surfing at sunset" -n 3 --out covers'
)(cover.cover)
app.command(epilog="Example: secondglance status --library ~/media.library")(status.status)
app.command(epilog="Example: secondglance duplicates --library ~/media.library")(
    duplicates.duplicates
)
app.command(
    epilog="Example: secondglance evaluate --library ~/media.library --queries queries.jsonl "
    "--qrels qrels.txt --out report"
)(evaluate.evaluate)
app.command(
    epilog="Example: secondglance judge --library ~/media.library --queries queries.jsonl "
    "--out judged.qrels"
)(judge.judge)
app.command(
    epilog="Example: secondglance serve --library ~/media.library --open; for others: "
    "secondglance serve --library ~/media.library --host 0.0.0.0 --name media.example.com "
    "--api-key-file keys.txt"
)(serve.serve)
app.command(epilog="Example: secondglance migrate --library ~/media.library --to faiss")(
    migrate.migrate
)
app.command(epilog="Example: secondglance export --library ~/media.library --out ~/vectors")(
    export.export
)
app.command(
    "import",
    epilog="Example: secondglance import ~/embeddings --library ~/media.library --root ~/Pictures "
    "--embedder ViT-B-32/laion2b_s34b_b79k",
)(import_.import_)
app.command(epilog="Example: secondglance doctor --preset laptop")(doctor.doctor)
app.command(epilog="Example: secondglance models")(models.models)
app.command(
    epilog="Example: secondglance plan --images 120000 --video-hours 5000 --queries-per-second 5"
)(plan.plan)
app.command(epilog="Example: secondglance scenes ~/scenes --pictures 300 --clips 40")(scenes.scenes)
