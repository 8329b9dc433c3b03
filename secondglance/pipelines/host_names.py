"""Names by which a local server may be called.

A web page may give its own name the address of this machine (DNS rebinding) and then read the
server as if it were the page's own. The Host header tells: it holds the page's name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine on itself."""
ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})


def url_host(host: str) -> str:
    """How this machine is called in an address: any address is its own, IPv6 stands in brackets."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{shown}]" if ":" in shown else shown


class HostNames:
    """Knows whether a Host header means this server.

    Args:
        host: Name or address that the server listens on.
        names: Further names, without a port.
        port: Demanded in the header; None allows any, as behind a forwarded port.
    """

    def __init__(self, host: str, *, names: Iterable[str] = (), port: int | None = None) -> None:
        self._any_address = host in ANY_ADDRESS
        self._names = LOCAL | {_plain(name) for name in (host, *names)}
        self._port = port

    def knows(self, header: str) -> bool:
        """Whether this server is meant."""
        name, colon, port = header.rpartition(":")
        if not colon or "]" in port:
            name, port = header, "80"
        if self._port is not None and port != str(self._port):
            return False
        name = _plain(name)
        if name in self._names:
            return bool(name)
        if self._any_address:
            # An address cannot be rebound by a name server as a name can.
            try:
                return bool(ipaddress.ip_address(name))
            except ValueError:
                return False
        return False


def _plain(name: str) -> str:
    return name.lower().strip("[]").rstrip(".")
