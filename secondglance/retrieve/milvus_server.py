"""The connection to a Milvus server: address, TLS, version, and waiting for one that went away."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from pymilvus import MilvusClient

from secondglance.errors import InputError, StoreError
from secondglance.retrieve.milvus_errors import passing

T = TypeVar("T")

Consistency = Literal["strong", "bounded", "session", "eventually"]
"""What a search on a server sees: `strong` everything written before, `session` what this process
wrote, `bounded` all but the last seconds, `eventually` what is there."""

LEAST_VERSION = (2, 3)
"""Of a server: upsert and the cosine metric came with it."""
FULL_TEXT_VERSION = (2, 5)
"""Of a server that analyses text and ranks it by BM25 itself."""
PATTERN_VERSION = (2, 5)
"""Of a server that knows all `like` patterns."""
PAGING_VERSION = (2, 5)
"""Of a server that tells a client at which moment of its own a reading of all rows began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of an encrypted connection; all optional.

    Attributes:
        ca: PEM of the authority that signed the server's certificate; none for the public ones.
        cert: PEM of a certificate of our own, where the server asks for one.
        key: PEM of its key.
        name: What the server's certificate calls it, where that is not the host of the address.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    name: str | None = None

    def options(self, uri: str) -> dict[str, Any]:
        """What the client takes.

        Raises:
            InputError: They do not go together or with the address, or a file cannot be read.
        """
        given = {"tls_ca": self.ca, "tls_cert": self.cert, "tls_key": self.key}
        if not any(given.values()) and self.name is None:
            return {}
        if not uri.startswith("https://"):
            raise InputError(
                "a store.tls_... setting is given, and the address is not encrypted",
                remedy="write store.uri as https://host:port, or leave them out",
            )
        if (self.cert is None) != (self.key is None) or (self.cert is not None and self.ca is None):
            raise InputError(
                "store.tls_cert needs store.tls_key and store.tls_ca with it",
                remedy="give all three, or store.tls_ca alone",
            )
        for setting, path in given.items():
            if path is None:
                continue
            try:
                text = path.read_bytes()
            except OSError as error:
                raise InputError(f"cannot read store.{setting} {path}: {error.strerror}") from error
            if b"-----BEGIN " not in text:
                raise InputError(
                    f"store.{setting} {path} is no PEM file", remedy="it starts with -----BEGIN"
                )
        options: dict[str, Any] = {"secure": True}
        if self.name is not None:
            options["server_name"] = self.name
        if self.cert is not None:
            options |= {"ca_pem_path": str(self.ca), "client_pem_path": str(self.cert)}
            options["client_key_path"] = str(self.key)
        elif self.ca is not None:
            options["server_pem_path"] = str(self.ca)
        return options


def connect(
    uri: str, *, token: str | None, tls: Tls, timeout_s: float
) -> tuple[Any, tuple[int, int] | None, bool]:
    """A client of its own, the version of the server, and whether it is Lite, which names none.

    Raises:
        InputError: As `Tls.options`.
        StoreError: The server is too old, or the two disagree about encryption.
    """
    options = tls.options(uri)
    try:
        # Another store of this process may have opened the same address with other files.
        client: Any = MilvusClient(
            uri, token=token or "", timeout=timeout_s, dedicated=True, **options
        )
    except Exception as error:
        # The client says no more than that it could not connect, or that it was refused.
        may_be = passing(error) or uri.startswith("https://")
        if may_be and (trouble := encryption_trouble(uri, tls=tls, timeout_s=timeout_s)):
            raise StoreError(
                f"no encrypted connection to Milvus at {without_secrets(uri)}: {trouble[0]}",
                remedy=trouble[1],
            ) from error
        raise
    try:
        answer = str(client.get_server_version(timeout=timeout_s))
        if "lite-" in answer:
            return client, None, True
        check_version(answer, without_secrets(uri))
    except BaseException:
        client.close()
        raise
    return client, version_of(answer), False


def encryption_trouble(uri: str, *, tls: Tls, timeout_s: float) -> tuple[str, str] | None:
    """What keeps a server that listens from an encrypted connection, and the remedy.

    None where nobody listens, or where this is not the trouble.
    """
    address = urlsplit(uri)
    is_encrypted = address.scheme == "https"
    try:
        context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
        if not is_encrypted:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
        context.set_alpn_protocols(["h2"])
        host, port = address.hostname or "", address.port or 19530
        name = tls.name or host
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=name) as encrypted,
        ):
            # A server that misses our certificate says so after the handshake.
            encrypted.recv(1)
    except ssl.SSLError as error:
        return _explained(error) if is_encrypted else None
    except OSError:
        return None
    if is_encrypted:
        return None
    return "it wants encryption", "write store.uri as https://host:port"


def _explained(error: ssl.SSLError) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "give its authority in store.tls_ca"
        if "mismatch" in error.verify_message or "not valid for" in error.verify_message:
            remedy = "give the name in its certificate in store.tls_name"
        return error.verify_message, remedy
    said = str(error.reason or error).lower().replace("_", " ")
    if "wrong version number" in said or "record layer failure" in said:
        return "it speaks plainly", "write store.uri as http://host:port"
    if "alert" in said:
        return (
            f"it refuses us ({said})",
            "give store.tls_cert and store.tls_key, signed by an authority that it knows",
        )
    return said, "check store.tls_ca, store.tls_cert and store.tls_key"


def version_of(answer: str) -> tuple[int, int] | None:
    """Major and minor of a server's version, such as `v2.3.5`; None where it names none."""
    found = re.search(r"(\d+)\.(\d+)", answer)
    return (int(found[1]), int(found[2])) if found else None


def knows_patterns(version: tuple[int, int] | None) -> bool:
    """Whether a server knows all `like` patterns; of unknown version, it may refuse one yet."""
    return version is None or version >= PATTERN_VERSION


def pages_itself(version: tuple[int, int] | None) -> bool:
    """Whether all rows can be read by the client's iterator."""
    return version is None or version >= PAGING_VERSION


def check_version(answer: str, label: str) -> None:
    """Refuses a server that lacks what the store needs.

    Raises:
        StoreError: It is older than `LEAST_VERSION`.
    """
    version = version_of(answer)
    if version is not None and version < LEAST_VERSION:
        raise StoreError(
            f"Milvus at {label} is version {answer}, which is too old",
            remedy=f"use {LEAST_VERSION[0]}.{LEAST_VERSION[1]} or newer",
        )


def patiently(work: Callable[[], T], *, patience_s: float) -> T:
    """Calls again, waiting longer each time, while a server is away or asks to slow down.

    Raises:
        StoreError: As `work` does; that of the last try once `patience_s` is over.
    """
    from tenacity import (
        Retrying,
        retry_if_exception,
        stop_after_delay,
        wait_exponential,
        wait_random,
    )

    retrying = Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, StoreError) and passing(error.__cause__)
        ),
        wait=wait_exponential(multiplier=0.1, max=5) + wait_random(0, 0.1),
        stop=stop_after_delay(patience_s),
        reraise=True,
    )
    return retrying(work)


def without_secrets(uri: str) -> str:
    """An address as messages may show it."""
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
