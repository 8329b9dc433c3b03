"""A temporary public link, through the tunnel that Gradio keeps for its users.

Whoever has the link reaches this server through Gradio's machines, which see all that is sent.
"""

from __future__ import annotations

import contextlib
import io
import re
import secrets
from urllib.parse import urlsplit

from secondglance.errors import InputError

_LINK = re.compile(r"https://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+/?")


def public_link(port: int) -> str:
    """Opens a tunnel to a port of this machine; it ends with the process.

    Args:
        port: Of TCP, where the server listens on 127.0.0.1.

    Returns:
        The address, `https://....gradio.live`. Gradio lets it live for some days at most.

    Raises:
        InputError: Gradio is not installed, or the tunnel cannot be opened.
    """
    try:
        from gradio import networking
    except ImportError:
        raise InputError(
            "a public link needs Gradio, which is not installed",
            remedy='pip install "secondglance[share]"',
        ) from None
    try:
        # Gradio prints the tunnel's log; stdout is for results.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            link = networking.setup_tunnel(
                local_host="127.0.0.1",
                local_port=port,
                share_token=secrets.token_urlsafe(32),
                share_server_address=None,
                share_server_tls_certificate=None,
            )
    # Gradio raises what it meets: of the network, of the operating system, of its own.
    except Exception as error:
        raise InputError(
            f"there is no public link: Gradio's tunnel failed with {type(error).__name__}",
            remedy="check that the network lets this machine out, or serve without --share",
        ) from error
    if not isinstance(link, str) or not _LINK.fullmatch(link):
        raise InputError(
            "there is no public link: Gradio's tunnel gave no https address",
            remedy="serve without --share",
        )
    return link.rstrip("/") + "/"


def host_of(link: str) -> str:
    """The name by which clients of a link call the server."""
    return urlsplit(link).hostname or ""
