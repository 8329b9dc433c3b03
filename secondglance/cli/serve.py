"""`secondglance serve`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.markup import escape

from secondglance.cli.console import overrides, stderr, warn
from secondglance.cli.options import ConfigOption, SetOption
from secondglance.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from secondglance.server.libraries_file import LibrarySpec
    from secondglance.server.options import ServerOptions

WHERE, WHO, LIMITS, LOAD, OPERATE = "Where", "Who may", "Limits", "Load", "Operate"

_where: dict[str, Any] = {"rich_help_panel": WHERE}
_who: dict[str, Any] = {"rich_help_panel": WHO}
_limits: dict[str, Any] = {"rich_help_panel": LIMITS}
_load: dict[str, Any] = {"rich_help_panel": LOAD}
_operate: dict[str, Any] = {"rich_help_panel": OPERATE}


def serve(
    library: Annotated[
        list[Path] | None,
        typer.Option(
            "--library",
            "-L",
            help="The library folder, or SECONDGLANCE_LIBRARY; repeated: several libraries, each "
            "at /libraries/NAME/ by its folder's name.",
            show_default=False,
            **_where,
        ),
    ] = None,
    libraries: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with a table [library.NAME] for each of several libraries: path, "
            "title, roots, api_key_file, reports, config, settings.",
            **_where,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; 0.0.0.0 is all. Others than this machine need an API key.",
            **_where,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="0 takes any that is free.", min=0, max=65535, **_where)
    ] = 7860,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A further name by which clients call the server, such as media.example.com; "
            "may be repeated.",
            **_where,
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share",
            help="A temporary public link through Gradio's servers; needs an API key.",
            **_where,
        ),
    ] = False,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the page in the browser.", **_where)
    ] = False,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with an API key a line; keys may also stand in SECONDGLANCE_API_KEYS.",
            **_who,
        ),
    ] = None,
    open_to_all: Annotated[
        bool,
        typer.Option(
            "--open-to-all",
            help="Serve others without a key: whoever reaches the address sees all files.",
            **_who,
        ),
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="A web origin whose pages may call the interface, such as "
            "https://www.example.com; may be repeated.",
            **_who,
        ),
    ] = None,
    index_root: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder that jobs may index besides those of the library; may be repeated.",
            **_who,
        ),
    ] = None,
    url_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A host from which pictures and clips may be fetched by https URL; may be "
            "repeated. Left out: none.",
            **_who,
        ),
    ] = None,
    max_body_mb: Annotated[
        float, typer.Option(help="Of one request.", min=0.001, **_limits)
    ] = 96.0,
    max_upload_mb: Annotated[
        float, typer.Option(help="Of one uploaded file.", min=0.001, **_limits)
    ] = 64.0,
    max_uploads_mb: Annotated[
        float,
        typer.Option(
            help="Of all uploaded files together; the oldest go first.", min=0.001, **_limits
        ),
    ] = 1024.0,
    upload_ttl_s: Annotated[
        float, typer.Option(help="How long an uploaded file is kept.", min=1, **_limits)
    ] = 3600.0,
    max_pixels: Annotated[
        int, typer.Option(help="Of an uploaded picture or frame.", min=1, **_limits)
    ] = 64_000_000,
    max_video_s: Annotated[
        float, typer.Option(help="Length of an uploaded clip.", min=0.1, **_limits)
    ] = 30.0,
    max_frames: Annotated[
        int, typer.Option(help="Of an uploaded clip, as stored.", min=1, **_limits)
    ] = 4000,
    max_documents: Annotated[
        int, typer.Option(help="Of one rerank request.", min=1, **_limits)
    ] = 1000,
    concurrency: Annotated[
        int,
        typer.Option(
            help="Requests at the same time, which share batches; 0: four a core, at most 32.",
            min=0,
            **_load,
        ),
    ] = 0,
    queue: Annotated[
        int,
        typer.Option(help="Requests that wait besides; further ones get 429.", min=0, **_load),
    ] = 64,
    timeout_s: Annotated[
        float, typer.Option(help="Longest time of a request, waiting included.", min=0.1, **_load)
    ] = 300.0,
    decode_workers: Annotated[
        int, typer.Option(help="Processes that read uploaded media.", min=1, **_load)
    ] = 2,
    decode_timeout_s: Annotated[
        float, typer.Option(help="Longest time to read an uploaded file.", min=0.1, **_load)
    ] = 30.0,
    index_jobs: Annotated[
        int,
        typer.Option(
            help="Libraries that are indexed at the same time, where there are several.",
            min=1,
            **_load,
        ),
    ] = 2,
    preload: Annotated[
        bool,
        typer.Option(
            "--preload",
            help="Load the models at the start; left out: with the first request.",
            **_load,
        ),
    ] = False,
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of `evaluate` reports to show; may be repeated. Left out: reports in "
            "the library folder, if it is there.",
            **_operate,
        ),
    ] = None,
    log_format: Annotated[
        str, typer.Option(help="console, or json: one object a line.", **_operate)
    ] = "console",
    shutdown_s: Annotated[
        float,
        typer.Option(
            help="How long requests may go on after Ctrl-C or SIGTERM.", min=0, **_operate
        ),
    ] = 30.0,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Serve a library, or several: a web page, and an HTTP interface for programs.

    The page is at /, the interface's own documentation at /docs. Only this machine is served,
    unless --host says otherwise, and then with an API key. Ctrl-C ends it (exit code 130), and
    SIGTERM (exit code 0): requests finish, and an index job stops with what it has.
    """
    from secondglance.library import Library
    from secondglance.server.keys import read_keys
    from secondglance.server.opening import check_keys, open_members, own_keys
    from secondglance.server.options import ServerOptions
    from secondglance.server.run import run
    from secondglance.server.several import Member

    one, specs = _which(library, libraries, os.environ)
    common = read_keys(api_key_file, os.environ)
    keys = own_keys(specs, common)
    if specs:
        check_keys(keys, host=host, share=share, open_to_all=open_to_all)
        _only_for_one("--index-root", index_root)
        _only_for_one("--reports", reports)
        if common and all(spec.api_key_file for spec in specs):
            warn(["the keys of the server open nothing: each library has an api_key_file"])
    options = ServerOptions(
        host=host,
        port=port,
        # Of several libraries each has its own, and is checked below.
        api_keys=common or tuple(dict.fromkeys(key for own in keys.values() for key in own)),
        open_to_all=open_to_all,
        names=tuple(name or ()),
        index_roots=_folders("--index-root", index_root or ()),
        reports=() if one is None else _reports(one, reports),
        url_hosts=tuple(url_host or ()),
        cors_origins=tuple(cors_origin or ()),
        concurrency=concurrency,
        queue=queue,
        timeout_s=timeout_s,
        max_body_mb=max_body_mb,
        max_upload_mb=max_upload_mb,
        max_uploads_mb=max_uploads_mb,
        upload_ttl_s=upload_ttl_s,
        max_pixels=max_pixels,
        max_video_s=max_video_s,
        max_frames=max_frames,
        max_documents=max_documents,
        decode_workers=decode_workers,
        decode_timeout_s=decode_timeout_s,
        index_jobs=index_jobs,
        preload=preload,
        shutdown_s=shutdown_s,
        share=share,
        log_format=_log_format(log_format),
    )

    urls: list[str] = []
    members: list[Member] = []

    def started(url: str) -> None:
        urls.append(url)
        # On one line, so that terminals take the whole address for a link.
        if len(urls) > 1:
            stderr().print(f"public link: {escape(url)}", highlight=False, soft_wrap=True)
            return
        served = f"{len(members)} libraries" if one is None else escape(str(one))
        shown = f"serving {served} at {escape(url)}"
        stderr().print(f"{shown} - Ctrl-C ends it", highlight=False, soft_wrap=True)
        for member in members:
            place = f"{url}libraries/{member.name}/" if member.library else "unavailable"
            title = f"  {member.title}" if member.title else ""
            line = escape(f"  {member.name}  {place}{title}")
            stderr().print(line, highlight=False, soft_wrap=True)
        _warn_of_others(options, keys)
        if open_browser:
            _open(url)

    chosen = overrides(set_ or ())
    with contextlib.ExitStack() as stack:
        if one is not None:
            opened = stack.enter_context(
                Library.open(one, config=config, create=False, settings=chosen)
            )
            warn(opened.warnings)
            run(opened, options, on_start=started)
            return
        members, warnings = open_members(
            specs, keys=keys, stack=stack, config=config, settings=chosen
        )
        warn(warnings)
        run(members, options, on_start=started)


def _which(
    folders: Sequence[Path] | None, file: Path | None, environment: Mapping[str, str]
) -> tuple[Path | None, list[LibrarySpec]]:
    """The only library, or several."""
    from secondglance.server.libraries_file import read_libraries_file, specs_of_folders

    if folders and file is not None:
        raise typer.BadParameter("give --library or --libraries, not both", param_hint="--library")
    if file is not None:
        return None, read_libraries_file(file)
    if not folders:
        named = environment.get("SECONDGLANCE_LIBRARY")
        if not named:
            raise typer.BadParameter(
                "name a library folder, here or in SECONDGLANCE_LIBRARY, or give --libraries FILE",
                param_hint="--library",
            )
        return Path(named), []
    return (folders[0], []) if len(folders) == 1 else (None, specs_of_folders(folders))


def _only_for_one(flag: str, given: object) -> None:
    if given:
        raise InputError(
            f"{flag} does not say for which of several libraries",
            remedy="write roots and reports of each into a file: serve --libraries FILE.toml",
        )


def _folders(flag: str, paths: Sequence[Path]) -> tuple[Path, ...]:
    for path in paths:
        if not path.expanduser().is_dir():
            raise InputError(f"{flag} {path} is not a folder", remedy="check the path")
    return tuple(path.expanduser() for path in paths)


def _reports(library: Path, given: Sequence[Path] | None) -> tuple[Path, ...]:
    if given:
        return _folders("--reports", given)
    from secondglance.server.opening import own_reports

    return own_reports(library.expanduser())


def _log_format(given: str) -> Literal["console", "json"]:
    if given not in ("console", "json"):
        raise typer.BadParameter(
            f"{given!r} is neither console nor json", param_hint="--log-format"
        )
    return cast(Literal["console", "json"], given)


def _warn_of_others(options: ServerOptions, keys: Mapping[str, tuple[str, ...]]) -> None:
    if options.is_local:
        return
    without = [name for name, own in keys.items() if not own]
    if without:
        warn(
            [
                f"no API key is asked for by {len(without)} of {len(keys)} libraries "
                f"({', '.join(without[:5])}): whoever reaches this address can see their files"
            ]
        )
    elif not options.api_keys:
        warn(["no API key is asked for: whoever reaches this address can see and search all files"])


def _open(url: str) -> None:
    import threading
    import webbrowser

    def show() -> None:
        if not webbrowser.open(url):
            warn([f"there is no browser to open; go to {url}"])

    # A browser in the terminal would keep the server from starting.
    threading.Thread(target=show, daemon=True).start()
