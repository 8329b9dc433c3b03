"""What an operator decides about a server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secondglance.errors import InputError

LOCAL_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
MIN_KEY_CHARS = 16
"""Of an API key."""
MAKE_KEY = "make a key with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
_ORIGIN = re.compile(r"https?://[^\s/?#@*]+")
_NAME = re.compile(r"[^\s/:?#@*]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server behaves.

    Attributes:
        host: Address that it listens on.
        port: Of TCP; 0 takes any that is free.
        api_keys: Any of them opens the server; empty for none.
        open_to_all: Whether a host other than this machine is served without keys.
        names: Further names by which clients may call the server, as in the Host header.
        index_roots: Folders from which jobs may index; the library's own roots are among them.
        reports: Folders of `evaluate` reports to show.
        url_hosts: Hosts from which media may be fetched; empty for none.
        cors_origins: Web origins that may call the interface; empty for none.
        concurrency: Requests that are worked on at the same time; 0: four a core, at most 32.
        queue: Requests that wait besides these, at most; further ones get 429.
        timeout_s: Longest a request may take, waiting included.
        max_body_mb: Of one request.
        max_upload_mb: Of one file.
        max_uploads_mb: Of all uploaded files together; the oldest go first.
        upload_ttl_s: How long an uploaded file is kept.
        max_pixels: Of one uploaded picture or frame.
        max_video_s: Of one uploaded clip.
        max_frames: Of one uploaded clip, counted as they are stored.
        max_documents: Of one rerank request.
        decode_workers: Processes that read uploaded media.
        decode_timeout_s: For one uploaded file.
        index_jobs: Of several libraries, that index at the same time; of one library one does.
        preload: Whether models are loaded before the first request.
        shutdown_s: How long requests may go on after the server was told to stop.
        share: Whether there is a temporary public link, through Gradio's servers.
        log_format: Of the log: lines for people, or one JSON object a line.

    Raises:
        InputError: A host that is not this machine, without keys and not `open_to_all`; a public
            link without keys; a key that is too short; an origin or a name that is none.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    api_keys: tuple[str, ...] = ()
    open_to_all: bool = False
    names: tuple[str, ...] = ()
    index_roots: tuple[Path, ...] = ()
    reports: tuple[Path, ...] = ()
    url_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    concurrency: int = 0
    queue: int = 64
    timeout_s: float = 300.0
    max_body_mb: float = 96.0
    max_upload_mb: float = 64.0
    max_uploads_mb: float = 1024.0
    upload_ttl_s: float = 3600.0
    max_pixels: int = 64_000_000
    max_video_s: float = 30.0
    max_frames: int = 4000
    max_documents: int = 1000
    decode_workers: int = 2
    decode_timeout_s: float = 30.0
    index_jobs: int = 2
    preload: bool = False
    shutdown_s: float = 30.0
    share: bool = False
    log_format: Literal["console", "json"] = "console"

    def __post_init__(self) -> None:
        if self.host not in LOCAL_HOSTS and not self.api_keys and not self.open_to_all:
            raise InputError(
                f"the host {self.host} can be reached by others, and there is no API key",
                remedy="give --api-key-file or SECONDGLANCE_API_KEYS, or say --open-to-all",
            )
        if self.share and not self.api_keys:
            raise InputError(
                "a public link can be reached by everybody, and there is no API key",
                remedy="give --api-key-file or SECONDGLANCE_API_KEYS",
            )
        short = sum(len(key) < MIN_KEY_CHARS for key in self.api_keys)
        if short:
            raise InputError(
                f"{short} of {len(self.api_keys)} API keys have fewer than {MIN_KEY_CHARS} "
                "characters",
                remedy=MAKE_KEY,
            )
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InputError(
                    f"{origin!r} is not a web origin",
                    remedy="name each that may call, as in https://media.example.com",
                )
        for name in self.names:
            if not _NAME.fullmatch(name):
                raise InputError(
                    f"{name!r} is not the name of a host",
                    remedy="write it without scheme and port, as in media.example.com",
                )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOCAL_HOSTS
