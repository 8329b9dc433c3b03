"""API keys, sessions of the page, and how often wrong keys may be tried."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from secondglance.errors import InputError
from secondglance.server.options import MAKE_KEY, MIN_KEY_CHARS

ENVIRONMENT = "SECONDGLANCE_API_KEYS"
"""Variable with keys, separated by commas or white space."""
SESSION_S = 12 * 3600.0
MAX_SESSIONS = 256
WRONG_KEYS = 10
"""That one address may try in `WRONG_KEYS_S`."""
WRONG_KEYS_S = 60.0
MAX_ADDRESSES = 4096

Clock = Callable[[], float]


def read_keys(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """API keys of a file and of `SECONDGLANCE_API_KEYS`; both count.

    Args:
        file: One key a line; empty lines and those that begin with # are left out. Only its owner
            (and group, where that is how a container gets its secrets) may be able to read it.
        environment: Variables of the process.

    Raises:
        InputError: The file cannot be read, is readable by others, or holds no key; or a key is
            too short, or has white space or characters beyond ASCII.
    """
    keys = environment.get(ENVIRONMENT, "").replace(",", " ").split()
    if not keys and environment.get(ENVIRONMENT):
        raise InputError(f"{ENVIRONMENT} holds no key", remedy=MAKE_KEY)
    for number, key in enumerate(keys, 1):
        _check(key, f"key {number} of {ENVIRONMENT}")
    if file is not None:
        keys += keys_of_file(file)
    return tuple(dict.fromkeys(keys))


def keys_of_file(file: Path) -> tuple[str, ...]:
    """API keys of a file; see `read_keys`.

    Raises:
        InputError: As there.
    """
    try:
        with file.expanduser().open(encoding="utf-8") as opened:
            # Of what is open, not of the name: that may be another file by now.
            mode = os.fstat(opened.fileno()).st_mode
            if stat.S_IMODE(mode) & (stat.S_IROTH | stat.S_IWOTH):
                raise InputError(
                    f"the key file {file} can be read or written by every user of this machine",
                    remedy=f"chmod 600 {file}",
                )
            lines = [line.strip() for line in opened]
    except OSError as error:
        raise InputError(
            f"cannot read the key file {file}: {error.strerror}",
            remedy="name a file with one key a line",
        ) from error
    except UnicodeDecodeError:
        raise InputError(f"the key file {file} is not text", remedy=MAKE_KEY) from None
    keys = []
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            _check(line, f"line {number} of {file}")
            keys.append(line)
    if not keys:
        raise InputError(f"the key file {file} holds no key", remedy=MAKE_KEY)
    return tuple(dict.fromkeys(keys))


def _check(key: str, where: str) -> None:
    """Checks one key; messages do not show it."""
    if len(key) < MIN_KEY_CHARS:
        raise InputError(
            f"{where} has {len(key)} characters; at least {MIN_KEY_CHARS} are needed",
            remedy=MAKE_KEY,
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"{where} has characters that no header can carry", remedy=MAKE_KEY)


class KeyRing:
    """The keys that open a server.

    Args:
        keys: None for a server without keys.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def find(self, given: str) -> str | None:
        """A short name of the key that was given, for logs; None if it is none.

        Takes as long for any key of a length, right or wrong: digests are of equal length, and
        each is compared to its end.
        """
        digest = _digest(given)
        found = None
        for own in self._digests:
            if hmac.compare_digest(digest, own):
                found = own
        return None if found is None else found.hex()[:8]

    def holds(self, name: str) -> bool:
        """Whether this is the short name of one of the keys."""
        return name in self.names()

    def names(self) -> list[str]:
        """The short name of each key."""
        return [digest.hex()[:8] for digest in self._digests]


class Sessions:
    """Browsers that have shown a key. In memory: they end with the server.

    Args:
        seconds: How long one lasts.
        most: How many there may be; the oldest goes first.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        *,
        seconds: float = SESSION_S,
        most: int = MAX_SESSIONS,
        clock: Clock = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._most = most
        self._clock = clock
        # By digest, so that looking one up tells nothing of the tokens; oldest first.
        self._open: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def begin(self, key_name: str) -> str:
        """Begins a session for whoever showed this key; returns its token."""
        while len(self._open) >= self._most:
            self._open.popitem(last=False)
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = (self._clock() + self.seconds, key_name)
        return token

    def find(self, token: str) -> str | None:
        """The name of the key that began a session; None if it is over or never was."""
        digest = _digest(token)
        ends, key_name = self._open.get(digest, (0.0, ""))
        if not key_name:
            return None
        if self._clock() >= ends:
            del self._open[digest]
            return None
        return key_name

    def end(self, token: str) -> None:
        """Ends a session, if it is one."""
        self._open.pop(_digest(token), None)

    def clear(self) -> None:
        """Ends all."""
        self._open.clear()


class WrongKeys:
    """Counts wrong keys by address, in memory of a fixed size.

    Args:
        most: Wrong keys of one address within `seconds`.
        seconds: Of a count, from the first wrong key.
        addresses: That are remembered; the longest unchanged is forgotten first.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        *,
        most: int = WRONG_KEYS,
        seconds: float = WRONG_KEYS_S,
        addresses: int = MAX_ADDRESSES,
        clock: Clock = time.monotonic,
    ) -> None:
        self._most = most
        self._seconds = seconds
        self._addresses = addresses
        self._clock = clock
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Seconds until an address may be wrong again; 0 if it may now."""
        count, ends = self._seen.get(_network(address), (0, 0.0))
        return max(0.0, ends - self._clock()) if count >= self._most else 0.0

    def add(self, address: str) -> None:
        """Notes a wrong key."""
        name, now = _network(address), self._clock()
        count, ends = self._seen.pop(name, (0, 0.0))
        if now >= ends:
            count, ends = 0, now + self._seconds
        while len(self._seen) >= self._addresses:
            self._seen.popitem(last=False)
        self._seen[name] = (count + 1, ends)

    def __len__(self) -> int:
        return len(self._seen)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """Whoever has one IPv6 address has 2**64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
