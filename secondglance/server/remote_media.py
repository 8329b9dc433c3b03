"""Fetching media from hosts that the operator listed, and from nowhere else.

A name is resolved once for each connection, all its addresses must be public, and the connection
goes to the address that was looked at: a name server that answers differently the next time
changes nothing. Redirects are followed by hand, each with the same checks. No proxy, no cookie,
no credential takes part.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from secondglance.errors import InputError, MediaError
from secondglance.rerank import stopping

MAX_REDIRECTS = 3
MAX_URL = 2048
CONNECT_S = 5.0
READ_S = 10.0
TOTAL_S = 30.0
"""Of one picture or clip, redirects included."""
PORTS = {"https": 443, "http": 80}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL = re.compile(r"[!-~]+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_UNICAST = ipaddress.ip_network("2000::/3")
_RELAYED = ipaddress.ip_network("2002::/16")
"""6to4 carries an IPv4 address, of any network."""
_SPECIAL = (
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
)
"""Services of clouds under addresses that Python takes for global (Azure, Oracle), and the relays
of 6to4."""

Resolve = Callable[[str, int], Sequence[str]]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, and nothing that carries another."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not found.is_global or found.is_multicast or found.is_reserved:
        return False
    if any(found in network for network in _SPECIAL):
        return False
    if isinstance(found, ipaddress.IPv6Address):
        # Leaves out IPv4-mapped and -compatible, NAT64, site-local and whatever is not assigned.
        return found in _UNICAST and found not in _RELAYED
    return True


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name.

    Raises:
        OSError: There is none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


class RemoteMedia:
    """Fetches files over HTTPS.

    Args:
        hosts: Names, `media.example.org`; `http://media.example.org` also without encryption.
        max_bytes: Of one file.
        total_s: For one file.
        resolve: Addresses of a name.
        network: Connects to an address.
        ssl_context: None for one that trusts the usual authorities.

    Raises:
        InputError: An entry of `hosts` is no host.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        max_bytes: int,
        total_s: float = TOTAL_S,
        resolve: Resolve = resolve,
        network: httpcore.NetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._origins = {origin for host in hosts for origin in _origins(host)}
        self._max_bytes = max_bytes
        self._total_s = total_s
        self._resolve = resolve
        self._network = network or httpcore.SyncBackend()
        self._ssl_context = ssl_context

    def fetch(self, url: str, into: Path) -> None:
        """Writes what is at an address into a file.

        Raises:
            MediaError: The address is not allowed, or cannot be fetched within the limits.
            StoppedError: Nobody waits any more.
        """
        ends = time.monotonic() + self._total_s
        for _ in range(MAX_REDIRECTS + 1):
            target = self._allowed(url)
            following = self._get(target, into, ends)
            if following is None:
                return
            url = urljoin(url, following)
        raise MediaError(f"{target.host.decode()} redirects more than {MAX_REDIRECTS} times")

    def _allowed(self, url: str) -> httpcore.URL:
        """The parts of an address, from which the request is made: it is parsed only once."""
        if len(url) > MAX_URL:
            raise MediaError(f"an address of {len(url)} characters is over the limit of {MAX_URL}")
        if not _URL.fullmatch(url) or "\\" in url:
            raise MediaError("an address with characters that must be escaped")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise MediaError("an address that cannot be understood") from None
        if parts.scheme not in PORTS:
            raise MediaError(f"addresses of the kind {parts.scheme[:20]!r} are not fetched")
        if "@" in parts.netloc:
            raise MediaError("an address with a user name is not fetched")
        if port not in (None, PORTS[parts.scheme]):
            raise MediaError(f"the port {port} is not allowed, only that of {parts.scheme}")
        if (parts.scheme, host) not in self._origins:
            raise MediaError(
                f"the host {host[:100]!r} is not allowed for {parts.scheme} addresses",
                remedy="upload the file, or ask the operator to list the host",
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return httpcore.URL(scheme=parts.scheme, host=host, port=PORTS[parts.scheme], target=target)

    def _get(self, target: httpcore.URL, into: Path, ends: float) -> str | None:
        """Writes the file, or returns where it is instead."""
        host = target.host.decode()
        network = _Checked(self._network, self._resolve, ends)
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": CONNECT_S}
        headers: dict[bytes | str, bytes | str] = {
            "Host": host,
            "User-Agent": "secondglance",
            "Accept": "image/*, video/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        try:
            with (
                httpcore.ConnectionPool(
                    network_backend=network, ssl_context=self._ssl_context, retries=0
                ) as pool,
                pool.stream(
                    "GET", target, headers=headers, extensions={"timeout": timeouts}
                ) as answer,
            ):
                said = _headers(answer.headers)
                if answer.status in _REDIRECTS and "location" in said:
                    return said["location"]
                if answer.status != 200:
                    raise MediaError(f"{host} answers {answer.status}")
                self._read(host, said, answer.iter_stream(), into)
                return None
        except (httpcore.TimeoutException, TimeoutError):
            raise MediaError(f"{host} takes too long") from None
        except (httpcore.NetworkError, OSError):
            raise MediaError(f"{host} cannot be reached") from None
        except (httpcore.ProtocolError, httpcore.ProxyError, UnicodeError, ValueError):
            raise MediaError(f"{host} gives an answer that is no HTTP") from None

    def _read(self, host: str, said: dict[str, str], chunks: Iterable[bytes], into: Path) -> None:
        if said.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise MediaError(f"{host} compresses its answer, which was not asked for")
        too_large = MediaError(
            f"the file of {host} is over the limit of {self._max_bytes / 1e6:.0f} MB"
        )
        length = said.get("content-length", "")
        if length.isdigit() and int(length) > self._max_bytes:
            raise too_large
        written = 0
        with into.open("wb") as file:
            for chunk in chunks:
                stopping.check()
                written += len(chunk)
                if written > self._max_bytes:
                    raise too_large
                file.write(chunk)


class _Checked(httpcore.NetworkBackend):
    """Connects to public addresses only, each looked at before."""

    def __init__(self, network: httpcore.NetworkBackend, resolve: Resolve, ends: float) -> None:
        self._network = network
        self._resolve = resolve
        self._ends = ends

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _within(lambda: self._resolve(host, port), min(CONNECT_S, _left(self._ends)))
        if not addresses or not all(is_public(address) for address in addresses):
            # The address itself is nobody's business: it would tell of this network.
            raise MediaError(f"the host {host!r} has an address that is not public")
        problem: Exception = httpcore.ConnectError("no address")
        for address in addresses[:4]:
            try:
                stream = self._network.connect_tcp(
                    address, port, timeout=min(timeout or CONNECT_S, _left(self._ends))
                )
                return _Timed(stream, self._ends)
            except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
                problem = error
        raise problem


class _Timed(httpcore.NetworkStream):
    """A connection with an end: one that gives a byte now and then would last for ever."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self._stream = stream
        self._ends = ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, min(timeout or READ_S, _left(self._ends)))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, min(timeout or READ_S, _left(self._ends)))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left = min(timeout or CONNECT_S, _left(self._ends))
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, left), self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


def _within(work: Callable[[], Sequence[str]], timeout_s: float) -> Sequence[str]:
    """What a function returns in time: name servers may take as long as they like."""
    found: list[Sequence[str]] = []

    def run() -> None:
        try:
            found.append(work())
        except (OSError, UnicodeError):
            found.append(())

    thread = threading.Thread(target=run, daemon=True, name="resolve")
    thread.start()
    thread.join(timeout_s)
    if not found:
        raise httpcore.ConnectTimeout("no answer from a name server")
    if not found[0]:
        raise httpcore.ConnectError("the name is not known")
    return found[0]


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}


def _origins(host: str) -> list[tuple[str, str]]:
    """What an entry of the list allows: (scheme, host)."""
    scheme, mark, rest = host.strip().lower().partition("://")
    name = (rest if mark else scheme).rstrip("/.")
    try:
        name = name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name) or (mark and scheme not in PORTS):
        raise InputError(
            f"{host!r} is not a host from which media may be fetched",
            remedy="write a name such as media.example.org, or http://media.example.org",
        )
    return [("https", name), ("http", name)] if mark and scheme == "http" else [("https", name)]
